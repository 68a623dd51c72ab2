package policy

import (
	"reflect"
	"slices"
	"strings"
	"sync"
)

// field is one key of a struct.
type field struct {
	index  []int
	typ    reflect.Type
	doc    string
	schema string // what Schemas.override makes of it
}

type fields struct {
	byName   map[string]field
	names    []string // in the order of the struct
	required []string
}

var fieldCache sync.Map // reflect.Type -> *fields

func fieldsOf(t reflect.Type) *fields {
	if f, ok := fieldCache.Load(t); ok {
		return f.(*fields)
	}
	f := &fields{byName: make(map[string]field)}
	f.gather(t, nil)
	fieldCache.Store(t, f)
	return f
}

func (f *fields) gather(t reflect.Type, index []int) {
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(slices.Clone(index), i)
		tag, ok := sf.Tag.Lookup("policy")
		if !ok && sf.Anonymous && sf.Type.Kind() == reflect.Struct {
			f.gather(sf.Type, at)
		}
		if !ok || tag == "-" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		f.byName[name] = field{index: at, typ: sf.Type, doc: sf.Tag.Get("doc"), schema: sf.Tag.Get("schema")}
		f.names = append(f.names, name)
		if options == "required" {
			f.required = append(f.required, name)
		}
	}
}

// ways is how a type wants to be read.
type ways struct{ decoder, text, enum, whole bool }

var wayCache sync.Map // reflect.Type -> ways

func waysOf(t reflect.Type) ways {
	if w, ok := wayCache.Load(t); ok {
		return w.(ways)
	}
	p := reflect.PointerTo(t)
	w := ways{
		decoder: p.Implements(decoderType),
		text:    p.Implements(textType),
		enum:    t.Kind() == reflect.String && t.Implements(enumType),
		whole:   p.Implements(wholeType),
	}
	wayCache.Store(t, w)
	return w
}
