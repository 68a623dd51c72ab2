package loadbalancer

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

// By is what is hashed: the first of these that a request has.
type By []Hash

// Hash is one thing to hash: exactly one of its fields.
type Hash struct {
	IP     bool
	Header string
	Cookie *Cookie
	Query  string
}

// Cookie is a cookie that is hashed. With a TTL Envoy gives one to clients that have none; 0s until the browser closes.
type Cookie struct {
	Name string           `policy:"name,required" doc:"the name of the cookie"`
	TTL  *policy.Duration `policy:"ttl" doc:"gives a cookie to clients that have none, for so long; 0s: until the browser closes"`
	Path string           `policy:"path" doc:"the path of a cookie given; default: /"`
}

// keys is the map form of Hash.
type keys struct {
	Header string  `policy:"header" doc:"the value of this request header"`
	Cookie *cookie `policy:"cookie" doc:"the value of this cookie"`
	Query  string  `policy:"query" doc:"the value of this query parameter"`
}

// cookie is a name, or a map.
type cookie Cookie

// DecodePolicy reads one thing to hash, or a list.
func (b *By) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind != policy.List {
		*b = make(By, 1)
		d.Decode(n, &(*b)[0])
		return
	}
	if len(n.Items) == 0 {
		d.Errorf(n, "name at least one thing to hash").Hintf("write by: ip")
	}
	all := make(By, len(n.Items))
	for i, item := range n.Items {
		if !d.Decode(item, &all[i]) {
			continue
		}
		if i > 0 && all[i-1].always() {
			d.Errorf(item, "is never asked: every request has what stands before it").Hintf("let ip, or a cookie with a ttl, be the last")
		}
	}
	*b = all
}

// PolicySchema describes one thing to hash, or a list.
func (*By) PolicySchema(s *policy.Schemas) map[string]any {
	one := s.Of(new(Hash))
	return map[string]any{"anyOf": []any{one, map[string]any{"type": "array", "items": one, "minItems": 1}}}
}

// always tells whether every request has it: a cookie with a ttl is given to those that have none.
func (h *Hash) always() bool { return h.IP || h.Cookie != nil && h.Cookie.TTL != nil }

// DecodePolicy reads ip or a map with header, cookie or query.
func (h *Hash) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar && n.Text == "ip" {
		h.IP = true
		return
	}
	if n.Kind != policy.Map {
		d.Errorf(n, "want ip, {header: x}, {cookie: x} or {query: x}")
		return
	}
	var k keys
	d.Decode(n, &k)
	if len(n.Keys) != 1 {
		d.Errorf(n, "want one thing to hash: header, cookie or query").Hintf("write a list, such as [{header: x-user}, ip], for the first that a request has")
		return
	}
	if at := n.Get("header"); at != nil && !policy.IsToken(k.Header) {
		d.Errorf(at, "%q is not a header name", k.Header)
	}
	if at := n.Get("query"); at != nil && (k.Query == "" || strings.ContainsAny(k.Query, "&=#? \t\r\n")) {
		d.Errorf(at, "%q is not the name of a query parameter", k.Query)
	}
	h.Header, h.Cookie, h.Query = strings.ToLower(k.Header), (*Cookie)(k.Cookie), k.Query
}

// PolicySchema describes the forms of one thing to hash.
func (*Hash) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"const": "ip"}, s.Of(new(keys))}}
}

// DecodePolicy reads a name or a map.
func (k *cookie) DecodePolicy(d *policy.Decode, n *policy.Node) {
	at := n
	if n.Kind == policy.Scalar {
		k.Name = n.Text
	} else {
		d.Decode(n, (*Cookie)(k))
		at = n.Get("name")
	}
	if at != nil && !policy.IsToken(k.Name) {
		d.Errorf(at, "%q is not the name of a cookie", k.Name)
	}
	if path := n.Get("path"); path != nil && (!strings.HasPrefix(k.Path, "/") || strings.ContainsAny(k.Path, "; \t\r\n")) {
		d.Errorf(path, "%q is not a path", k.Path).Hintf("write path: /")
	}
	if ttl := n.Get("ttl"); k.TTL != nil && time.Duration(*k.TTL)%time.Second != 0 {
		d.Errorf(ttl, "want whole seconds, such as 1h")
	}
}

// PolicySchema describes a name or a map.
func (*cookie) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": "string"}, s.Of(new(Cookie))}}
}

// hashPolicies is what Envoy hashes: it stops at the first that a request has. One that has nothing of it goes to a
// random endpoint.
func (b By) hashPolicies() []*routev3.RouteAction_HashPolicy {
	var all []*routev3.RouteAction_HashPolicy
	for i, h := range b {
		p := h.hashPolicy()
		p.Terminal = i < len(b)-1
		all = append(all, p)
	}
	return all
}

func (h Hash) hashPolicy() *routev3.RouteAction_HashPolicy {
	p := &routev3.RouteAction_HashPolicy{}
	switch {
	case h.Header != "":
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header},
		}
	case h.Cookie != nil:
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: h.Cookie.hashed()}
	case h.Query != "":
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query},
		}
	default:
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}
	}
	return p
}

func (k *Cookie) hashed() *routev3.RouteAction_HashPolicy_Cookie {
	cookie := &routev3.RouteAction_HashPolicy_Cookie{Name: k.Name}
	if k.TTL == nil {
		return cookie
	}
	cookie.Ttl = durationpb.New(time.Duration(*k.TTL))
	cookie.Path = "/"
	if k.Path != "" {
		cookie.Path = k.Path
	}
	// Envoy adds HttpOnly itself.
	cookie.Attributes = []*routev3.RouteAction_HashPolicy_CookieAttribute{{Name: "SameSite", Value: "Lax"}}
	return cookie
}
