package policy

import (
	"slices"
	"strings"
)

// mostInline is how many bytes of a setting one line shows.
const mostInline = 160

// Inline is what was written, in the short form of YAML and on one line: {request: 5s, idle: off}. It shows no secrets,
// and of what is long the beginning.
func (n *Node) Inline() string {
	var b strings.Builder
	n.inline(&b)
	text := strings.ReplaceAll(escape(redact(b.String())), "\n", " ")
	if len(text) > mostInline {
		text = strings.ToValidUTF8(text[:mostInline], "") + "…"
	}
	return text
}

func (n *Node) inline(b *strings.Builder) {
	if b.Len() > mostInline {
		return
	}
	opens, closes := "", ""
	switch n.Kind {
	case Scalar:
		b.WriteString(n.Text)
	case Map:
		opens, closes = "{", "}"
	case List:
		opens, closes = "[", "]"
	}
	b.WriteString(opens)
	for i, item := range n.Items {
		if i > 0 {
			b.WriteString(", ")
		}
		if n.Kind == Map {
			b.WriteString(n.Keys[i].Text + ": ")
		}
		item.inline(b)
	}
	b.WriteString(closes)
}

// Places is where a setting, or what stands below a key of one, is written: where layers were merged these may be several.
// There is one for each line.
func (n *Node) Places() []Pos {
	if n == nil {
		return nil
	}
	var all []Pos
	n.leaves(&all)
	slices.SortFunc(all, Pos.compare)
	return slices.CompactFunc(all, func(a, b Pos) bool { return a.start() == b.start() })
}

// leaves gathers where what is not merged stands.
func (n *Node) leaves(all *[]Pos) {
	if len(n.Items) == 0 || n.Kind == List {
		*all = append(*all, n.Pos)
		return
	}
	for _, item := range n.Items {
		item.leaves(all)
	}
}
