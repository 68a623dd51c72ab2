package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Who moves a route to another file changes two files, and may have got one of them wrong. Were the good one served and
// the bad one held back, the route would be in neither. So what has gone from a file stays while a file that is held back
// may have it: when that says of the same name or host what it did not say before, or what it says can't be known.

// thing is what requests or other entries may rely on: an entry of a section, or what a route answers for.
type thing struct{ section, name string }

// answers is the section of a thing that is a host, and what else a route asks of requests to it.
const answers = ""

// stay takes back the files of which such things have gone. False when there are none.
func (s *isolation) stay() bool {
	held := s.heldBack()
	if len(held) == 0 {
		return false
	}
	s.files = maps.Clone(s.files) // who has loaded them keeps the map
	var left map[thing][]string
	changed := false
	for _, file := range slices.Sorted(maps.Keys(s.last)) {
		if served, ok := s.files[file]; !IsPolicy(file) || ok && bytes.Equal(served, s.last[file]) {
			continue
		}
		gone := lost(s.things(s.last, file), s.things(s.files, file))
		if len(gone) > 0 && left == nil {
			left = make(map[thing][]string)
			for other := range s.files {
				maps.Copy(left, s.things(s.files, other))
			}
		}
		if what, by := claimed(lost(gone, left), held); by != nil {
			s.restore(file)
			s.stayed = append(s.stayed, staying(file, what, by.file))
			changed = true
		}
	}
	return changed
}

// staying tells why a file is not served as it is.
func staying(file string, what thing, by string) *Problem {
	p := &Problem{Pos: Pos{File: file}, Warning: true}
	subject := fmt.Sprintf("%s of %s", quote(what.name), what.section)
	if what.section == answers {
		host, _, _ := strings.Cut(what.name, " ")
		subject = "a route for " + quote(host)
	}
	p.Message = fmt.Sprintf("%s is in no file any more, and may have moved to %s, which is held back: what this file held before stays", subject, by)
	return p.Hintf("mend %s first", by)
}

// heldBack is a policy file that is not served as it is.
type heldBack struct {
	file         string
	text, before []byte // nil text: not known
	gained       map[thing][]string
}

func (s *isolation) heldBack() (all []heldBack) {
	texts := maps.Clone(s.held)
	for file, data := range s.candidate {
		if served, ok := s.files[file]; IsPolicy(file) && !(ok && bytes.Equal(served, data)) {
			if texts == nil {
				texts = make(Files)
			}
			texts[file] = data
		}
	}
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		h := heldBack{file: file, text: texts[file], before: s.last[file]}
		if h.text != nil {
			h.gained = lost(s.things(texts, file), s.things(s.last, file))
		}
		all = append(all, h)
	}
	return all
}

// things are those of a policy file that is among the files, with the words by which another file would say them, too.
func (s *isolation) things(files Files, file string) map[thing][]string {
	all := make(map[thing][]string)
	if _, ok := files[file]; !ok || !IsPolicy(file) {
		return all
	}
	for _, root := range s.known.parse(files, []string{file})[0].roots {
		if root == nil || root.Kind != Map {
			continue
		}
		for i, section := range root.Items {
			if section.Kind != Map {
				continue
			}
			for j, name := range section.Keys {
				words := []string{name.Text}
				for _, host := range scalars(section.Items[j].Get("hostnames")) {
					words = append(words, host)
					all[thing{answers, host + " " + flat(section.Items[j].Get("match"))}] = []string{host}
				}
				all[thing{root.Keys[i].Text, name.Text}] = words
			}
		}
	}
	return all
}

// scalars are the scalars of a list.
func scalars(n *Node) (words []string) {
	if n == nil {
		return nil
	}
	for _, item := range n.Items {
		words = append(words, item.Text)
	}
	return words
}

// flat is a node as a text that is the same for the same content.
func flat(n *Node) string {
	if n == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(n.Text)
	for i, item := range n.Items {
		if i < len(n.Keys) {
			b.WriteString(n.Keys[i].Text)
		}
		b.WriteString("(" + flat(item) + ")")
	}
	return b.String()
}

// lost is the things that are not among the others.
func lost(some, others map[thing][]string) map[thing][]string {
	left := maps.Clone(some)
	maps.DeleteFunc(left, func(t thing, _ []string) bool { _, there := others[t]; return there })
	return left
}

// claimed finds the first thing that has gone and that a file held back may have now.
func claimed(gone map[thing][]string, held []heldBack) (thing, *heldBack) {
	inOrder := func(a, b thing) int { return cmp.Or(-cmp.Compare(a.section, b.section), cmp.Compare(a.name, b.name)) }
	for _, t := range slices.SortedFunc(maps.Keys(gone), inOrder) {
		for i := range held {
			if held[i].claims(gone[t]) {
				return t, &held[i]
			}
		}
	}
	return thing{}, nil
}

// claims tells whether a file says something with one of these words that it did not say before. One that can't be
// parsed has more of the words than before.
func (h *heldBack) claims(words []string) bool {
	if h.text == nil {
		return true
	}
	for _, said := range h.gained {
		if slices.ContainsFunc(said, func(word string) bool { return slices.Contains(words, word) }) {
			return true
		}
	}
	return slices.ContainsFunc(words, func(word string) bool { return mentions(h.text, word) > mentions(h.before, word) })
}

// mentions counts how often a word stands in a text, and not as a part of a longer name.
func mentions(text []byte, word string) (n int) {
	for len(word) > 0 {
		at := bytes.Index(text, []byte(word))
		if at < 0 {
			break
		}
		end := at + len(word)
		if (at == 0 || !inName(text[at-1])) && (end == len(text) || !inName(text[end])) {
			n++
		}
		text = text[at+1:]
	}
	return n
}

// inName tells whether a character goes on with the name or host beside it.
func inName(c byte) bool {
	return c == '-' || c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}
