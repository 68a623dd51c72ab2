package policy

import "reflect"

// merge lays inner over outer: maps merge key by key, but those of a [Whole]; everything else is replaced, off removes.
// Leaves keep their places; a merged map stands where the inner one stands. Either may be nil; the result is nil when
// nothing is left. What the nodes are read into is t, nil where that is not known.
func merge(outer, inner *Node, t reflect.Type) *Node {
	switch {
	case inner == nil:
		return outer
	case inner.Off():
		return nil
	case inner.Kind != Map || replaced(t):
		return inner
	case outer == nil || outer.Kind != Map:
		return strip(inner, t)
	}
	n := &Node{Kind: Map, Pos: inner.Pos, up: inner.up, index: inner.index}
	for i, key := range outer.Keys {
		n.put(key, merge(outer.Items[i], inner.Get(key.Text), below(t, key.Text)))
	}
	for i, key := range inner.Keys {
		if outer.Get(key.Text) == nil {
			n.put(key, merge(nil, inner.Items[i], below(t, key.Text)))
		}
	}
	return n
}

func replaced(t reflect.Type) bool { return t != nil && waysOf(t).whole }

// below is the type that a key of a t is read into.
func below(t reflect.Type, key string) reflect.Type {
	if t == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		t = fieldsOf(t).byName[key].typ
	case reflect.Map:
		t = t.Elem()
	default:
		return nil
	}
	for t != nil && t.Kind() == reflect.Pointer && t != nodeType {
		t = t.Elem()
	}
	return t
}

func (n *Node) put(key, value *Node) {
	if value != nil {
		n.Keys, n.Items = append(n.Keys, key), append(n.Items, value)
	}
}

// strip removes the leaves that are off from a map that covers nothing.
func strip(n *Node, t reflect.Type) *Node {
	if n.Kind != Map || replaced(t) || !n.anyOff() {
		return n
	}
	out := &Node{Kind: Map, Pos: n.Pos, up: n.up, index: n.index}
	for i, key := range n.Keys {
		if !n.Items[i].Off() {
			out.put(key, strip(n.Items[i], below(t, key.Text)))
		}
	}
	return out
}

func (n *Node) anyOff() bool {
	for _, item := range n.Items {
		if item.Off() || item.Kind == Map && item.anyOff() {
			return true
		}
	}
	return false
}

// mergeKey is what a merged setting is made of: the nodes of its layers, nil where a layer says nothing.
type mergeKey struct {
	kind                     *Kind
	defaults, service, route *Node
}

// merge lays the layers over each other, with what one of several services says.
func (k mergeKey) merge(service *Node) *Node {
	var merged *Node
	for _, inner := range []*Node{k.defaults, service, k.route} {
		if k.kind.Switched && inner.Off() {
			merged = inner
		} else {
			merged = merge(merged, inner, k.kind.typ)
		}
	}
	return merged
}

// mergedSet is a merged setting before it belongs to a route.
type mergedSet struct {
	node    *Node
	setting Setting
	ok      bool // false: absent, or it was told what is wrong

	key  mergeKey
	met  *met
	uses int // by routes, of the last good load
}

// mergedOf decodes the merged setting of these layers, once however many routes share them.
func (l *loader) mergedOf(key mergeKey) *mergedSet {
	if m := l.merged[key]; m != nil {
		return m
	}
	if l.base != nil {
		if m := l.base.merged[key]; m != nil {
			return m
		}
	}
	m := &mergedSet{node: key.merge(key.service), key: key}
	l.merged[key] = m
	if m.node == nil {
		return m
	}
	m.setting = key.kind.New()
	before := len(l.problems)
	d := &Decode{load: l}
	outer := l.met
	l.met = &m.met
	m.ok = d.Decode(m.node, m.setting)
	l.met = outer
	for _, p := range l.problems[before:] {
		p.suspect(key.files()...)
	}
	return m
}

// files are those that wrote the layers.
func (k mergeKey) files() []string {
	var files []string
	for _, n := range []*Node{k.defaults, k.service, k.route} {
		if n != nil {
			files = append(files, n.Pos.File)
		}
	}
	return files
}
