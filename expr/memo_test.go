package expr

import (
	"strconv"
	"strings"
	"testing"
)

func TestMemoAsksOnceAndForgets(t *testing.T) {
	asked := 0
	find := func(text string) int {
		asked++
		return len(text)
	}
	var m memo[int]
	for range 3 {
		if got := m.of("true", find); got != 4 || asked != 1 {
			t.Fatalf("got %d, asked %d times", got, asked)
		}
	}
	for i := range 2 * maxKnown {
		m.of(strings.Repeat("x", maxExpression-10)+strconv.Itoa(i), find)
		if len(m.known) > maxKnown || m.bytes > maxKnownBytes {
			t.Fatalf("knows %d expressions of %d bytes", len(m.known), m.bytes)
		}
	}
	if m.of("true", find); asked != 2+2*maxKnown {
		t.Errorf("asked %d times, want the first to be forgotten", asked)
	}
	m.of(strings.Repeat("x", maxExpression+1), find)
	if _, kept := m.known[strings.Repeat("x", maxExpression+1)]; kept {
		t.Error("keeps what is too long to be an expression")
	}
}

func TestCheckSaysTheSameAgain(t *testing.T) {
	for _, text := range []string{"request.method == 'GET'", "request.method ==", "1 + 1"} {
		if first, again := CheckCondition(text), CheckCondition(text); (first == nil) != (again == nil) || first != nil && first.Error() != again.Error() {
			t.Errorf("%s: %v, then %v", text, first, again)
		}
	}
	if CheckCondition("1 + 1") == nil || CheckValue("1 + 1") != nil {
		t.Error("values and conditions are taken for each other")
	}
}
