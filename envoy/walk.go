package envoy

import (
	"github.com/cncf/xds/go/udpa/annotations"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// Walk calls visit for a message and then for those below it, those packed in an Any too where their type is known.
// visit tells whether it has changed the message: then what it was packed in is packed again.
func Walk(m proto.Message, visit func(proto.Message) bool) {
	w := walker{visit: visit, seen: make(map[*anypb.Any]bool)}
	w.message(m.ProtoReflect())
}

type walker struct {
	visit func(proto.Message) bool
	seen  map[*anypb.Any]bool // what many filter chains share is looked through once
}

// message tells whether anything in m has changed.
func (w walker) message(m protoreflect.Message) bool {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		return w.packed(packed)
	}
	changed := w.visit(m.Interface())
	below := func(v protoreflect.Value) {
		changed = w.message(v.Message()) || changed
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, one protoreflect.Value) bool { below(one); return true })
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				below(v.List().Get(i))
			}
		default:
			below(v)
		}
		return true
	})
	return changed
}

func (w walker) packed(packed *anypb.Any) bool {
	if w.seen[packed] {
		return false
	}
	w.seen[packed] = true
	m, err := packed.UnmarshalNew()
	if err != nil || !w.message(m.ProtoReflect()) {
		return false
	}
	packed.Value = Pack(m).Value
	return true
}

// redacted is what is shown in place of a secret.
const redacted = "[redacted]"

// Redact is a copy of a message to be shown to people: what Envoy's API marks as sensitive is left out of it, wherever
// it stands. The names of files and of variables that hold secrets stay.
func Redact(m proto.Message) proto.Message {
	shown := proto.Clone(m)
	Walk(shown, redactFields)
	return shown
}

func redactFields(m proto.Message) bool {
	changed := false
	r := m.ProtoReflect()
	r.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !sensitive(f) {
			return true
		}
		changed = true
		switch {
		case f.Kind() == protoreflect.StringKind && f.Cardinality() != protoreflect.Repeated:
			r.Set(f, protoreflect.ValueOfString(redacted))
		case f.Message() == nil || f.IsMap():
			r.Clear(f)
		case f.IsList():
			for i := range v.List().Len() {
				redactWhole(v.List().Get(i).Message().Interface())
			}
		default:
			redactWhole(v.Message().Interface())
		}
		return true
	})
	return changed
}

// ruleOfAuth is where a route names its rule to the companion. Envoy's API takes it for sensitive; ours is a hash of the
// policy, and what people look for.
const ruleOfAuth = "envoy.extensions.filters.http.ext_authz.v3.CheckSettings.context_extensions"

func sensitive(f protoreflect.FieldDescriptor) bool {
	if f.FullName() == ruleOfAuth {
		return false
	}
	o, ok := f.Options().(*descriptorpb.FieldOptions)
	return ok && o != nil && proto.GetExtension(o, annotations.E_Sensitive).(bool)
}

// redactWhole takes away all that a sensitive message holds.
func redactWhole(m proto.Message) {
	source, ok := m.(*corev3.DataSource)
	if !ok {
		proto.Reset(m)
		return
	}
	switch source.Specifier.(type) {
	case *corev3.DataSource_InlineBytes, *corev3.DataSource_InlineString:
		source.Specifier = &corev3.DataSource_InlineString{InlineString: redacted}
	}
}
