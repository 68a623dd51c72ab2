package patch

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// part is one message of a patch.
type part struct {
	of      *message
	message proto.Message
	node    *policy.Node
	wrote   []wrote
}

// at is where a field was written, by its path in the message.
func (p *part) at(path string) string {
	for _, w := range p.wrote {
		if w.path == path {
			return w.at
		}
	}
	return p.of.name
}

// wrote is a field that a patch writes, and where: a path below the setting.
type wrote struct {
	*field
	at string
}

// read reads the messages of a patch by their names; others may stand beside them.
func read(d *policy.Decode, n *policy.Node, messages []*message, others ...string) parts {
	names := slices.Clone(others)
	for _, m := range messages {
		names = append(names, m.name)
	}
	slices.Sort(names)
	if n.Kind != policy.Map || len(n.Keys) == 0 {
		d.Errorf(n, "want a map with one of Envoy's messages").Hintf("its keys: %s", strings.Join(names, ", "))
		return nil
	}
	var all parts
	for i, key := range n.Keys {
		at := slices.IndexFunc(messages, func(m *message) bool { return m.name == key.Text })
		if at >= 0 {
			all = append(all, readPart(d, n.Items[i], messages[at]))
		} else if !slices.Contains(others, key.Text) {
			d.Unknown(key, names)
		}
	}
	return all
}

func readPart(d *policy.Decode, n *policy.Node, m *message) part {
	r := &reader{Decode: d, of: m}
	read := m.zero.ProtoReflect().New()
	r.message(n, read, "", m.name)
	if !r.bad {
		r.violations(n, read.Interface())
	}
	return part{of: m, message: read.Interface(), node: n, wrote: r.wrote}
}

// reader reads a message from a node as protobuf's JSON has it: fields by either of their names, time spans as "5s".
type reader struct {
	*policy.Decode
	of    *message
	wrote []wrote
	bad   bool
}

func (r *reader) fail(n *policy.Node, format string, args ...any) *policy.Problem {
	r.bad = true
	return r.Errorf(n, format, args...)
}

// decode reads a plain value.
func (r *reader) decode(n *policy.Node, into any) bool {
	ok := r.Decode.Decode(n, into)
	r.bad = r.bad || !ok
	return ok
}

// message reads a map into a message. path is where the message is by protobuf's names, at where it is written.
func (r *reader) message(n *policy.Node, into protoreflect.Message, path, at string) {
	d := into.Descriptor()
	if n.Kind != policy.Map {
		r.fail(n, "want a map, the fields of Envoy's %s", d.Name())
		return
	}
	if len(n.Keys) == 0 && r.of.allowedAt(path) == nil {
		r.fail(n, "write a field of Envoy's %s", d.Name()).Hintf("there are %s", strings.Join(r.of.below(path, d), ", "))
		return
	}
	seen := make(map[protoreflect.FieldNumber]bool)
	known := sync.OnceValue(func() []string { return r.of.below(path, d) })
	for i, key := range n.Keys {
		if key.Text == typeKey && path == "" && r.of.whole() {
			continue // of a filter: it has told the message
		}
		f := fieldOf(d, key.Text)
		switch {
		case f == nil:
			r.bad = true
			r.Unknown(key, known())
		case seen[f.Number()]:
			r.fail(key, "%s stands here twice, by both of its names", f.JSONName())
		case r.excluded(key, f, into):
		case r.may(key, f, join(path, string(f.Name()))):
			seen[f.Number()] = true
			r.field(n.Items[i], f, into, join(path, string(f.Name())), join(at, key.Text))
		}
	}
}

// fieldOf finds a field by one of its names.
func fieldOf(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := d.Fields().ByJSONName(name); f != nil {
		return f
	}
	return d.Fields().ByName(protoreflect.Name(name))
}

// excluded reports the second of two fields of which there can be only one.
func (r *reader) excluded(key *policy.Node, f protoreflect.FieldDescriptor, into protoreflect.Message) bool {
	if one := f.ContainingOneof(); one != nil && into.WhichOneof(one) != nil {
		r.fail(key, "%s and %s exclude each other", into.WhichOneof(one).JSONName(), f.JSONName()).Hintf("remove one of the two")
		return true
	}
	return false
}

// may tells whether a field can be written, and reports why not.
func (r *reader) may(key *policy.Node, f protoreflect.FieldDescriptor, path string) bool {
	if r.of.allowedAt(path) != nil || r.of.leads(path) {
		return true
	}
	why, hint := "it is not among the fields that leave auth and limits as they are", ""
	if no := r.of.refusedAt(path); no != nil {
		why, hint = no.why, no.hint
	}
	above := strings.TrimSuffix(strings.TrimSuffix(path, string(f.Name())), ".")
	const most = 12
	if names := r.of.below(above, f.ContainingMessage()); hint == "" && 0 < len(names) && len(names) <= most {
		hint = "here may stand " + strings.Join(names, ", ")
	}
	r.fail(key, "no patch may write %s: %s", f.JSONName(), why).Hint = hint
	return false
}

