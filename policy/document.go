package policy

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Document is a YAML file that is no policy and is read by the same rules: strictly, within the same bounds, and with a
// place for everything that is wrong with it. Cases for legation test are such files.
type Document struct {
	Root *Node // nil where nothing could be read, or nothing stands there
	load *loader
}

// ReadDocument reads a file into what into points to, as settings are read: see [Decode].
func ReadDocument(file string, content []byte, into any) *Document {
	d := &Document{load: New().begin(Files{file: content}, nil)}
	p := &parser{file: file, out: new(parsed)}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if len(content) > maxFile {
		p.fail(0, 0, "larger than %d KiB: split the file", maxFile>>10)
	} else if p.sane(content) {
		p.load(content, func(doc *yaml.Node) bool { return p.only(doc, d) })
	}
	for _, one := range p.out.problems {
		one.Message = strings.ReplaceAll(one.Message, "the policy language", "the language of these files")
		if strings.Contains(one.Hint, "gateways.NAME.defaults") {
			one.Hint = "write the value out"
		}
		d.load.add(one)
	}
	d.load.stage = decoding
	if d.Root != nil {
		decode := &Decode{load: d.load}
		decode.Decode(d.Root, into)
	}
	return d
}

// only takes the first document of a file, and refuses a second one.
func (p *parser) only(doc *yaml.Node, d *Document) bool {
	switch {
	case len(doc.Content) == 0 || !p.few(doc):
	case d.Root != nil:
		p.fail(doc.Content[0].Line, doc.Content[0].Column, "a second document in the file").Hint = "put it into a file of its own"
	default:
		root := p.convert(doc.Content[0], nil, 0, 0)
		if root != nil && root.Kind != Null {
			d.Root = root
		}
		return true
	}
	return false
}

// Errorf reports a problem at n, which is part of the document.
func (d *Document) Errorf(n *Node, format string, args ...any) *Problem {
	return d.load.report(n, "", false, format, args...)
}

// KeyErrorf reports a problem at a key of a map.
func (d *Document) KeyErrorf(key *Node, format string, args ...any) *Problem {
	return d.load.reportKey(key, format, args...)
}

// NoSuch reports that nothing has the name that stands at n, with the nearest of those that there are.
func (d *Document) NoSuch(n *Node, what string, names []string) *Problem {
	p := d.load.report(n, "", false, "there is no %s %s", what, quote(n.Text))
	if p.Hint == "" {
		p.Hint = d.load.guess(n.Text, names)
	}
	return p
}

// Problems is everything wrong with the document, in order of line and column.
func (d *Document) Problems() Problems {
	problems := d.load.done()
	problems.hide(d.load.files)
	return problems
}

// DocumentSchema is the JSON Schema (draft 2020-12) of the documents that are read into what v points to, for editors.
func DocumentSchema(title string, v any) []byte {
	s := &Schemas{lang: New(), defs: make(map[string]any), names: make(map[schemaKey]string)}
	return s.encode(title, maps.Clone(s.object(reflect.TypeOf(v).Elem(), false)))
}

// KeyOf is the key that a node is the value of, or the node itself where it is none's.
func (n *Node) KeyOf() *Node {
	if n.up == nil || n.up.Kind != Map || !slices.Contains(n.up.Items, n) {
		return n
	}
	return n.up.Keys[n.index]
}
