package policy

import (
	"strconv"
	"strings"
)

// NodeKind is the shape of a [Node].
type NodeKind uint8

// The shapes of a node.
const (
	Scalar NodeKind = iota
	Null
	Map
	List
)

// Node is one node of a policy document. A tree merged from several layers keeps for each leaf the place that it was
// written at. Nodes are immutable once loaded. A map or a list that is the value of a key stands where its key stands.
type Node struct {
	Kind   NodeKind
	Quoted bool   // the scalar stood in quotes: it is a string, whatever it looks like
	Text   string // of a scalar, as written, quotes resolved
	Pos    Pos
	Keys   []*Node // of a map, in the order written; Items[i] is the value of Keys[i]
	Items  []*Node // of a map or a list

	up    *Node // what the node was written in; nil for the root of a document
	index int   // among up.Items, of a key among up.Keys
}

// Off tells whether the node is the word off, which removes what outer layers say.
func (n *Node) Off() bool { return n != nil && n.Kind == Scalar && !n.Quoted && n.Text == "off" }

// Get returns the value under key of a map, or nil.
func (n *Node) Get(key string) *Node {
	if n == nil || n.Kind != Map {
		return nil
	}
	for i, k := range n.Keys {
		if k.Text == key {
			return n.Items[i]
		}
	}
	return nil
}

// keyOf returns the key of a map under which Get finds something, or nil.
func (n *Node) keyOf(key string) *Node {
	for _, k := range n.Keys {
		if k.Text == key {
			return k
		}
	}
	return nil
}

// Path is the way to the node from the top of its file: routes.orders.cors.allowOrigins[0].
func (n *Node) Path() string {
	if n == nil || n.up == nil {
		return ""
	}
	if n.up.Kind == List {
		return n.up.Path() + "[" + strconv.Itoa(n.index) + "]"
	}
	return join(n.up.Path(), short(n.up.Keys[n.index].Text))
}

// find follows rel, such as by.header or allowOrigins[0], as far down as it was written, and returns the last node
// and what is left of rel.
func (n *Node) find(rel string) (*Node, string) {
	for rel != "" {
		next, rest := n.step(rel)
		if next == nil {
			break
		}
		n, rel = next, rest
	}
	return n, rel
}

func (n *Node) step(rel string) (*Node, string) {
	if n.Kind == List {
		return n.stepIndex(rel)
	}
	if n.Kind != Map {
		return nil, rel
	}
	var found *Node
	longest := -1
	rel = strings.TrimPrefix(rel, ".")
	for i, k := range n.Keys {
		if len(k.Text) <= longest || !strings.HasPrefix(rel, k.Text) {
			continue
		}
		if after := rel[len(k.Text):]; after == "" || after[0] == '.' || after[0] == '[' {
			found, longest = n.Items[i], len(k.Text)
		}
	}
	if found == nil {
		return nil, rel
	}
	return found, rel[longest:]
}

func (n *Node) stepIndex(rel string) (*Node, string) {
	digits, rest, ok := strings.Cut(rel, "]")
	if !ok || !strings.HasPrefix(digits, "[") {
		return nil, rel
	}
	i, err := strconv.Atoi(digits[1:])
	if err != nil || i < 0 || i >= len(n.Items) {
		return nil, rel
	}
	return n.Items[i], rest
}

// equal compares what two trees say, not where they say it.
func (n *Node) equal(o *Node) bool {
	if n == o {
		return true
	}
	if n == nil || o == nil || n.Kind != o.Kind || n.Text != o.Text || n.Quoted != o.Quoted || len(n.Items) != len(o.Items) {
		return false
	}
	for i, item := range n.Items {
		other := o.Items[i]
		if n.Kind == Map {
			other = o.Get(n.Keys[i].Text)
		}
		if !item.equal(other) {
			return false
		}
	}
	return true
}

// shape is what messages call the node.
func (n *Node) shape() string {
	switch n.Kind {
	case Null:
		return "nothing"
	case Map:
		return "a map"
	case List:
		return "a list"
	}
	if !n.Quoted && (n.Text == "true" || n.Text == "false" || looksNumeric(n.Text)) {
		return cut(n.Text)
	}
	return quote(n.Text)
}

func looksNumeric(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && !strings.ContainsAny(s, "nNxXpP_")
}

func join(base, step string) string {
	switch {
	case base == "" || step == "":
		return base + step
	case step[0] == '[' || step[0] == '.':
		return base + step
	}
	return base + "." + step
}

// longest is how many bytes of what somebody wrote are repeated in a message.
const longest = 64

func quote(s string) string { return strconv.Quote(cut(s)) }

// cut is as much of what somebody wrote as a message repeats.
func cut(s string) string { return short(redact(s)) }

func short(s string) string {
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "…"
}