// field reads what stands under a field's name.
func (r *reader) field(n *policy.Node, f protoreflect.FieldDescriptor, into protoreflect.Message, path, at string) {
	if allowed := r.of.allowedAt(path); allowed != nil && allowed.path == path {
		r.wrote = append(r.wrote, wrote{allowed, at})
	}
	if !f.IsList() {
		if v, ok := r.value(n, f, into.NewField(f), path, at); ok {
			into.Set(f, v)
		}
		return
	}
	if n.Kind != policy.List || len(n.Items) == 0 {
		r.fail(n, "want a list of one or more").Hintf("write [ … ]")
		return
	}
	list := into.Mutable(f).List()
	for i, item := range n.Items {
		if v, ok := r.value(item, f, list.NewElement(), path, at+"["+strconv.Itoa(i)+"]"); ok {
			list.Append(v)
		}
	}
}

// value reads one value of a field; fresh is a new one, to be filled where it is a message.
func (r *reader) value(n *policy.Node, f protoreflect.FieldDescriptor, fresh protoreflect.Value, path, at string) (protoreflect.Value, bool) {
	if f.Message() == nil {
		return r.scalar(n, f, path)
	}
	switch name := f.Message().FullName(); {
	case name == "google.protobuf.Duration":
		return r.span(n, path)
	case name.Parent() == "google.protobuf" && strings.HasSuffix(string(name), "Value"):
		inner := f.Message().Fields().ByName("value")
		v, ok := r.scalar(n, inner, path)
		if ok {
			fresh.Message().Set(inner, v)
		}
		return fresh, ok
	}
	r.message(n, fresh.Message(), path, at)
	return fresh, true
}

// year is longer than anybody wants to wait, and shorter than what Envoy counts in.
const year = 365 * 24 * time.Hour

func (r *reader) span(n *policy.Node, path string) (v protoreflect.Value, ok bool) {
	var span policy.Duration
	if !r.decode(n, &span) {
		return v, false
	}
	bounds := r.of.allowedAt(path)
	longest := cmp.Or(bounds.longest, year)
	if got := time.Duration(span); got < bounds.shortest || got > longest {
		r.fail(n, "want a time span from %s to %s, got %s", policy.Duration(bounds.shortest), policy.Duration(longest), span)
		return v, false
	}
	return protoreflect.ValueOfMessage(durationpb.New(time.Duration(span)).ProtoReflect()), true
}

func (r *reader) scalar(n *policy.Node, f protoreflect.FieldDescriptor, path string) (v protoreflect.Value, ok bool) {
	switch f.Kind() {
	case protoreflect.EnumKind:
		return r.enum(n, f.Enum())
	case protoreflect.BoolKind:
		var b bool
		ok = r.decode(n, &b)
		return protoreflect.ValueOfBool(b), ok
	case protoreflect.StringKind:
		return r.text(n)
	case protoreflect.DoubleKind:
		var d float64
		ok = r.decode(n, &d)
		return protoreflect.ValueOfFloat64(d), ok
	}
	return r.number(n, f.Kind(), path)
}

// number reads a whole number; JSON has those of 64 bits in quotes.
func (r *reader) number(n *policy.Node, kind protoreflect.Kind, path string) (v protoreflect.Value, ok bool) {
	plain := *n
	plain.Quoted = false
	var u uint64
	switch kind {
	case protoreflect.Int32Kind:
		var i int32
		ok = r.decode(&plain, &i)
		return protoreflect.ValueOfInt32(i), ok
	case protoreflect.Int64Kind:
		var i int64
		ok = r.decode(&plain, &i)
		return protoreflect.ValueOfInt64(i), ok
	case protoreflect.Uint64Kind:
		ok = r.decode(&plain, &u)
		v = protoreflect.ValueOfUint64(u)
	default:
		var small uint32
		ok = r.decode(&plain, &small)
		u, v = uint64(small), protoreflect.ValueOfUint32(small)
	}
	if bounds := r.of.allowedAt(path); ok && bounds.most > 0 && (u < bounds.least || u > bounds.most) {
		r.fail(n, "want a number from %d to %d, got %d", bounds.least, bounds.most, u)
		return v, false
	}
	return v, ok
}

// text reads a text. What becomes part of a header or of a statistic's name is one line.
func (r *reader) text(n *policy.Node) (v protoreflect.Value, ok bool) {
	var s string
	if !r.decode(n, &s) {
		return v, false
	}
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		r.fail(n, "the text holds a control character")
		return v, false
	}
	return protoreflect.ValueOfString(s), true
}

func (r *reader) enum(n *policy.Node, d protoreflect.EnumDescriptor) (v protoreflect.Value, ok bool) {
	if n.Kind == policy.Scalar {
		if value := d.Values().ByName(protoreflect.Name(n.Text)); value != nil {
			return protoreflect.ValueOfEnum(value.Number()), true
		}
	}
	var names []string
	for i := range d.Values().Len() {
		names = append(names, string(d.Values().Get(i).Name()))
	}
	p := r.fail(n, "want a name of Envoy's %s", d.Name())
	const most = 24
	if len(names) <= most {
		p.Hintf("one of %s", strings.Join(names, ", "))
	}
	return v, false
}

// schema is a map of messages by their names. What each may hold would be most of Envoy's API.
func schema(messages []*message) map[string]any {
	properties := make(map[string]any)
	for _, m := range messages {
		name := m.zero.ProtoReflect().Descriptor().FullName()
		properties[m.name] = map[string]any{
			"type": "object", "minProperties": 1, "description": fmt.Sprintf("fields of Envoy's %s, as JSON", name),
		}
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1}
}
