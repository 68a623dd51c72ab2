// Package credentials is the keys of an auth entry that are ways to tell who calls beside tokens: apiKey, basic, mtls and
// anonymous; and the key apiKeys of a consumer, the keys that the policy itself has. feature/auth asks it for the providers
// and the keys, envoy for the headers that only these may set.
package credentials

import (
	"maps"
	"slices"
	"strings"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Names is one name or a list of them.
type Names []string

// DecodePolicy reads one name or a list.
func (s *Names) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar {
		*s = make(Names, 1)
		d.Decode(n, &(*s)[0])
		return
	}
	d.Decode(n, (*[]string)(s))
}

// PolicySchema describes both forms.
func (*Names) PolicySchema(*policy.Schemas) map[string]any {
	name := map[string]any{"type": "string", "minLength": 1}
	return map[string]any{"oneOf": []any{name, map[string]any{"type": "array", "minItems": 1, "items": name}}}
}

// item is the path of the i-th name, which may have been written without a list.
func (s Names) item(path string, i int) string {
	if len(s) == 1 {
		return path
	}
	return policy.Item(path, i)
}

// Headers is headers for the backend, each with the claim that it takes its value from.
type Headers map[string]string

// check holds the headers against what may be set, against the claims that there are, and against the routes.
func (h Headers) check(c *policy.Check, claims ...string) {
	written := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		at, lower := "headers."+name, strings.ToLower(name)
		if other, ok := written[lower]; ok {
			c.Errorf(at, "the headers %q and %q are the same", other, name).Hintf("remove one of the two")
			continue
		}
		written[lower] = name
		switch err := auth.CheckHeader(lower); {
		case err != nil:
			c.Errorf(at, "%v", err).Hintf("choose a name of your own, such as x-user")
		case auth.Steers(lower):
			c.Errorf(at, "the header %q steers proxies or backends: it may not be set from a claim", lower).
				Hintf("choose a name of your own, such as x-user")
		case !slices.Contains(claims, h[name]):
			c.Errorf(at, "there is no claim %q here", h[name]).Hintf("there are %s", strings.Join(claims, ", "))
		}
		checkRoutes(c, at, lower)
	}
}

// checkRoutes refuses routes that are chosen by a header of ours: clients' copies are removed before routing, and ours
// is set after it, so that such a route never matches.
func checkRoutes(c *policy.Check, at, name string) {
	for _, r := range c.Model().Routes {
		for _, m := range r.Match.Headers {
			if m.Name != name {
				continue
			}
			p := c.Errorf(at, "the route %q matches on the header %q, which only this auth entry may set: routes are chosen before auth", r.Name, m.Name).
				Hintf("match on something that clients send, or pass the claim on under another name")
			p.Also = append(p.Also, m.Pos)
		}
	}
}

// lower gives the headers as the companion wants them.
func (h Headers) lower() map[string]string {
	if len(h) == 0 {
		return nil
	}
	all := make(map[string]string, len(h))
	for header, claim := range h {
		all[strings.ToLower(header)] = claim
	}
	return all
}

// StripHeaders are the headers: what clients send under them is removed before routing.
func (h Headers) StripHeaders() []string {
	return slices.Sorted(maps.Keys(h.lower()))
}

// setElsewhere gives the auth entry whose setting puts a header there itself; clients' copies of it never arrive.
func setElsewhere(c *policy.Check, header string) (entry string, found bool) {
	for _, a := range c.Model().Auth {
		for _, s := range policy.Each[envoy.Stripper](a.Settings) {
			if slices.Contains(s.StripHeaders(), header) {
				return a.Name, true
			}
		}
	}
	return "", false
}
