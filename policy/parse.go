package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// Bounds of a policy file. A file at all of them is read, or refused, within 200 ms and 64 MiB.
const (
	maxFile       = 1 << 20
	maxDepth      = 32
	maxNodes      = 150_000
	maxSeparators = 100_000 // bytes that may begin a node, counted before anything is parsed
	maxDocuments  = 1_000
	maxComments   = 40_000 // the YAML parser keeps them all
	maxEntries    = 20_000 // of one section in one document
)

// parsed is one policy file as a tree for each of its documents.
type parsed struct {
	roots      []*Node
	problems   Problems
	unreadable bool // some of the file could not be read: its entries are not all known
}

type parser struct {
	file  string
	out   *parsed
	begin string // the hint for a file that has no sections
	nodes int
	free  []Node // nodes are allocated many at a time
}

// parse reads one policy file.
func parse(file string, content []byte) *parsed {
	p := &parser{file: file, out: &parsed{}, begin: "begin with one of gateways:, sidecars:, services:, routes:, auth:, consumers:, plans:, rateLimits:"}
	return p.parse(content)
}

func (p *parser) parse(content []byte) *parsed {
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if p.sane(content) {
		p.documents(content)
	}
	return p.out
}

func (p *parser) documents(content []byte) {
	p.load(content, p.document)
}

// load gives each document of a file to take, until that says false.
func (p *parser) load(content []byte, take func(*yaml.Node) bool) {
	defer func() {
		if r := recover(); r != nil { // the YAML parser panics on what it holds impossible
			p.lose(0, 0, "this file can't be parsed: %s", cut(fmt.Sprint(r)))
		}
	}()
	loader, err := yaml.NewLoader(bytes.NewReader(content),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(2*maxDepth))))
	if err != nil {
		p.lose(0, 0, "%v", err)
		return
	}
	for count := 0; ; count++ {
		var doc yaml.Node
		err := loader.Load(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.syntax(content, err)
			return
		}
		if count == maxDocuments {
			p.lose(doc.Line, doc.Column, "more than %d documents in one file", maxDocuments)
			return
		}
		if !take(&doc) {
			return
		}
	}
}

// document converts one document; false when the file is not read on.
func (p *parser) document(doc *yaml.Node) bool {
	if len(doc.Content) == 0 {
		return true
	}
	if !p.few(doc) {
		return false
	}
	for _, section := range doc.Content[0].Content {
		if len(section.Content) > 2*maxEntries {
			p.lose(section.Line, section.Column, "more than %d entries in one section", maxEntries).Hint = "split the file"
			return false
		}
	}
	root := p.convert(doc.Content[0], nil, 0, 0)
	if root == nil || root.Kind == Null {
		return true
	}
	if root.Kind != Map {
		p.lose(root.Pos.Line, root.Pos.Col, "want sections, got %s", root.shape()).Hint = p.begin
		return true
	}
	p.out.roots = append(p.out.roots, root)
	return true
}

// few tells whether a file does not have too many values.
func (p *parser) few(doc *yaml.Node) bool {
	if p.nodes += count(doc, 0); p.nodes > maxNodes {
		p.lose(0, 0, "more than %d values in one file", maxNodes).Hint = "split the file"
		return false
	}
	return true
}

func count(y *yaml.Node, depth int) int {
	n := 1
	if depth > 2*maxDepth {
		return n
	}
	for _, c := range y.Content {
		n += count(c, depth+1)
	}
	return n
}

func (p *parser) fail(line, col int, format string, args ...any) *Problem {
	problem := &Problem{Pos: Pos{File: p.file, Line: line, Col: col}, Message: fmt.Sprintf(format, args...), stage: parsing}
	if len(p.out.problems) < maxFileProblems {
		p.out.problems = append(p.out.problems, problem)
	}
	return problem
}

// lose is fail where what follows, or a whole entry, is not read.
func (p *parser) lose(line, col int, format string, args ...any) *Problem {
	p.out.unreadable = true
	return p.fail(line, col, format, args...)
}

func (p *parser) node(y *yaml.Node, up *Node, index int) *Node {
	if len(p.free) == 0 {
		p.free = make([]Node, 128)
	}
	n := &p.free[0]
	p.free = p.free[1:]
	*n = Node{Pos: Pos{File: p.file, Line: y.Line, Col: y.Column}, up: up, index: index}
	return n
}

