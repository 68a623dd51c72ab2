// Package authorize is the key authorize: what callers may do whom auth knows, by scopes, claims and rules. feature/auth
// asks it for what the companion judges ([auth.Authorization]); Envoy has no part in it but the callout of auth.
package authorize

import (
	_ "embed"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key authorize. What a nearer layer asks for stands beside what the outer ones do.
var Kind = policy.Define[Setting]("authorize", policy.Layers, doc).Stack()

// Setting is what stands under authorize: all of it has to hold.
type Setting struct {
	Scopes   []string          `policy:"scopes" doc:"scopes that the caller's token needs, all of them"`
	Claims   map[string]Texts  `policy:"claims" doc:"claims by name, dotted where nested, each with the text that it has to be, or a list of which it is one"`
	Rules    []Rule            `policy:"rules" doc:"conditions in CEL, all of which have to hold: request.method == 'GET' || 'admin' in identity.roles"`
	Metadata map[string]Source `policy:"metadata" doc:"JSON objects that are fetched about the caller before the rules are judged, by name: metadata.NAME"`
	Deny     *Reply            `policy:"deny" doc:"the answer to who may not pass; default: 403"`
}

// Texts is one text, or a list of which any one will do.
type Texts []string

// DecodePolicy reads a text or a list.
func (t *Texts) DecodePolicy(d *policy.Decode, n *policy.Node) {
	switch n.Kind {
	case policy.Scalar:
		*t = Texts{n.Text}
	case policy.List:
		d.Decode(n, (*[]string)(t))
	default:
		d.Errorf(n, "want a text, or a list of texts").Hintf("a claim within another has a dotted name: {address.country: NO}")
	}
}

// PolicySchema describes both forms.
func (*Texts) PolicySchema(*policy.Schemas) map[string]any {
	one := map[string]any{"type": []any{"string", "number", "boolean"}}
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": one}}}
}

// Rule is a condition, by itself or with a name and an answer of its own.
type Rule struct {
	CEL  string `policy:"cel,required" doc:"the condition"`
	Name string `policy:"name" doc:"what logs call the rule"`
	Deny *Reply `policy:"deny" doc:"the answer where the rule doesn't hold; default: that of authorize"`

	bare bool // written without a map
}

// DecodePolicy reads an expression or a map.
func (r *Rule) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar {
		r.CEL, r.bare = n.Text, true
		return
	}
	d.Decode(n, r)
}

// PolicySchema describes both forms.
func (*Rule) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{map[string]any{"type": "string"}, s.Of(new(Rule))}}
}

// Reply is an answer to who may not pass.
type Reply struct {
	Status  *int              `policy:"status" doc:"from 400 on, or a redirect with the header location; default: 403"`
	Body    string            `policy:"body" doc:"the text of the answer, at most 16 KiB; default: none"`
	Headers map[string]string `policy:"headers" doc:"headers of the answer"`
}

// Source is where metadata is fetched.
type Source struct {
	URL     string           `policy:"url,required" doc:"https, or http to loopback; {consumer} and {claims.NAME} stand for what is known of the caller"`
	Cache   *policy.Duration `policy:"cache" doc:"how long an answer is good for, 1s to 1h; default 60s"`
	Timeout *policy.Duration `policy:"timeout" doc:"how long a request may wait for it, at most 100ms; default 50ms"`
}

// Authorizations is what the companion judges by; layer is the one that wrote the setting.
func (s *Setting) Authorizations(layer policy.Layer) []auth.Authorization {
	a := auth.Authorization{Name: layer.String(), Scopes: slices.Clone(s.Scopes), Deny: s.Deny.reply()}
	for path, texts := range s.Claims {
		if a.Claims == nil {
			a.Claims = make(map[string][]string, len(s.Claims))
		}
		a.Claims[path] = slices.Clone(texts)
	}
	for _, r := range s.Rules {
		a.Rules = append(a.Rules, auth.AuthRule{Expression: r.CEL, Name: r.Name, Deny: r.Deny.reply()})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Metadata)) {
		a.Metadata = append(a.Metadata, s.Metadata[name].metadata(name))
	}
	return []auth.Authorization{a}
}

func (s Source) metadata(name string) auth.Metadata {
	return auth.Metadata{
		Name: name, URL: s.URL, Cache: time.Duration(policy.Or(s.Cache, 0)), Timeout: time.Duration(policy.Or(s.Timeout, 0)),
	}
}

// reply is nil where nothing is written.
func (r *Reply) reply() *auth.Reply {
	if r == nil {
		return nil
	}
	reply := &auth.Reply{Status: policy.Or(r.Status, 0), Body: r.Body}
	for name, value := range r.Headers {
		if reply.Headers == nil {
			reply.Headers = make(map[string]string, len(r.Headers))
		}
		reply.Headers[strings.ToLower(name)] = value
	}
	return reply
}
