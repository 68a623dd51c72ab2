// Package modeltest writes models as text, for the tests that hold two loads of the same files against each other.
package modeltest

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Texts is what can be seen through each entry of a model, and the rest of it.
type Texts struct {
	ByEntry map[any]string // *policy.Gateway, *policy.Service, *policy.Route, *policy.BoundRoute, ...
	Whole   string         // all of it
}

// Of writes a model; nil is nothing. It fails where an entry refers to one of another model.
func Of(t testing.TB, m *policy.Model) Texts {
	t.Helper()
	if m == nil {
		return Texts{Whole: "none"}
	}
	w := &writer{model: m, texts: Texts{ByEntry: make(map[any]string)}, known: make(map[any]bool)}
	for _, list := range []any{m.Gateways, m.Services, m.Routes, m.Auth, m.Consumers, m.Plans, m.Domains} {
		for i := range reflect.ValueOf(list).Len() {
			w.known[reflect.ValueOf(list).Index(i).Interface()] = true
		}
	}
	all := []string{m.Revision, fmt.Sprint(m.Files)}
	for _, s := range m.Secrets {
		all = append(all, fmt.Sprintf("%s %s %q %q", s.ID(), s.Pos, s.Value, s.Key))
	}
	for _, g := range m.Gateways {
		all = append(all, w.entry(g))
	}
	for _, s := range m.Services {
		all = append(all, w.entry(s))
	}
	for _, r := range m.Routes {
		all = append(all, w.entry(r))
	}
	for _, list := range []any{m.Auth, m.Consumers, m.Plans, m.Domains} {
		for i := range reflect.ValueOf(list).Len() {
			all = append(all, w.entry(reflect.ValueOf(list).Index(i).Interface()))
		}
	}
	bound := 0
	for _, g := range m.Gateways {
		all = append(all, "at "+g.Name)
		bound += min(1, len(m.Bound[g]))
		for _, r := range m.Bound[g] {
			all = append(all, w.entry(r))
		}
	}
	if len(m.Bound) != bound {
		t.Errorf("%d lists of bound routes, of which %d are those of gateways", len(m.Bound), bound)
	}
	for _, strange := range w.strange {
		t.Errorf("an entry of another model: %s", strange)
	}
	w.texts.Whole = strings.Join(all, "\n")
	return w.texts
}

// writer writes one model.
type writer struct {
	model   *policy.Model
	texts   Texts
	known   map[any]bool
	strange []string
}

// entry writes what can be seen through an entry: what it refers to, too.
func (w *writer) entry(e any) string {
	text, ok := w.texts.ByEntry[e]
	if !ok {
		w.texts.ByEntry[e] = "itself" // for those that refer to each other
		var b strings.Builder
		w.write(&b, reflect.ValueOf(e).Elem())
		text = b.String()
		w.texts.ByEntry[e] = text
	}
	return text
}

func (w *writer) write(b *strings.Builder, v reflect.Value) {
	if v.CanAddr() && !v.CanInterface() {
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() && v.CanInterface() && w.pointer(b, v) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("nil")
			return
		}
		if v.Kind() == reflect.Interface {
			b.WriteString(v.Elem().Type().String())
		}
		w.write(b, v.Elem())
	case reflect.Struct:
		b.WriteByte('{')
		for i := range v.NumField() {
			b.WriteString(v.Type().Field(i).Name + ":")
			w.write(b, v.Field(i))
			b.WriteByte(' ')
		}
		b.WriteByte('}')
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice {
			fmt.Fprintf(b, "%q", v.Bytes())
			return
		}
		b.WriteByte('[')
		for i := range v.Len() {
			w.write(b, v.Index(i))
			b.WriteByte(' ')
		}
		b.WriteByte(']')
	case reflect.Map:
		w.mapping(b, v)
	case reflect.Func:
		b.WriteString("func")
	case reflect.String:
		fmt.Fprintf(b, "%q", v.String())
	default:
		fmt.Fprint(b, v)
	}
}

func (w *writer) mapping(b *strings.Builder, v reflect.Value) {
	lines := make(map[string]string)
	for it := v.MapRange(); it.Next(); {
		var item strings.Builder
		w.write(&item, addressable(it.Value()))
		lines[fmt.Sprint(it.Key())] = item.String()
	}
	b.WriteString("map")
	for _, key := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(b, "[%q:%s]", key, lines[key])
	}
}

func addressable(v reflect.Value) reflect.Value {
	at := reflect.New(v.Type()).Elem()
	at.Set(v)
	return at
}

// pointer writes what is not followed like any other pointer.
func (w *writer) pointer(b *strings.Builder, v reflect.Value) bool {
	switch p := v.Interface().(type) {
	case *policy.Node:
		b.WriteString("at " + p.Path())
		node(b, p)
	case *policy.Kind:
		b.WriteString(p.Key)
	case *policy.Gateway, *policy.Service, *policy.Route:
		if !w.known[p] {
			w.strange = append(w.strange, fmt.Sprintf("%T", p))
		}
		b.WriteString(w.entry(p))
	case *regexp.Regexp:
		b.WriteString(p.String())
	case proto.Message:
		b.WriteString(prototext.MarshalOptions{}.Format(p))
	default:
		return false
	}
	return true
}

func node(b *strings.Builder, n *policy.Node) {
	fmt.Fprintf(b, "(%d %t %q %s", n.Kind, n.Quoted, n.Text, n.Pos)
	for _, k := range n.Keys {
		node(b, k)
	}
	for _, i := range n.Items {
		node(b, i)
	}
	b.WriteByte(')')
}
