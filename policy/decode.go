package policy

import (
	"cmp"
	"encoding"
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Enum is a string type with a fixed set of values.
type Enum interface{ Values() []string }

// EnumHint is an Enum that tells what was meant by a text that is no choice and near none.
type EnumHint interface{ HintFor(text string) string }

// Decode reads nodes into Go values and reports what does not fit.
type Decode struct {
	load  *loader
	layer bool     // one layer of several: a leaf may be off, and required keys may come from another layer
	reads []string // files read so far

	self     *Node // the node that a Decoder is reading, and its type: it may ask for its own fields
	selfType reflect.Type
}

// Errorf reports a problem at n.
func (d *Decode) Errorf(n *Node, format string, args ...any) *Problem {
	p := d.load.report(n, "", false, format, args...)
	p.blames = append(p.blames, d.reads...)
	return p
}

// Decode reads n into what into points to, a struct, map, slice, scalar or [Decoder]; false when it did not fit. A
// Decoder that hands in its own receiver and node gets its fields read as those of a struct.
func (d *Decode) Decode(n *Node, into any) bool {
	before := d.load.errs
	d.value(n, reflect.ValueOf(into).Elem())
	return d.load.errs == before
}

// File is [Check.File] for types that read files while they are decoded.
func (d *Decode) File(n *Node, name string) ([]byte, bool) {
	content, full, p := d.load.file(n, "", name)
	d.reads = append(d.reads, full)
	if p != nil {
		p.blames = append(p.blames, d.reads...)
	}
	return content, p == nil
}

// OncePerFile gives what build makes of the file that d has read last. It is made once for all entries of a load that refer
// to the file and ask for this T, be they thousands.
func OncePerFile[T any](d *Decode, build func() T) T {
	return onceOf(d.load, onceKey{reflect.TypeFor[T](), d.reads[len(d.reads)-1]}, build)
}

// Layer tells whether n is part of one layer of several, where required keys may be missing.
func (d *Decode) Layer() bool { return d.layer }

var (
	decoderType = reflect.TypeFor[Decoder]()
	textType    = reflect.TypeFor[encoding.TextUnmarshaler]()
	enumType    = reflect.TypeFor[Enum]()
	nodeType    = reflect.TypeFor[*Node]()
	wholeType   = reflect.TypeFor[Whole]()
)

// value reads n into v, which is addressable.
func (d *Decode) value(n *Node, v reflect.Value) {
	t := v.Type()
	switch {
	case d.load.full(n.Pos.File):
		d.load.errs++
		return
	case d.layer && n.Off():
		return
	case t == nodeType:
		v.Set(reflect.ValueOf(n))
		return
	case t.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(t.Elem()))
		}
		d.value(n, v.Elem())
		return
	}
	ways := waysOf(t)
	if ways.whole && d.layer {
		d.layer = false
		defer func() { d.layer = true }()
	}
	switch {
	case ways.decoder && !(d.self == n && d.selfType == t):
		self, selfType := d.self, d.selfType
		d.self, d.selfType = n, t
		v.Addr().Interface().(Decoder).DecodePolicy(d, n)
		d.self, d.selfType = self, selfType
		return
	case ways.text:
		d.text(n, v)
		return
	case ways.enum:
		d.enum(n, v)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		d.structure(n, v, nil)
	case reflect.Map:
		d.mapping(n, v)
	case reflect.Slice:
		d.list(n, v)
	default:
		d.scalar(n, v)
	}
}

func (d *Decode) text(n *Node, v reflect.Value) {
	if n.Kind != Scalar {
		d.Errorf(n, "want a text, got %s", n.shape())
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Text)); err != nil {
		d.Errorf(n, "%v", err)
	}
}

func (d *Decode) enum(n *Node, v reflect.Value) {
	values := v.Interface().(Enum).Values()
	if n.Kind != Scalar || !slices.Contains(values, n.Text) {
		p := d.Errorf(n, "want one of %s, got %s", strings.Join(values, ", "), n.shape())
		if near := nearest(n.Text, values); near != "" {
			p.Hintf("did you mean %s?", quote(near))
		} else if h, ok := v.Interface().(EnumHint); ok {
			p.Hintf("%s", h.HintFor(n.Text))
		}
		return
	}
	v.SetString(n.Text)
}

