package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"
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
	if held == nil {
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
		if what, by := held.claim(lost(gone, left)); by != "" {
			s.restore(file)
			s.stayed = append(s.stayed, staying(file, what, by))
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

// heldBack is what the policy files say that are not served as they are, and did not say before.
type heldBack struct {
	unknown string            // one of which that can't be known; empty: none
	said    map[string]string // the words, and the file that says each
}

// heldBack is nil when all files are served as they are.
func (s *isolation) heldBack() *heldBack {
	texts := maps.Clone(s.held)
	for file, data := range s.candidate {
		if served, ok := s.files[file]; IsPolicy(file) && !(ok && bytes.Equal(served, data)) {
			if texts == nil {
				texts = make(Files)
			}
			texts[file] = data
		}
	}
	if len(texts) == 0 {
		return nil
	}
	h := &heldBack{said: make(map[string]string)}
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		if texts[file] == nil {
			h.unknown = cmp.Or(h.unknown, file)
			continue
		}
		before := counted(string(s.last[file]))
		for word, n := range counted(string(texts[file])) { // one that can't be parsed has words, too
			if n > before[word] {
				h.said[word] = file
			}
		}
		for _, names := range lost(s.things(texts, file), s.things(s.last, file)) {
			for _, name := range names {
				for word := range words(name) {
					h.said[word] = file
				}
			}
		}
	}
	return h
}

// claim finds the first thing that has gone and that a file held back may have now, and that file.
func (h *heldBack) claim(gone map[thing][]string) (thing, string) {
	inOrder := func(a, b thing) int { return cmp.Or(cmp.Compare(b.section, a.section), cmp.Compare(a.name, b.name)) }
	for _, t := range slices.SortedFunc(maps.Keys(gone), inOrder) {
		if h.unknown != "" {
			return t, h.unknown
		}
		for _, name := range gone[t] {
			by := ""
			for word := range words(name) {
				if by = h.said[word]; by == "" {
					break
				}
			}
			if by != "" {
				return t, by
			}
		}
	}
	return thing{}, ""
}

// things are those of a policy file that is among the files, with the names by which another file would say them, too.
func (s *isolation) things(files Files, file string) map[thing][]string {
	all := make(map[thing][]string)
	if _, ok := files[file]; !ok || !IsPolicy(file) {
		return all
	}
	for _, root := range s.roots(files, file) {
		if root == nil || root.Kind != Map {
			continue
		}
		for i, section := range root.Items {
			if section.Kind != Map {
				continue
			}
			for j, key := range section.Keys {
				names := []string{key.Text}
				for _, host := range scalars(section.Items[j].Get("hostnames")) {
					names = append(names, host)
					all[thing{answers, host + " " + flat(section.Items[j].Get("match"))}] = []string{host}
				}
				all[thing{root.Keys[i].Text, key.Text}] = names
			}
		}
	}
	return all
}

// scalars are the scalars of a list.
func scalars(n *Node) (texts []string) {
	if n == nil {
		return nil
	}
	for _, item := range n.Items {
		texts = append(texts, item.Text)
	}
	return texts
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

// words are the names, hosts, paths and numbers of a text, and whatever else looks like them.
func words(text string) iter.Seq[string] {
	return strings.FieldsFuncSeq(text, func(r rune) bool { return !inName(r) })
}

// counted is how often each word stands in a text.
func counted(text string) map[string]int {
	n := make(map[string]int)
	for word := range words(text) {
		n[word]++
	}
	return n
}

// inName tells whether a character goes on with the name, host or path beside it.
func inName(r rune) bool {
	return r == '-' || r == '_' || r == '.' || r == '*' || r == '/' || unicode.IsLetter(r) || unicode.IsDigit(r)
}
