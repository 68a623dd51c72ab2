package policy

// Names is one name or a list of them.
type Names []string

// DecodePolicy reads one name or a list.
func (s *Names) DecodePolicy(d *Decode, n *Node) {
	if n.Kind == Scalar {
		*s = make(Names, 1)
		d.Decode(n, &(*s)[0])
		return
	}
	d.Decode(n, (*[]string)(s))
}

// PolicySchema describes both forms.
func (*Names) PolicySchema(*Schemas) map[string]any {
	name := map[string]any{"type": "string", "minLength": 1}
	return map[string]any{"oneOf": []any{name, map[string]any{"type": "array", "minItems": 1, "items": name}}}
}

// At is the path of the i-th name, which may have been written without a list.
func (s Names) At(path string, i int) string {
	if len(s) == 1 {
		return path
	}
	return Item(path, i)
}
