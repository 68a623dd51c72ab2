package auth

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// Bounds of the search for ways around auth: it only warns, and a policy may have many thousands of routes.
const (
	maxLevels = 32 // of a path
	maxBeside = 64 // routes of one host and path, the most general ones
)

// warnReach warns where a caller gets around the auth of a route by what is not a secret: by leaving out a condition,
// by a path that another route lets through unread, or that another route takes first.
func (s *Setting) warnReach(c *policy.Check) {
	r := c.Route()
	if r == nil || s.None {
		return
	}
	for _, host := range r.Hostnames {
		all := policy.Beside(c, host, newIndex, Kind.Key, pathsKey)
		stopped := false // by a route that takes all that is left
		all.around(c, r, func(o *policy.BoundRoute) {
			if open(o) && lenient(o) {
				warn(c, o, "the route %q takes paths that the backend may read as those of the route %q, and has no auth", o.Name, r.Name).
					Hintf("take paths: lenient from %q, or write auth there too", o.Name)
			}
			left, takes := leftOut(r, o)
			switch {
			case stopped || !takes:
			case first(o, r):
				stopped = true
				if open(o) {
					warn(c, o, "the route %q is asked before the route %q, takes its paths too, and has no auth", o.Name, r.Name).
						Hintf("a prefix goes before a template and a regex: write auth in %q too, or a prefix here", o.Name)
				}
			case left != "":
				stopped = true
				if open(o) {
					warn(c, o, "%s, what is meant for the route %q reaches the route %q, which has no auth", left, r.Name, o.Name).
						Hintf("write auth in %q too, or conditions that leave the others out, such as methods: [GET, HEAD]", o.Name)
				}
			}
		})
		all.silent(c, r, func(o *policy.BoundRoute) {
			warn(c, o, "the route %q takes some of the requests of the route %q, and says nothing of auth: anyone may call it", o.Name, r.Name).
				Hintf("write auth in %q too, or auth: none to have it so", o.Name)
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

// pathsKey is the key whose setting is a pathTaker.
const pathsKey = "paths"

// pathTaker is a setting of a route that tells whether it takes paths that two readers may take for two.
type pathTaker interface{ TakesAnyPath() bool }

func lenient(r *policy.BoundRoute) bool {
	s, ok := policy.Find[pathTaker](r.Settings)
	return ok && s.TakesAnyPath()
}

// index finds the routes of one host that a request for one of them may reach too. The case of a path does not count.
type index struct {
	routes   map[policy.PathMatch][]*policy.BoundRoute // in order of precedence, as all here
	patterns []*policy.BoundRoute                      // by template or regex
	below    map[policy.PathMatch][]*policy.BoundRoute // without a word of auth, at or below a path that some route protects
	order    map[*policy.BoundRoute]int
	compiled map[policy.PathMatch]*regexp.Regexp
}

func newIndex(routes []*policy.BoundRoute) *index {
	all := &index{
		routes:   make(map[policy.PathMatch][]*policy.BoundRoute, len(routes)),
		below:    map[policy.PathMatch][]*policy.BoundRoute{},
		order:    make(map[*policy.BoundRoute]int, len(routes)),
		compiled: map[policy.PathMatch]*regexp.Regexp{},
	}
	protected := map[policy.PathMatch]bool{}
	for i, r := range routes {
		if r.Layer4 {
			continue
		}
		all.order[r] = i
		path := folded(r.Match.Path)
		all.routes[path] = append(all.routes[path], r)
		protected[path] = protected[path] || !open(r)
		if isPattern(r.Match.Path) {
			all.patterns = append(all.patterns, r)
		}
	}
	for _, r := range routes {
		if _, there := all.order[r]; there && open(r) && !r.Settings.Has(Kind.Key) {
			all.putBelow(r, protected)
		}
	}
	return all
}

// putBelow notes a route that says nothing of auth under the protected paths that cover its own.
func (x *index) putBelow(r *policy.BoundRoute, protected map[policy.PathMatch]bool) {
	covering := append(above(r.Match.Path), root)
	for i, path := range covering {
		at := folded(path)
		if protected[at] && !slices.Contains(covering[:i], path) {
			x.below[at] = append(x.below[at], r)
		}
	}
}

// silent yields the routes that answer some of r's requests, and say nothing of auth. Who divides one path by methods sees
// both at once, and means it.
func (x *index) silent(c *policy.Check, r *policy.BoundRoute, yield func(*policy.BoundRoute)) {
	beside := x.below[folded(r.Match.Path)]
	for _, o := range beside[:min(len(beside), maxBeside)] {
		if !c.Spend() {
			return
		}
		divided := o.Match.Path == r.Match.Path && len(o.Match.Methods) > 0
		if x.order[o] < x.order[r] && r.Meets(o) && cased(r.Match.Path, o.Match.Path) && !apart(o, r) && !divided {
			yield(o)
		}
	}
}

// cased tells whether the case of their letters lets the path of outer cover some of inner's, as it does without it.
func cased(outer, inner policy.PathMatch) bool {
	return outer.IgnoreCase || inner.IgnoreCase || isPattern(inner) || isPattern(outer) || strings.HasPrefix(inner.Value, outer.Value)
}

// apart tells whether no request has a method of both routes.
func apart(a, b *policy.BoundRoute) bool {
	x, y := a.Match.Methods, b.Match.Methods
	return len(x) > 0 && len(y) > 0 && !slices.ContainsFunc(x, func(m string) bool { return slices.Contains(y, m) })
}

// isPattern tells whether a path is matched by more than comparing it with a text.
func isPattern(p policy.PathMatch) bool {
	return p.Kind == policy.PathRegex || p.Kind == policy.PathTemplate
}

// folded is a path without its case, where it can be had without.
func folded(p policy.PathMatch) policy.PathMatch {
	if !isPattern(p) {
		p.Value = strings.ToLower(p.Value)
	}
	p.IgnoreCase = false
	return p
}

// around yields the other routes that stand on a listener with r and take paths of it, from those that are
// asked first to the prefix / that takes whatever is left.
func (x *index) around(c *policy.Check, r *policy.BoundRoute, yield func(*policy.BoundRoute)) {
	at := func(beside []*policy.BoundRoute, takes func(o policy.PathMatch) bool) {
		for _, o := range beside[max(0, len(beside)-maxBeside):] {
			if !c.Spend() {
				return
			}
			if o != r && r.Meets(o) && takes(o.Match.Path) {
				yield(o)
			}
		}
	}
	path := r.Match.Path
	sameCase := func(o policy.PathMatch) bool { return cased(o, path) }
	for _, p := range above(path) {
		at(x.routes[folded(p)], sameCase)
	}
	if path == root {
		return
	}
	if one, ok := sample(path); ok {
		at(x.patterns, func(o policy.PathMatch) bool { return o != path && x.pattern(o).MatchString(one) })
	}
	at(x.routes[root], sameCase)
}

// root is the prefix that takes every path.
var root = policy.PathMatch{Kind: policy.PathPrefix, Value: "/"}

// above are the path itself and the prefixes that cover it, but for /.
func above(p policy.PathMatch) []policy.PathMatch {
	paths := []policy.PathMatch{p}
	value := stem(p)
	if p.Kind != policy.PathPrefix && value != "/" && value != "" {
		paths = append(paths, policy.PathMatch{Kind: policy.PathPrefix, Value: value})
	}
	for len(paths) < maxLevels {
		value = value[:max(0, strings.LastIndexByte(value, '/'))]
		if value == "" {
			break
		}
		paths = append(paths, policy.PathMatch{Kind: policy.PathPrefix, Value: value})
	}
	return paths
}

// stem is the longest path that all paths of a match are, or stand below.
func stem(p policy.PathMatch) string {
	text, whole := p.Value, true
	switch p.Kind {
	case policy.PathRegex:
		re, err := regexp.Compile(p.Value)
		if err != nil {
			return ""
		}
		text, whole = re.LiteralPrefix()
	case policy.PathTemplate:
		if i := strings.IndexAny(text, "{*"); i >= 0 {
			text, whole = text[:i], false
		}
	}
	if !whole {
		text = text[:max(0, strings.LastIndexByte(text, '/'))]
	}
	return text
}

// sample is one path that a match takes; none is known of a regex.
func sample(p policy.PathMatch) (path string, ok bool) {
	if p.Kind == policy.PathTemplate {
		return strings.NewReplacer("**", "x", "*", "x").Replace(unnamed(p.Value)), true
	}
	return p.Value, p.Kind != policy.PathRegex
}

var variable = regexp.MustCompile(`\{\w+=?([^}]*)\}`)

// unnamed is a template without the names of its variables.
func unnamed(template string) string {
	return variable.ReplaceAllStringFunc(template, func(v string) string {
		return cmp.Or(variable.FindStringSubmatch(v)[1], "*")
	})
}

// pattern is the regular expression of a regex or a template.
func (x *index) pattern(p policy.PathMatch) *regexp.Regexp {
	if re := x.compiled[p]; re != nil {
		return re
	}
	expr := p.Value
	if p.Kind == policy.PathTemplate {
		expr = templateExpr(p.Value)
	}
	re, err := regexp.Compile("^(?:" + expr + ")$")
	if err != nil { // of an expression that was refused
		re = regexp.MustCompile(`^\b$`)
	}
	x.compiled[p] = re
	return re
}

// templateExpr is what Envoy makes of a template: its parts take only characters that need no escape in a path.
func templateExpr(template string) string {
	const char = `[a-zA-Z0-9._~%!$&'()+,;:@=*-]`
	return strings.NewReplacer(`\*\*`, "(?:"+char+"|/)*", `\*`, char+"+").Replace(regexp.QuoteMeta(unnamed(template)))
}

// first tells whether o is asked before r for the paths of r, whatever their conditions.
func first(o, r *policy.BoundRoute) bool {
	return isPattern(r.Match.Path) && !isPattern(o.Match.Path) && o.Match.Path != root
}

// leftOut says what a request for r has to leave out, or be else, so that o takes it and r does not. It is "" where o
// asks for as much as r; o takes none of them where it asks for something else.
func leftOut(r, o *policy.BoundRoute) (ways string, takes bool) {
	a, b := &r.Match, &o.Match
	if !within(b.Headers, a.Headers) || !within(b.Query, a.Query) || len(b.Methods) > 0 && !covers(b.Methods, a.Methods) ||
		len(b.Source) > 0 && !contains(b.Source, a.Source) {
		return "", false
	}
	var all []string
	if len(a.Methods) > 0 && len(b.Methods) != len(a.Methods) {
		all = append(all, "with another method")
	}
	for _, v := range a.Headers {
		if !within([]policy.ValueMatch{v}, b.Headers) {
			all = append(all, fmt.Sprintf("without the header %q", v.Name))
		}
	}
	for _, v := range a.Query {
		if !within([]policy.ValueMatch{v}, b.Query) {
			all = append(all, fmt.Sprintf("without the query parameter %q", v.Name))
		}
	}
	if len(a.Source) > 0 && !contains(a.Source, b.Source) {
		all = append(all, "from another address")
	}
	if b.Path.IgnoreCase && !a.Path.IgnoreCase && !isPattern(a.Path) {
		all = append(all, "in other letter case")
	}
	return strings.Join(all, " or "), true
}

// contains tells whether every address of some, of which none stands for any, is in one of the ranges.
func contains(ranges, some []netip.Prefix) bool {
	return len(some) > 0 && !slices.ContainsFunc(some, func(p netip.Prefix) bool {
		return !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Bits() <= p.Bits() && r.Contains(p.Addr()) })
	})
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