func (d *Decode) scalar(n *Node, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if n.Kind != Scalar {
			d.Errorf(n, "want a text, got %s", n.shape()).Hint = asText(n)
			return
		}
		v.SetString(n.Text)
	case reflect.Bool:
		if n.Kind != Scalar || n.Quoted || n.Text != "true" && n.Text != "false" {
			d.Errorf(n, "want true or false, got %s", n.shape())
			return
		}
		v.SetBool(n.Text == "true")
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(n.Text, 64)
		if !d.number(n, "a number") {
			return
		}
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || strings.ContainsAny(n.Text, "xXpP_") {
			d.Errorf(n, "want a number, got %s", n.shape())
			return
		}
		v.SetFloat(f)
	default:
		d.integer(n, v)
	}
}

// number refuses what can't be a number, and tells what to do about quotes.
func (d *Decode) number(n *Node, want string) bool {
	if n.Kind != Scalar || n.Quoted {
		p := d.Errorf(n, "want %s, got %s", want, n.shape())
		if n.Kind == Scalar && looksNumeric(n.Text) {
			p.Hintf("write %s without quotes", n.Text)
		}
		return false
	}
	return true
}

func (d *Decode) integer(n *Node, v reflect.Value) {
	bits := v.Type().Bits()
	if !d.number(n, "a whole number") {
		return
	}
	if v.CanInt() {
		i, err := strconv.ParseInt(n.Text, 10, bits)
		switch {
		case errors.Is(err, strconv.ErrRange):
			d.Errorf(n, "want a whole number from %d to %d, got %s", int64(-1)<<(bits-1), int64(1)<<(bits-1)-1, n.shape())
			return
		case err != nil:
			d.withoutPercent(n, d.Errorf(n, "want a whole number, got %s", n.shape()))
			return
		}
		v.SetInt(i)
		return
	}
	u, err := strconv.ParseUint(n.Text, 10, bits)
	if err != nil {
		d.withoutPercent(n, d.Errorf(n, "want a whole number from 0 to %d, got %s", uint64(math.MaxUint64)>>(64-bits), n.shape()))
		return
	}
	v.SetUint(u)
}

// withoutPercent tells who wrote a share where a number is wanted.
func (*Decode) withoutPercent(n *Node, p *Problem) {
	number, ok := strings.CutSuffix(n.Text, "%")
	if _, err := strconv.ParseUint(number, 10, 32); ok && err == nil {
		p.Hintf("write %s", number)
	}
}

func (d *Decode) list(n *Node, v reflect.Value) {
	if n.Kind != List {
		p := d.Errorf(n, "want a list, got %s", n.shape())
		if n.Kind == Scalar {
			p.Hintf("write [%s]", inFlow(n))
		}
		return
	}
	defer func(layer bool) { d.layer = layer }(d.layer)
	d.layer = false // lists are replaced whole
	v.Set(reflect.MakeSlice(v.Type(), len(n.Items), len(n.Items)))
	for i, item := range n.Items {
		d.value(item, v.Index(i))
	}
}

// inFlow writes a scalar as it may stand in a list in brackets.
func inFlow(n *Node) string {
	if n.Quoted || strings.ContainsAny(n.Text, "*&!|>%@`{}[],:#?'\"") {
		return quote(n.Text)
	}
	return cut(n.Text)
}

func (d *Decode) mapping(n *Node, v reflect.Value) {
	if n.Kind != Map {
		d.Errorf(n, "want a map, got %s", n.shape()).Hint = asMap(n)
		return
	}
	t := v.Type()
	m := reflect.MakeMapWithSize(t, len(n.Keys))
	for i, key := range n.Keys {
		if d.layer && n.Items[i].Off() {
			continue
		}
		k, item := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		d.mapKey(key, k)
		d.value(n.Items[i], item)
		m.SetMapIndex(k, item)
	}
	v.Set(m)
}

