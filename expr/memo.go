package expr

import "sync"

// Bounds of a memo: what it has beyond them is forgotten.
const (
	maxKnown      = 4096    // expressions
	maxKnownBytes = 1 << 20 // of their texts
)

// memo is what was found out about expressions before, by their text: a policy has one in its defaults for thousands of
// routes, and is loaded again at each change. The zero value is ready; it is safe for concurrent use.
type memo[T any] struct {
	mu    sync.Mutex
	known map[string]T
	bytes int
}

// of gives what find has to say of an expression, now or before.
func (m *memo[T]) of(expression string, find func(string) T) T {
	if len(expression) > maxExpression {
		return find(expression) // which refuses it
	}
	m.mu.Lock()
	found, ok := m.known[expression]
	m.mu.Unlock()
	if ok {
		return found
	}
	found = find(expression) // others may find the same meanwhile: that costs time and nothing else
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= maxKnown || m.bytes+len(expression) > maxKnownBytes {
		m.known, m.bytes = nil, 0
	}
	if m.known == nil {
		m.known = make(map[string]T)
	}
	m.known[expression] = found
	m.bytes += len(expression)
	return found
}
