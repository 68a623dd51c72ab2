package auth

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// Bounds of the search for ways around auth: it only warns, and a policy may have many thousands of routes.
const (
	maxLevels = 32      // of a path
	maxBeside = 64      // routes of one host and path, the most general ones
	maxPairs  = 500_000 // routes compared in one load
)

// warnReach warns where a caller gets around the auth of a route by what is not a secret: by leaving out a condition,
// or by a path that another route lets through unread, or that another route answers first.
func (s *Setting) warnReach(c *policy.Check) {
	r := c.Route()
	if r == nil || s.None {
		return
	}
	all := policy.Once(c, func() *index { return newIndex(c.Model()) })
	for _, host := range r.Hostnames {
		all.around(r, host, func(o *policy.BoundRoute) bool {
			if open(o) && lenient(o) {
				warn(c, o, "the route %q takes paths that the backend may read as those of the route %q, and has no auth", o.Name, r.Name).
					Hintf("take paths: lenient from %q, or write auth there too", o.Name)
			}
			if open(o) && r.Match.Path.Kind >= policy.PathRegex && all.before(o, r) && !apart(o, r) {
				warn(c, o, "the route %q comes before the route %q and has all paths that this one can match, and has no auth", o.Name, r.Name).
					Hintf("match a prefix in %q, write auth in %q too, or take %[2]q to narrower paths", r.Name, o.Name)
			}
			return true
		})
		all.silent(r, host, func(o *policy.BoundRoute) {
			warn(c, o, "the route %q takes some of the requests of the route %q, and says nothing of auth: anyone may call it", o.Name, r.Name).
				Hintf("write auth in %q too, or auth: none to have it so", o.Name)
		})
		if conditions(r) == 0 {
			continue
		}
		all.around(r, host, func(o *policy.BoundRoute) bool {
			left := leftOut(r, o)
			if left != "" && open(o) {
				warn(c, o, "%s, what is meant for the route %q reaches the route %q, which has no auth", left, r.Name, o.Name).
					Hintf("write auth in %q too, or conditions that leave the others out, such as methods: [GET, HEAD]", o.Name)
			}
			return left == ""
		})
	}
}

func warn(c *policy.Check, o *policy.BoundRoute, format string, args ...any) *policy.Problem {
	p := c.Warnf("", format, args...)
	p.Also = append(p.Also, o.Pos)
	if c.Set().Layer.Place != policy.InRoute {
		p.Also = append(p.Also, c.Route().Pos)
	}
	return p
}

// open tells whether anyone may call the route, as far as is known.
func open(r *policy.BoundRoute) bool {
	s, ok := policy.Find[*Setting](r.Settings)
	return (!ok || s.None) && !r.Broken(Kind.Key)
}

// pathTaker is a setting of a route that tells whether it takes paths that two readers may take for two.
type pathTaker interface{ TakesAnyPath() bool }

func lenient(r *policy.BoundRoute) bool {
	s, ok := policy.Find[pathTaker](r.Settings)
	return ok && s.TakesAnyPath()
}

// index finds the routes that a request for one route may reach too.
type index struct {
	routes map[spot][]*policy.BoundRoute // in order of precedence
	below  map[spot][]*policy.BoundRoute // those without a word of auth whose path is at or below a spot with auth
	order  map[*policy.BoundRoute]int    // of precedence
	pairs  int
}

// spot is a path of a host, in lower case.
type spot struct {
	gateway *policy.Gateway
	host    string
	path    policy.PathMatch
}

func newIndex(m *policy.Model) *index {
	x := &index{map[spot][]*policy.BoundRoute{}, map[spot][]*policy.BoundRoute{}, map[*policy.BoundRoute]int{}, 0}
	asks := map[spot]bool{}
	for _, g := range m.Gateways {
		for i, r := range g.Routes {
			x.order[r] = i
			for _, host := range r.Hostnames {
				at := spot{g, host, fold(r.Match.Path)}
				x.routes[at] = append(x.routes[at], r)
				asks[at] = asks[at] || !open(r)
			}
		}
	}
	for _, g := range m.Gateways {
		for _, r := range g.Routes {
			if !open(r) || r.Settings.Has(Kind.Key) {
				continue
			}
			for _, host := range r.Hostnames {
				for _, path := range above(fold(r.Match.Path)) {
					if at := (spot{g, host, path}); asks[at] && len(x.below[at]) < maxBeside {
						x.below[at] = append(x.below[at], r)
					}
				}
			}
		}
	}
	return x
}

// fold is a path as one that is written in another case has it too.
func fold(p policy.PathMatch) policy.PathMatch {
	p.IgnoreCase = false
	if p.Kind == policy.PathExact || p.Kind == policy.PathPrefix {
		p.Value = strings.ToLower(p.Value)
	}
	return p
}

// before tells whether o answers what both routes match.
func (x *index) before(o, r *policy.BoundRoute) bool { return x.order[o] < x.order[r] }

