// Package sessionpersistence keeps a client at the endpoint that it came to first: the key sessionPersistence.
// [envoy.Translate] calls it.
package sessionpersistence

import (
	_ "embed"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key sessionPersistence.
var Kind = policy.Define[Setting]("sessionPersistence", policy.Layers, doc)

// Setting is what stands under sessionPersistence: either Cookie or Header.
type Setting struct {
	Cookie *Cookie `policy:"cookie" doc:"a cookie that Envoy gives to clients: its name, or {name, ttl, path}"`
	Header Header  `policy:"header" doc:"a header that Envoy puts into answers and that clients send back, for clients that keep no cookies"`
	Strict bool    `policy:"strict" doc:"503 where the endpoint of the session is gone or unhealthy, rather than another endpoint; default: false"`
}

// Whole: a nearer layer's cookie takes the place of an outer layer's header.
func (*Setting) Whole() {}

// Cookie is a cookie that Envoy gives to clients.
type Cookie struct {
	Name string           `policy:"name,required" doc:"the name of the cookie"`
	TTL  *policy.Duration `policy:"ttl" doc:"how long a session holds, in whole seconds from its first answer; default: until the browser closes"`
	Path string           `policy:"path" doc:"the paths that browsers send the cookie to; default: /"`
}

// cookieForm is the map form of a cookie.
type cookieForm Cookie

// DecodePolicy reads a name or a map.
func (k *Cookie) DecodePolicy(d *policy.Decode, n *policy.Node) {
	at := n
	if n.Kind == policy.Scalar {
		k.Name = n.Text
	} else {
		d.Decode(n, (*cookieForm)(k))
		at = n.Get("name")
	}
	if at != nil && !policy.IsToken(k.Name) {
		d.Errorf(at, "%q is not the name of a cookie", k.Name)
	}
	if path := n.Get("path"); path != nil && (!strings.HasPrefix(k.Path, "/") || strings.ContainsAny(k.Path, "; \t\r\n")) {
		d.Errorf(path, "%q is not a path", k.Path).Hintf("write path: /")
	}
	if ttl := n.Get("ttl"); ttl != nil && k.TTL != nil && (*k.TTL == 0 || time.Duration(*k.TTL)%time.Second != 0) {
		d.Errorf(ttl, "want whole seconds, at least 1s").Hintf("leave ttl out for a session that ends when the browser closes")
	}
}

// PolicySchema describes a name or a map.
func (*Cookie) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": "string"}, s.Of(new(cookieForm))}}
}

// Header is the name of a header, in lower case.
type Header string

// taken is headers that mean something else to clients, Envoy or backends; of those with these beginnings a client's
// never get as far as the session.
var (
	taken = []string{
		"accept", "authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "date", "expect",
		"host", "keep-alive", "location", "origin", "referer", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade",
		"user-agent", "vary", "via", "x-request-id",
	}
	takenFamilies = []string{"x-envoy-", "x-forwarded-", "x-original-"}
)

// DecodePolicy reads the name of a header of the session's own.
func (h *Header) DecodePolicy(d *policy.Decode, n *policy.Node) {
	name := strings.ToLower(n.Text)
	begins := func(family string) bool { return strings.HasPrefix(name, family) }
	switch {
	case n.Kind != policy.Scalar || !policy.IsToken(name):
		d.Errorf(n, "want the name of a header").Hintf("write header: x-session")
	case slices.Contains(taken, name), slices.ContainsFunc(takenFamilies, begins):
		d.Errorf(n, "the header %s means something else", name).Hintf("take a name of your own, such as x-session")
	default:
		*h = Header(name)
	}
}

// PolicySchema describes the name of a header.
func (*Header) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "examples": []string{"x-session"}}
}

// Check wants one place for the session, and routes on which Envoy can keep it.
func (s *Setting) Check(c *policy.Check) {
	switch {
	case s.Cookie == nil && s.Header == "":
		c.Errorf("", "where is the session kept? want a cookie or a header").Hintf("write sessionPersistence: {cookie: session}")
	case s.Cookie != nil && s.Header != "":
		c.Errorf("header", "a session is kept in a cookie or in a header, not in both").Hintf("leave one of them out")
	case s.Header != "":
		s.checkHeader(c)
	}
	r := c.Route()
	switch {
	case r == nil:
	case len(r.Backends) > 1:
		c.Errorf("", "the route has several backends, and Envoy chooses among them anew for each request: sessions would jump").
			Hintf("write sessionPersistence: off for the route, or a route for each backend, told apart by match.headers")
	case len(r.Backends) == 0 && c.Set().Layer.Place != policy.InDefaults:
		c.Warnf("", "sessionPersistence does nothing here: the route has no backend")
	case s.Strict && r.Settings.Has("retry"):
		c.Warnf("strict", "a retry goes to another endpoint all the same").Hintf("write retry: off for the route")
	}
}

// checkHeader refuses a header that an entry of auth sets: a client's is removed before any route is looked for, and what
// auth then writes is no endpoint.
func (s *Setting) checkHeader(c *policy.Check) {
	for _, entry := range c.Common().Auth {
		for set, stripper := range policy.Each[envoy.Stripper](entry.Settings) {
			if slices.Contains(stripper.StripHeaders(), string(s.Header)) {
				p := c.Errorf("header", "the auth entry %q sets %s, so that a client's never gets as far as the session", entry.Name, s.Header).
					Hintf("take a name of your own, such as x-session")
				p.Also = append(p.Also, set.Pos())
				return
			}
		}
	}
}
