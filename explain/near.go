package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
)

// Bounds of what is told, and of the search for it.
const (
	mostOthers    = 5
	mostHostnames = 10
	mostCompared  = 200 // routes whose paths are regular expressions, which take their time to be compiled
)

// near is a route that does not answer, with how near it came: the lower, the nearer.
type near struct {
	*policy.BoundRoute
	distance int
	why      func() string
}

// others tells why the routes do not answer that come nearest to it.
func (d *door) others(e *Explanation, f found, a *asked) {
	if e.Answer.By == Door {
		return
	}
	if f.host == nil {
		e.Hostnames = d.hostnames(a.Host)
		return
	}
	all := append(d.beside(f, a), d.elsewhere(f, a)...)
	slices.SortStableFunc(all, func(x, y near) int { return cmp.Compare(x.distance, y.distance) })
	for _, n := range all[:min(len(all), mostOthers)] {
		e.Others = append(e.Others, Other{Place{n.Name, n.Pos}, n.why()})
	}
}

// How near other routes come: those that miss one condition beside the path, those that come later, those for other clients
// or hosts, and last those of other paths, by the bytes that these share.
const (
	oneCondition = iota
	later
	otherClients
	otherHost
	otherPath = 1 << 16
)

// beside is the routes of the same host.
func (d *door) beside(f found, a *asked) []near {
	winner := d.bound(f.route)
	var all []near
	patterns := 0
	for i, r := range f.routes {
		bound := d.bound(r)
		if bound == nil || bound == winner || i+1 < len(f.routes) && f.routes[i+1].Name == r.Name {
			continue
		}
		if isPattern(r.Match) && i > f.index {
			if patterns++; patterns > mostCompared {
				continue
			}
		}
		miss := d.matcher.misses(r.Match, a)
		switch {
		case miss == nil && winner != nil:
			all = append(all, near{bound, later, func() string {
				return "takes it too, but comes after " + winner.Name + ": " + winner.Precedes(bound)
			}})
		case miss == nil:
		case miss.what != "path":
			all = append(all, near{bound, oneCondition, func() string { return wants(bound, miss, a) }})
		default:
			if n := shared(r.Match, a.path); n > 1 || winner == nil {
				all = append(all, near{bound, otherPath - n, func() string { return wants(bound, miss, a) }})
			}
		}
	}
	return append(all, d.forOthers(f, a, winner)...)
}

// forOthers is the routes of the same host that are for other clients.
func (d *door) forOthers(f found, a *asked, winner *policy.BoundRoute) []near {
	var all []near
	for _, bound := range d.routes() {
		if len(bound.Match.Source) == 0 || bound.Layer4 || !bound.On(d.listener) || bound == winner {
			continue
		}
		if slices.Contains(bound.Hostnames, f.host.Domains[0]) && !listed(f.routes, bound.Name) {
			all = append(all, near{bound, otherClients, func() string { return "source: is for clients in " + prefixes(bound) + client(a) }})
		}
	}
	return all
}

func listed(routes []*routev3.Route, name string) bool {
	return slices.ContainsFunc(routes, func(r *routev3.Route) bool { return r.Name == name })
}

func client(a *asked) string {
	if !a.Client.IsValid() {
		return ", and nobody has said where the request comes from (--from)"
	}
	return ", not " + a.Client.String()
}

// elsewhere is the routes of less specific hostnames that would take the request, were there none of this one.
func (d *door) elsewhere(f found, a *asked) []near {
	var all []near
	compared := 0
	for _, bound := range d.routes() {
		if bound.Layer4 || !bound.On(d.listener) || slices.Contains(bound.Hostnames, f.host.Domains[0]) {
			continue
		}
		i := slices.IndexFunc(bound.Hostnames, func(name string) bool { return covers(name, strings.ToLower(a.Host)) })
		if i < 0 || compared > mostCompared {
			continue
		}
		compared++
		routes, _, _ := d.matcher.listFor(d.inTables(bound.Hostnames[i]), a)
		if slices.ContainsFunc(routes, func(r *routev3.Route) bool {
			return r.Name == bound.Name && d.matcher.misses(r.Match, a) == nil
		}) {
			all = append(all, near{bound, otherHost, func() string {
				return fmt.Sprintf("is for %s, but %s owns the request, and nothing falls through to another host", bound.Hostnames[i], f.host.Domains[0])
			}})
		}
	}
	return all
}