// around yields the routes of a host whose path is that of r or above it, the most specific first, until yield says no.
func (x *index) around(r *policy.BoundRoute, host string, yield func(*policy.BoundRoute) bool) {
	for _, path := range above(fold(r.Match.Path)) {
		beside := x.routes[spot{r.Gateway, host, path}]
		for _, o := range beside[max(0, len(beside)-maxBeside):] {
			if x.pairs++; x.pairs > maxPairs {
				return
			}
			if o != r && o.Meets(r) && cased(o, r) && !yield(o) {
				return
			}
		}
	}
}

// silent yields the routes of a host that answer some of r's requests, and say nothing of auth. Who divides one path by
// methods sees both at once, and means it.
func (x *index) silent(r *policy.BoundRoute, host string, yield func(*policy.BoundRoute)) {
	at := spot{r.Gateway, host, fold(r.Match.Path)}
	for _, o := range x.below[at] {
		if x.pairs++; x.pairs > maxPairs {
			return
		}
		divided := o.Match.Path == r.Match.Path && len(o.Match.Methods) > 0
		if x.before(o, r) && o.Meets(r) && cased(r, o) && !apart(o, r) && !divided {
			yield(o)
		}
	}
}

// cased tells whether the case of their letters lets the path of outer cover some of inner's, as it does without it.
func cased(outer, inner *policy.BoundRoute) bool {
	a, b := outer.Match.Path, inner.Match.Path
	return a.IgnoreCase || b.IgnoreCase || a.Kind >= policy.PathRegex || strings.HasPrefix(begins(b), a.Value)
}

// apart tells whether no request has a method of both routes.
func apart(a, b *policy.BoundRoute) bool {
	x, y := a.Match.Methods, b.Match.Methods
	return len(x) > 0 && len(y) > 0 && !slices.ContainsFunc(x, func(m string) bool { return slices.Contains(y, m) })
}

// above are the path itself and the prefixes that cover it.
func above(p policy.PathMatch) []policy.PathMatch {
	paths, value := []policy.PathMatch{p}, begins(p)
	switch p.Kind {
	case policy.PathExact:
		paths = append(paths, policy.PathMatch{Kind: policy.PathPrefix, Value: value})
	case policy.PathRegex, policy.PathTemplate:
		value = strings.ToLower(value)
	}
	for len(paths) < maxLevels && value != "/" && value != "" {
		value = value[:strings.LastIndexByte(value, '/')]
		if value != "" {
			paths = append(paths, policy.PathMatch{Kind: policy.PathPrefix, Value: value})
		}
	}
	if p.Value == "/" && p.Kind == policy.PathPrefix {
		return paths
	}
	return append(paths, policy.PathMatch{Kind: policy.PathPrefix, Value: "/"})
}

// begins is what every path that is matched begins with; of a regular expression as much as is easily known.
func begins(p policy.PathMatch) string {
	switch p.Kind {
	case policy.PathTemplate:
		return p.Value[:strings.IndexAny(p.Value+"{", "{*")]
	case policy.PathRegex:
		if re, err := regexp.Compile(strings.TrimPrefix(p.Value, "^")); err == nil {
			text, _ := re.LiteralPrefix()
			return cmp.Or(text, "/")
		}
		return "/"
	}
	return p.Value
}

func conditions(r *policy.BoundRoute) int {
	return len(r.Match.Methods) + len(r.Match.Headers) + len(r.Match.Query)
}

// leftOut says what a request has to leave out so that o matches it and r does not; "" when o asks for something else,
// or for as much as r.
func leftOut(r, o *policy.BoundRoute) string {
	a, b := &r.Match, &o.Match
	if !within(b.Headers, a.Headers) || !within(b.Query, a.Query) || len(b.Methods) > 0 && !covers(b.Methods, a.Methods) {
		return ""
	}
	var ways []string
	if len(a.Methods) > 0 && len(b.Methods) != len(a.Methods) {
		ways = append(ways, "with another method")
	}
	for _, v := range a.Headers {
		if !within([]policy.ValueMatch{v}, b.Headers) {
			ways = append(ways, fmt.Sprintf("without the header %q", v.Name))
		}
	}
	for _, v := range a.Query {
		if !within([]policy.ValueMatch{v}, b.Query) {
			ways = append(ways, fmt.Sprintf("without the query parameter %q", v.Name))
		}
	}
	return strings.Join(ways, " or ")
}

// covers tells whether all of some are among methods.
func covers(methods, some []string) bool {
	return len(some) > 0 && !slices.ContainsFunc(some, func(m string) bool { return !slices.Contains(methods, m) })
}

// within tells whether each of some is among all.
func within(some, all []policy.ValueMatch) bool {
	return !slices.ContainsFunc(some, func(v policy.ValueMatch) bool {
		return !slices.ContainsFunc(all, func(o policy.ValueMatch) bool { return same(v, o) })
	})
}

func same(a, b policy.ValueMatch) bool {
	if (a.Present == nil) != (b.Present == nil) || a.Present != nil && *a.Present != *b.Present {
		return false
	}
	return a.Name == b.Name && a.Exact == b.Exact && a.Regex == b.Regex
}
