package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// byPrecedence orders the routes of a gateway, the first match wins: exact path, longest prefix, longest regex or
// template, and last the prefix / that covers everything; then paths whose case counts, whether methods are asked for,
// the number of headers (source and gRPC count as one each), of query parameters; then the name. But for the prefix / it
// is Gateway API's order. Which hostname owns a request is settled before, by its virtual host.
func byPrecedence(a, b *BoundRoute) int {
	for i := range precedence {
		if c := precedence[i].compare(a, b); c != 0 {
			return c
		}
	}
	return 0
}

// Precedes tells in a few words by which rule the route is asked before another one of its gateway and hostname; it is
// empty where the other is asked first.
func (r *BoundRoute) Precedes(o *BoundRoute) string {
	for i := range precedence {
		switch c := precedence[i].compare(r, o); {
		case c > 0:
			return ""
		case c < 0 && i == 0:
			return r.Match.Path.goesBefore(o.Match.Path)
		case c < 0:
			return precedence[i].words
		}
	}
	return ""
}

// goesBefore says why a path is asked before one of another rank.
func (p PathMatch) goesBefore(o PathMatch) string {
	switch {
	case p.rank() == 0:
		return "an exact path goes first"
	case o.rank() == 3:
		return "the prefix / comes last"
	}
	return "a prefix goes before a regex or template"
}

// precedence is the rules, of which the first that tells two routes apart decides.
var precedence = []struct {
	words   string
	compare func(a, b *BoundRoute) int
}{
	{"", func(a, b *BoundRoute) int {
		return cmp.Compare(a.Match.Path.rank(), b.Match.Path.rank())
	}},
	{"the longer path goes first", func(a, b *BoundRoute) int {
		return cmp.Compare(len(b.Match.Path.Value), len(a.Match.Path.Value))
	}},
	{"a path whose case counts goes first", func(a, b *BoundRoute) int {
		return cmp.Compare(count01(a.Match.Path.IgnoreCase), count01(b.Match.Path.IgnoreCase))
	}},
	{"a route with methods goes first", func(a, b *BoundRoute) int {
		return cmp.Compare(min(len(b.Match.Methods), 1), min(len(a.Match.Methods), 1))
	}},
	{"more conditions on headers go first", func(a, b *BoundRoute) int {
		return cmp.Compare(b.Match.likeHeaders(), a.Match.likeHeaders())
	}},
	{"more conditions on the query go first", func(a, b *BoundRoute) int {
		return cmp.Compare(len(b.Match.Query), len(a.Match.Query))
	}},
	{"the name comes first in the alphabet", func(a, b *BoundRoute) int { return cmp.Compare(a.Name, b.Name) }},
}

func (p PathMatch) rank() int {
	switch {
	case p.Kind == PathExact:
		return 0
	case p.Kind == PathPrefix && p.Value != "/":
		return 1
	case p.Kind == PathPrefix:
		return 3
	default:
		return 2
	}
}

// likeHeaders counts the conditions on what is sent beside method, path and query, or known of the sender.
func (m *Match) likeHeaders() int {
	return len(m.Headers) + min(len(m.Source), 1) + count01(m.GRPC)
}

func count01(b bool) int {
	if b {
		return 1
	}
	return 0
}

// conflicts reports routes of one gateway that ask for exactly the same requests, or connections, of a listener; vague
// ones are left out.
func (l *loader) conflicts(g *gatewayLayers, vague map[string]bool) {
	g.claims = make(map[request]claim, len(l.model.Bound[g.gateway]))
	for _, r := range l.model.Bound[g.gateway] {
		if vague[r.Name] {
			continue
		}
		conditions := r.Match.canonical()
		look, put := g.spots(r)
	hostnames:
		for _, h := range r.Hostnames {
			for _, spot := range look {
				if other := g.claims[request{h, conditions, spot}]; other.first != nil {
					l.conflict(r, other.first, h)
					break hostnames
				}
			}
			for _, spot := range put {
				key := request{h, conditions, spot}
				g.claims[key] = claim{cmp.Or(g.claims[key].first, r), g.claims[key].routes + 1}
			}
		}
	}
}

// request is what a route asks for, as text, and where.
type request struct{ hostname, conditions, spot string }

// claim is the routes that ask for the same.
type claim struct {
	first  *BoundRoute // of the load that found them all
	routes int
}

// The spots of a route that stand for several listeners: no listener has such a name.
const (
	everywhere = "*" // of a route that names no listener
	plainly    = "+" // of one that names a listener which those have too
)

// spots are where a route has to look for others that meet it, and where others find it.
func (g *gatewayLayers) spots(r *BoundRoute) (look, put []string) {
	if len(r.Listeners) == 0 {
		return []string{everywhere, plainly}, []string{everywhere}
	}
	put = slices.Clone(r.Listeners)
	look = slices.Clone(r.Listeners)
	for _, name := range r.Listeners {
		if at := g.listeners[name]; at != nil && (&Route{}).On(at.listener) {
			return append(look, everywhere), append(put, plainly)
		}
	}
	return look, put
}

func (l *loader) conflict(r, other *BoundRoute, hostname string) {
	what, hint := "matches the same requests as", "give one of them another hostname, path, method, header or query condition, or name other gateways or listeners"
	if r.Layer4 {
		what, hint = "takes the same connections as", "give one of them other hostnames, or another listener"
	}
	l.reportKey(l.entry("routes", r.Name).key, "%s the route %s at %s, for %s", what, quote(other.Name), other.Pos, hostname).
		also(other.Pos).Hintf("%s", hint)
}

// canonical is the same for two sets of conditions that hold for the same requests by their text.
func (m *Match) canonical() string {
	var s strings.Builder
	put := func(parts ...string) {
		for _, p := range parts {
			s.WriteString(strconv.Itoa(len(p)))
			s.WriteByte(':')
			s.WriteString(p)
		}
	}
	path := m.Path.Value
	if m.Path.IgnoreCase {
		path = strings.ToLower(path)
	}
	put(strconv.Itoa(int(m.Path.Kind)), path, strconv.FormatBool(m.Path.IgnoreCase), strconv.FormatBool(m.GRPC))
	put(m.Methods...)
	for i, list := range [][]ValueMatch{m.Headers, m.Query} {
		put("#" + strconv.Itoa(i))
		for _, v := range list {
			put(v.Name, v.Exact, v.Regex)
			if v.Present != nil {
				put(strconv.FormatBool(*v.Present))
			}
		}
	}
	put("#source")
	for _, prefix := range m.Source {
		put(prefix.String())
	}
	return s.String()
}
