package tracing

import (
	"maps"
	"slices"
	"strings"

	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Attributes is attributes of spans by name.
type Attributes map[string]Attribute

// Attribute is a text, or the value of a header of the request; without the header there is no attribute.
type Attribute struct {
	Text   string
	Header string `policy:"header,required" doc:"the name of a header of the request"`
}

// Whole keeps layers from mixing a text with a header.
func (*Attribute) Whole() {}

// DecodePolicy reads a text or {header: x}.
func (a *Attribute) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Map {
		d.Decode(n, a)
		return
	}
	d.Decode(n, &a.Text)
}

// PolicySchema describes both forms.
func (*Attribute) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{
		map[string]any{"type": "string"},
		policy.OnlyKey("header", map[string]any{"type": "string"}),
	}}
}

// check refuses secrets, and names that are taken.
func (a Attributes) check(c *policy.Check) {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		path, one := "attributes."+name, a[name]
		header := strings.ToLower(one.Header)
		switch {
		case name == urlTag || strings.HasPrefix(name, ownPrefix):
			c.Errorf(path, "the attribute %s is Legation's own", name).Hintf("use another name")
		case header == "" && one.Text == "":
			c.Errorf(path, "want a text, or a header")
		case header == "":
		case !policy.IsToken(header):
			c.Errorf(path+".header", "%q is not a header name", one.Header)
		case envoy.SecretHeader(header):
			c.Errorf(path+".header", "%s is a secret, and traces are read by many", header).Hintf("leave it out")
		case envoy.QueryHeader(header):
			c.Errorf(path+".header", "%s has a query, which may hold secrets", header).Hintf("leave it out")
		case envoy.SecretName(header):
			c.Warnf(path+".header", "%s looks like a secret, and traces are read by many", header)
		}
	}
}

// tags is Envoy's form, in the order of the names.
func (a Attributes) tags() []*tagv3.CustomTag {
	var all []*tagv3.CustomTag
	for _, name := range slices.Sorted(maps.Keys(a)) {
		tag := &tagv3.CustomTag{Tag: name}
		if one := a[name]; one.Header != "" {
			tag.Type = &tagv3.CustomTag_RequestHeader{RequestHeader: &tagv3.CustomTag_Header{Name: strings.ToLower(one.Header)}}
		} else {
			tag.Type = &tagv3.CustomTag_Literal_{Literal: &tagv3.CustomTag_Literal{Value: one.Text}}
		}
		all = append(all, tag)
	}
	return all
}
