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

// Written is the places of a setting: those of its keys where layers were merged from several places, else its own. There
// is one for each line.
func (s Set) Written() []Pos {
	if s.Node == nil {
		return nil
	}
	var all []Pos
	s.Node.leaves(&all)
	slices.SortFunc(all, Pos.compare)
	return slices.CompactFunc(all, func(a, b Pos) bool { return a.start() == b.start() })
}

// leaves gathers where scalars stand: those of a map stand where their key does.
func (n *Node) leaves(all *[]Pos) {
	if len(n.Items) == 0 || n.Kind == List {
		*all = append(*all, n.Pos)
		return
	}
	for i, item := range n.Items {
		if item.Kind == Map && len(item.Items) > 0 {
			item.leaves(all)
		} else {
			*all = append(*all, n.Keys[i].Pos)
		}
	}
}
