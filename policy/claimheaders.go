package policy

import (
	"maps"
	"slices"
	"strings"
)

// ClaimHeaders is headers for the backend, each with the claim that it takes its value from.
type ClaimHeaders map[string]string

// Check holds the headers against what may be set, which refuse tells of a name in lower case, against the routes, and
// against the claims that there are; without any, each text may be one.
func (h ClaimHeaders) Check(c *Check, refuse func(header string) error, claims ...string) {
	written := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		at, lower, claim := "headers."+name, strings.ToLower(name), h[name]
		if other, ok := written[lower]; ok {
			c.Errorf(at, "the headers %q and %q are the same", other, name).Hintf("remove one of the two")
			continue
		}
		written[lower] = name
		switch err := refuse(lower); {
		case err != nil:
			c.Errorf(at, "%v", err).Hintf("choose a name of your own, such as x-user")
		case len(claims) > 0 && !slices.Contains(claims, claim):
			c.Errorf(at, "there is no claim %q here", claim).Hintf("there are %s", strings.Join(claims, ", "))
		case claim == "" || strings.TrimSpace(claim) != claim:
			c.Errorf(at, "want the name of a claim, dotted where it is nested, got %q", claim)
		}
		h.checkRoutes(c, at, lower)
	}
}

// checkRoutes refuses routes that are chosen by a header of ours: clients' copies are removed before routing, and ours
// is set after it, so that such a route never matches.
func (ClaimHeaders) checkRoutes(c *Check, at, name string) {
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

// Lower gives the headers with their names in lower case; nil for none.
func (h ClaimHeaders) Lower() map[string]string {
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
func (h ClaimHeaders) StripHeaders() []string { return slices.Sorted(maps.Keys(h.Lower())) }