// inTables is the virtual host of a domain in the tables that were looked into; nil where it is in none.
func (d *door) inTables(domain string) *routev3.VirtualHost {
	for _, domains := range d.tables {
		if h := domains[domain]; h != nil {
			return h
		}
	}
	return nil
}

func isPattern(m *routev3.RouteMatch) bool {
	return m.GetSafeRegex() != nil || m.GetPathMatchPolicy() != nil
}

// shared is how much of a path a route would take: the bytes that both begin with, whatever their case.
func shared(m *routev3.RouteMatch, path string) int {
	value := cmp.Or(m.GetPath(), m.GetPathSeparatedPrefix(), m.GetSafeRegex().GetRegex())
	n := 0
	for n < min(len(value), len(path)) && (value[n] == path[n] || lowerASCII(value[n:n+1]) == lowerASCII(path[n:n+1])) {
		n++
	}
	return n
}

// wants says what a route asks for that the request has not.
func wants(r *policy.BoundRoute, m *miss, a *asked) string {
	switch m.what {
	case "path":
		return "path: wants " + pathWords(r.Match.Path)
	case "method":
		return fmt.Sprintf("method: wants %s, not %s", strings.Join(r.Match.Methods, " or "), a.Method)
	case "header":
		if m.unsure != "" {
			return fmt.Sprintf("header %s: %s", m.name, m.unsure)
		}
		return fmt.Sprintf("header %s: wants %s, %s", m.name, valueWords(r.Match.Headers, m.name), got(a.Headers[m.name]))
	default:
		var values []string
		if value, present := a.query[m.name]; present {
			values = []string{value}
		}
		return fmt.Sprintf("query %s: wants %s, %s", m.name, valueWords(r.Match.Query, m.name), got(values))
	}
}

func got(values []string) string {
	if len(values) == 0 {
		return "the request has none"
	}
	return fmt.Sprintf("not %q", strings.Join(values, ", "))
}

// because is the conditions of a route that answers.
func because(r *policy.BoundRoute, f found) []string {
	if !f.main() {
		return []string{"path " + pathWords(r.Match.Path), "a preflight: OPTIONS with origin and access-control-request-method"}
	}
	all := []string{"path " + pathWords(r.Match.Path)}
	if len(r.Match.Methods) > 0 {
		all = append(all, "method "+strings.Join(r.Match.Methods, " or "))
	}
	for _, h := range r.Match.Headers {
		all = append(all, "header "+h.Name+" "+words(h))
	}
	for _, q := range r.Match.Query {
		all = append(all, "query "+q.Name+" "+words(q))
	}
	if len(r.Match.Source) > 0 {
		all = append(all, "source "+prefixes(r))
	}
	return all
}

func pathWords(p policy.PathMatch) string {
	text := map[policy.PathKind]string{policy.PathExact: "exactly ", policy.PathRegex: "regex ", policy.PathTemplate: "template "}[p.Kind] + p.Value
	if p.IgnoreCase {
		text += " in whatever case"
	}
	return text
}

func valueWords(all []policy.ValueMatch, name string) string {
	i := slices.IndexFunc(all, func(v policy.ValueMatch) bool { return v.Name == name })
	if i < 0 {
		return "another"
	}
	return words(all[i])
}

func words(v policy.ValueMatch) string {
	switch {
	case v.Present != nil && *v.Present:
		return "any value"
	case v.Present != nil:
		return "none"
	case v.Regex != "":
		return "regex " + v.Regex
	}
	return strconv.Quote(v.Exact)
}

// prefixes is the networks of a route, some of them where there are many.
func prefixes(r *policy.BoundRoute) string {
	var all []string
	for i, p := range r.Match.Source {
		if i == 3 {
			all = append(all, fmt.Sprintf("%d more", len(r.Match.Source)-i))
			break
		}
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// hostnames is those of the listener, the nearest to a host first.
func (d *door) hostnames(host string) []string {
	seen := map[string]int{}
	for _, r := range d.routes() {
		if r.Layer4 || !r.On(d.listener) {
			continue
		}
		for _, name := range r.Hostnames {
			seen[name] = sharedEnd(name, host)
		}
	}
	var all []string
	for name := range seen {
		all = append(all, name)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(seen[b], seen[a]), cmp.Compare(a, b)) })
	return all[:min(len(all), mostHostnames)]
}

// sharedEnd is the bytes that two names end with.
func sharedEnd(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}
