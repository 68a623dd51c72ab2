package diff

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// leaf is one value that is written. A list of plain values is one leaf.
type leaf struct {
	path   string
	text   string // as it is compared
	shown  string // as people see it
	hidden bool   // shown is not all of it
	at     policy.Pos
}

func (l leaf) absent() bool { return l.path == "" }

// same tells whether two leaves say the same: time spans may be written in other units.
func (l leaf) same(o leaf) bool {
	if l.absent() || o.absent() || l.text == o.text {
		return l.absent() == o.absent()
	}
	a, err := time.ParseDuration(l.text)
	b, err2 := time.ParseDuration(o.text)
	return err == nil && err2 == nil && a == b
}

// alike tells whether the settings that two leaves of one key stand in come to the same, such as where a default is
// written out.
func (l leaf) alike(o leaf, a, b *view) bool {
	name := l.path + o.path
	if !l.absent() {
		name = l.path
	}
	name, layer, _ := strings.Cut(name, " of ")
	name, _, _ = strings.Cut(name, ".")
	name, _, _ = strings.Cut(name, "[")
	old, now := settingOf(a, name, layer), settingOf(b, name, layer)
	return old != nil && now != nil && equal(reflect.ValueOf(old), reflect.ValueOf(now), 0)
}

// settingOf is the setting under a key; of those that hold beside each other the one of a layer, or the route's own.
func settingOf(v *view, key, layer string) policy.Setting {
	for set := range v.settings.All(key) {
		own := !set.Kind.Stacked || set.Layer.Place == policy.InRoute
		if layer == "" && own || set.Layer.String() == layer {
			return set.Setting
		}
	}
	return nil
}

// value is nil for a leaf that is not there.
func (l leaf) value() *Value {
	if l.absent() {
		return nil
	}
	return &Value{Text: l.shown, Hidden: l.hidden, At: l.at}
}

// show sets what people see of a leaf under a key.
func (l *leaf) show(key string) {
	text, ok := policy.Show(key, l.text)
	l.shown, l.hidden = text, !ok || text != l.text
}

// reader reads leaves, and keeps those of a tree: many routes share the merged settings.
type reader struct{ known map[known][]leaf }

func newReader() *reader { return &reader{known: make(map[known][]leaf)} }

type known struct {
	path string
	node *policy.Node
}

// leaves is what is written at and below a node.
func (r *reader) leaves(path string, n *policy.Node) []leaf {
	k := known{path, n}
	all, ok := r.known[k]
	if !ok {
		all = below(path, path, n)
		r.known[k] = all
	}
	return all
}

// below reads a node; key is that of the map around it.
func below(path, key string, n *policy.Node) []leaf {
	var all []leaf
	switch {
	case n == nil:
	case n.Kind == policy.Map && len(n.Keys) > 0:
		for i, k := range n.Keys {
			all = append(all, below(path+"."+k.Text, k.Text, n.Items[i])...)
		}
	case n.Kind == policy.List && !plain(n):
		for i, item := range n.Items {
			all = append(all, below(path+"["+strconv.Itoa(i)+"]", key, item)...)
		}
	case n.Kind == policy.Map:
		return []leaf{{path: path, text: "{}", shown: "{}", at: n.Pos}}
	default:
		l := leaf{path: path, text: n.Text, at: n.Pos}
		l.show(key)
		if n.Kind == policy.List {
			l = ofList(path, key, n)
		}
		all = append(all, l)
	}
	return all
}

// plain tells whether a list holds nothing but plain values.
func plain(n *policy.Node) bool {
	return !slices.ContainsFunc(n.Items, func(item *policy.Node) bool { return item.Kind == policy.Map || item.Kind == policy.List })
}

func ofList(path, key string, n *policy.Node) leaf {
	l := leaf{path: path, at: n.Pos}
	var texts, shown []string
	for _, item := range n.Items {
		one := leaf{text: item.Text}
		one.show(key)
		texts, shown = append(texts, item.Text), append(shown, one.shown)
		l.hidden = l.hidden || one.hidden
	}
	l.text, l.shown = "["+strings.Join(texts, ", ")+"]", "["+strings.Join(shown, ", ")+"]"
	return l
}

var (
	nodes    = reflect.TypeFor[*policy.Node]()
	spots    = reflect.TypeFor[policy.Pos]()
	messages = reflect.TypeFor[proto.Message]()
)

// equal compares what was read, not where. It says no where that isn't known: of messages, and of what was kept as it was
// written.
func equal(a, b reflect.Value, depth int) bool {
	if !a.IsValid() || !b.IsValid() || a.Type() != b.Type() || depth > 32 {
		return a.IsValid() == b.IsValid() && !a.IsValid()
	}
	switch t := a.Type(); {
	case t == spots:
		return true
	case t == nodes || t.Implements(messages):
		return a.IsNil() && b.IsNil()
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return equal(a.Elem(), b.Elem(), depth+1)
	case reflect.Struct:
		for i := range a.NumField() {
			if !equal(a.Field(i), b.Field(i), depth+1) {
				return false
			}
		}
		return true
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !equal(a.Index(i), b.Index(i), depth+1) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, k := range a.MapKeys() {
			if other := b.MapIndex(k); !other.IsValid() || !equal(a.MapIndex(k), other, depth+1) {
				return false
			}
		}
		return true
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return a.IsNil() && b.IsNil()
	}
	return a.Equal(b)
}
