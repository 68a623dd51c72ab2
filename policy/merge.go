package policy

// merge lays inner over outer: maps merge key by key, everything else is replaced, off removes. Leaves keep their
// places; a merged map stands where the inner one stands. Either may be nil; the result is nil when nothing is left.
func merge(outer, inner *Node) *Node {
	switch {
	case inner == nil:
		return outer
	case inner.Off():
		return nil
	case inner.Kind != Map:
		return inner
	case outer == nil || outer.Kind != Map:
		return strip(inner)
	}
	n := &Node{Kind: Map, Pos: inner.Pos, up: inner.up, index: inner.index}
	for i, key := range outer.Keys {
		n.put(key, merge(outer.Items[i], inner.Get(key.Text)))
	}
	for i, key := range inner.Keys {
		if outer.Get(key.Text) == nil {
			n.put(key, merge(nil, inner.Items[i]))
		}
	}
	return n
}

func (n *Node) put(key, value *Node) {
	if value != nil {
		n.Keys, n.Items = append(n.Keys, key), append(n.Items, value)
	}
}

// strip removes the leaves that are off from a map that covers nothing.
func strip(n *Node) *Node {
	if n.Kind != Map || !n.anyOff() {
		return n
	}
	out := &Node{Kind: Map, Pos: n.Pos, up: n.up, index: n.index}
	for i, key := range n.Keys {
		if !n.Items[i].Off() {
			out.put(key, strip(n.Items[i]))
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

// mergedSet is a merged setting before it belongs to a route.
type mergedSet struct {
	node    *Node
	setting Setting
	ok      bool // false: absent, or it was told what is wrong
}

// mergedOf decodes the merged setting of these layers, once however many routes share them.
func (l *loader) mergedOf(key mergeKey) *mergedSet {
	if m := l.merged[key]; m != nil {
		return m
	}
	m := &mergedSet{node: merge(merge(merge(nil, key.defaults), key.service), key.route)}
	l.merged[key] = m
	if m.node == nil {
		return m
	}
	m.setting = key.kind.New()
	before := len(l.problems)
	d := &Decode{load: l}
	m.ok = d.Decode(m.node, m.setting)
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