// asText tells who wrote a map for a text, as the Gateway API has it, to write the text itself, or the key that means the
// same.
func asText(n *Node) string {
	if n.Kind != Map {
		return ""
	}
	for i, item := range n.Items {
		if _, plain := Show(n.Keys[i].Text, item.Text); item.Kind != Scalar || !plain {
			continue
		}
		switch strings.ToLower(n.Keys[i].Text) {
		case "replaceprefix", "replaceprefixmatch":
			return "write prefix: " + inFlow(item) + " in its place"
		case "replacefullpath", "value", "exact", "name":
			return "write the text itself: " + inFlow(item)
		}
	}
	return ""
}

// asMap tells who wrote a list of {name: x, value: y} to write x: y.
func asMap(n *Node) string {
	if n.Kind != List || len(n.Items) == 0 {
		return ""
	}
	name, value := n.Items[0].Get("name"), n.Items[0].Get("value")
	if name == nil || value == nil || name.Kind != Scalar || value.Kind != Scalar {
		return ""
	}
	text := inFlow(value)
	if _, plain := Show(name.Text, value.Text); !plain {
		text = "…"
	}
	return "names are keys here: write {" + inFlow(name) + ": " + text + "}"
}

func (d *Decode) mapKey(key *Node, k reflect.Value) {
	ways := waysOf(k.Type())
	if ways.enum {
		if values := k.Interface().(Enum).Values(); !slices.Contains(values, key.Text) {
			d.load.reportKey(key, "want one of %s, got %s", strings.Join(values, ", "), quote(key.Text)).
				Hint = hint(key.Text, values)
			return
		}
	}
	k.SetString(key.Text)
}

// structure reads a map into the tagged fields of v; extra, when given, takes the keys that are not among them.
func (d *Decode) structure(n *Node, v reflect.Value, extra func(key, value *Node)) {
	if n.Kind != Map {
		p := d.Errorf(n, "want a map, got %s", n.shape())
		if fields := fieldsOf(v.Type()); len(fields.names) > 0 {
			p.Hintf("its keys: %s", strings.Join(fields.names, ", "))
		}
		return
	}
	fields := fieldsOf(v.Type())
	for i, key := range n.Keys {
		if d.load.full(key.Pos.File) {
			d.load.errs++
			return
		}
		f, ok := fields.byName[key.Text]
		switch {
		case ok:
			d.value(n.Items[i], v.FieldByIndex(f.index))
		case extra != nil:
			extra(key, n.Items[i])
		default:
			d.Unknown(key, fields.names)
		}
	}
	if d.layer {
		return
	}
	for _, name := range fields.required {
		if n.Get(name) == nil {
			p := d.load.report(n, name, false, "is required, but missing")
			if doc := fields.byName[name].doc; doc != "" {
				p.Hintf("%s: %s", name, doc)
			}
		}
	}
}

// Unknown reports a key that is none of names; types that read their keys themselves call it, too.
func (d *Decode) Unknown(key *Node, names []string) {
	p := d.load.reportKey(key, "unknown key %s", quote(key.Text))
	if p.Hint == "" && !d.load.full(key.Pos.File) {
		p.Hint = cmp.Or(translated(key.Text, names), d.load.guess(key.Text, names))
	}
}

// TrueOr reads true, which leaves into as it is: all defaults; or a map into it. The hint is for whoever wrote neither.
func (d *Decode) TrueOr(n *Node, into any, hint string) {
	switch {
	case n.Kind == Map:
		d.Decode(n, into)
	case !n.True():
		d.Errorf(n, "want true, or a map, got %s", n.shape()).Hintf("%s", hint)
	}
}

// TrueOr is the schema of what [Decode.TrueOr] reads; form is that of the map.
func TrueOr(form map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"const": true}, form}}
}

// True tells whether the node is the word true, as YAML has it.
func (n *Node) True() bool { return n.Kind == Scalar && !n.Quoted && n.Text == "true" }
