package loadbalancer

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

// By is what is hashed: exactly one of its fields.
type By struct {
	IP     bool
	Header string
	Cookie *Cookie
}

// Cookie is a cookie that is hashed. With a TTL Envoy gives one to clients that have none; 0s until the browser closes.
type Cookie struct {
	Name string           `policy:"name,required" doc:"the name of the cookie"`
	TTL  *policy.Duration `policy:"ttl" doc:"gives a cookie to clients that have none, for so long; 0s: until the browser closes"`
	Path string           `policy:"path" doc:"the path of a cookie given; default: /"`
}

// keys is the map form of By.
type keys struct {
	Header string  `policy:"header" doc:"the value of this request header"`
	Cookie *cookie `policy:"cookie" doc:"the value of this cookie"`
}

// cookie is a name, or a map.
type cookie Cookie

// DecodePolicy reads ip or a map with header or cookie.
func (b *By) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar && n.Text == "ip" {
		b.IP = true
		return
	}
	if n.Kind != policy.Map {
		d.Errorf(n, "want ip, {header: x} or {cookie: x}")
		return
	}
	var k keys
	d.Decode(n, &k)
	if len(n.Keys) != 1 {
		d.Errorf(n, "want one thing to hash: header or cookie")
		return
	}
	if at := n.Get("header"); at != nil && !policy.IsToken(k.Header) {
		d.Errorf(at, "%q is not a header name", k.Header)
	}
	b.Header, b.Cookie = strings.ToLower(k.Header), (*Cookie)(k.Cookie)
}

// PolicySchema describes the forms of by.
func (*By) PolicySchema(s *policy.Schemas) map[string]any {
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

// hashPolicies is what Envoy hashes; a request that has nothing of it goes to a random endpoint.
func (b *By) hashPolicies() []*routev3.RouteAction_HashPolicy {
	p := &routev3.RouteAction_HashPolicy{}
	switch {
	case b.Header != "":
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: b.Header},
		}
	case b.Cookie != nil:
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: b.Cookie.hashed()}
	default:
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}
	}
	return []*routev3.RouteAction_HashPolicy{p}
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