// convert makes a node of y, and nil of what the language does not have.
func (p *parser) convert(y *yaml.Node, up *Node, index, depth int) *Node {
	if depth > maxDepth {
		p.fail(y.Line, y.Column, "more than %d levels deep", maxDepth)
		return nil
	}
	if !p.plain(y) {
		p.out.unreadable = p.out.unreadable || depth <= 2
		return nil
	}
	n := p.node(y, up, index)
	switch y.Kind {
	case yaml.ScalarNode:
		n.Text = y.Value
		n.Quoted = y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
		if !n.Quoted && isNull(n.Text) {
			n.Kind, n.Text = Null, ""
		}
	case yaml.SequenceNode:
		n.Kind = List
		n.Items = make([]*Node, 0, len(y.Content))
		for _, c := range y.Content {
			if item := p.convert(c, n, len(n.Items), depth+1); item != nil {
				n.Items = append(n.Items, item)
			}
		}
	case yaml.MappingNode:
		n.Kind = Map
		p.pairs(y, n, depth)
	default:
		p.fail(y.Line, y.Column, "this YAML is not part of the policy language")
		return nil
	}
	return n
}

func isNull(s string) bool {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// plain refuses the parts of YAML that the language leaves out.
func (p *parser) plain(y *yaml.Node) bool {
	switch {
	case y.Kind == yaml.AliasNode:
		p.fail(y.Line, y.Column, "aliases (*%s) are not part of the policy language", cut(y.Value)).
			Hint = "write the value out, or share settings through gateways.NAME.defaults or a service"
		return false
	case y.Anchor != "":
		p.fail(y.Line, y.Column, "anchors (&%s) are not part of the policy language", cut(y.Anchor)).
			Hint = "remove it; settings are shared through gateways.NAME.defaults or a service"
		return false
	case y.Style&yaml.TaggedStyle != 0 || y.Tag == "!":
		p.fail(y.Line, y.Column, "tags (%s) are not part of the policy language", cut(y.Tag)).
			Hint = "remove it; quotes make a text of what looks like a number"
		return false
	}
	return true
}

func (p *parser) pairs(y *yaml.Node, n *Node, depth int) {
	pairs := len(y.Content) / 2
	n.Keys, n.Items = make([]*Node, 0, pairs), make([]*Node, 0, pairs)
	var seen map[string]*Node
	if pairs > 8 {
		seen = make(map[string]*Node, pairs)
	}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := p.key(y.Content[i], n)
		if key == nil {
			continue
		}
		if first := firstKey(n, seen, key.Text); first != nil {
			dup := p.fail(key.Pos.Line, key.Pos.Col, "the key %s stands here twice", quote(key.Text))
			dup.Also, dup.Path = []Pos{first.Pos}, first.Path()
			dup.Hint = "keep one of the two"
			continue
		}
		n.Keys = append(n.Keys, key)
		value := p.convert(y.Content[i+1], n, key.index, depth+1)
		if value == nil {
			n.Keys = n.Keys[:len(n.Keys)-1]
			continue
		}
		if value.Kind != Scalar {
			value.Pos = key.Pos
		}
		n.Items = append(n.Items, value)
		if seen != nil {
			seen[key.Text] = key
		}
	}
}

func firstKey(n *Node, seen map[string]*Node, text string) *Node {
	if seen != nil {
		return seen[text]
	}
	for _, k := range n.Keys {
		if k.Text == text {
			return k
		}
	}
	return nil
}

func (p *parser) key(y *yaml.Node, n *Node) *Node {
	if !p.plain(y) {
		p.out.unreadable = true
		return nil
	}
	quoted := y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0
	switch {
	case y.Kind != yaml.ScalarNode:
		p.fail(y.Line, y.Column, "a key has to be a text, not a map or a list").
			Hint = "text that begins with { or [ needs quotes"
		return nil
	case y.Value == "<<" && !quoted:
		p.fail(y.Line, y.Column, "merge keys (<<) are not part of the policy language").
			Hint = "write the keys out, or share settings through gateways.NAME.defaults or a service"
		return nil
	case y.Value == "":
		p.fail(y.Line, y.Column, "a key is missing here")
		return nil
	}
	key := p.node(y, n, len(n.Keys))
	key.Text, key.Quoted = y.Value, quoted
	return key
}
