package policy

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// endpointFile reads a file of endpoints: one a line, or a JSON list.
func (d *Decode) endpointFile(file string, content []byte) []endpoint {
	whole := &Node{Kind: List, Pos: Pos{File: file}}
	before := d.load.errs
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if isJSON(content) {
		whole.Items = d.jsonList(file, content)
	} else {
		whole.Items = d.lines(file, content)
	}
	switch {
	case len(whole.Items) == 0 && d.load.errs > before:
		return nil
	case len(whole.Items) > maxEndpoints:
		d.Errorf(whole, "more than %d endpoints", maxEndpoints)
		return nil
	case len(whole.Items) == 0:
		d.Errorf(whole, "the file lists no endpoint").Hintf("write one a line: 10.0.0.1:8080")
		return nil
	}
	all := make([]endpoint, len(whole.Items))
	for i, n := range whole.Items {
		d.Decode(n, &all[i])
	}
	return all
}

// isJSON tells JSON from lines, of which the first may begin with an IPv6 address in brackets.
func isJSON(content []byte) bool {
	content = bytes.TrimSpace(content)
	inside, list := bytes.CutPrefix(content, []byte{'['})
	inside = bytes.TrimSpace(inside)
	return list && len(inside) > 0 && bytes.IndexByte([]byte(`"{]`), inside[0]) >= 0 || bytes.HasPrefix(content, []byte{'{'})
}

// jsonList reads a JSON list as what it is to YAML.
func (d *Decode) jsonList(file string, content []byte) []*Node {
	p := &parser{file: file, out: &parsed{}}
	var root *Node
	if p.sane(content) {
		p.load(content, func(doc *yaml.Node) bool {
			switch {
			case root != nil:
				p.lose(doc.Line, doc.Column, "a second list can't follow")
			case p.few(doc):
				root = p.convert(doc.Content[0], nil, 0, 0)
			}
			return root != nil
		})
	}
	for _, problem := range p.out.problems {
		d.add(problem)
	}
	switch {
	case root == nil || len(p.out.problems) > 0:
		return nil
	case root.Kind != List:
		d.Errorf(root, "want a list of endpoints, got %s", root.shape()).Hintf(`write ["10.0.0.1:8080"]`)
		return nil
	}
	return root.Items
}

// lines reads an endpoint from each line, as if it were written as a map.
func (d *Decode) lines(file string, content []byte) []*Node {
	if at, what := oddByte(content); at >= 0 {
		line, col := lineCol(content, at)
		d.add(&Problem{Pos: Pos{File: file, Line: line, Col: col}, Message: what})
		return nil
	}
	var all []*Node
	number := 0
	for line := range bytes.Lines(content) {
		if number++; len(all) > maxEndpoints || d.load.full(file) {
			break
		}
		if n := d.line(Pos{File: file, Line: number, Col: 1}, string(line)); n != nil {
			all = append(all, n)
		}
	}
	return all
}

// maxWords is how many words of a line are read: more than an endpoint can have.
const maxWords = 8

// line reads "10.0.0.1:8080 weight=2 zone=a priority=1"; nil for an empty one.
func (d *Decode) line(at Pos, line string) *Node {
	const blank = " \t\r\n"
	var n *Node
	for words := 0; ; words++ {
		rest := strings.TrimLeft(line, blank)
		at.Col += len(line) - len(rest)
		if rest == "" || rest[0] == '#' {
			return n
		}
		if words == maxWords {
			d.add(&Problem{Pos: at, Message: "want an address and what is to be said of it, got more than " + strconv.Itoa(maxWords) + " words"})
			return n
		}
		word := rest
		if end := strings.IndexAny(rest, blank); end >= 0 {
			word = rest[:end]
		}
		if n == nil {
			n = &Node{Kind: Map, Pos: at}
			n.set("address", word, at, at)
		} else {
			d.attribute(n, at, word)
		}
		at.Col += utf8.RuneCountInString(word)
		line = rest[len(word):]
	}
}

// attribute adds what stands after the address.
func (d *Decode) attribute(n *Node, at Pos, word string) {
	key, value, ok := strings.Cut(word, "=")
	switch {
	case !ok:
		d.add(&Problem{Pos: at, Message: "want key=value after the address, got " + quote(word), Hint: "as weight=2, zone=eu-1a or priority=1"})
	case n.Get(key) != nil:
		d.add(&Problem{Pos: at, Message: "the key " + quote(key) + " stands here twice", Hint: "keep one of the two"})
	default:
		valueAt := at
		valueAt.Col += utf8.RuneCountInString(key) + 1
		n.set(key, value, at, valueAt)
	}
}

// set adds a key to a map that was not written as one.
func (n *Node) set(key, value string, keyAt, valueAt Pos) {
	index := len(n.Keys)
	n.Keys = append(n.Keys, &Node{Text: key, Pos: keyAt, up: n, index: index})
	n.Items = append(n.Items, &Node{Text: value, Pos: valueAt, up: n, index: index})
}

// add tells of a problem of a file that was read.
func (d *Decode) add(p *Problem) {
	p.blames = append(p.blames, d.reads...)
	d.load.add(p)
}
