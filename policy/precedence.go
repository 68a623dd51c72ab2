package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// byPrecedence orders the routes of a gateway as Gateway API does, the first match wins: exact path, longest prefix,
// longest regex; then whether methods are asked for, the number of headers, of query parameters; then the name. Which
// hostname owns a request is settled before, by its virtual host.
func byPrecedence(a, b *BoundRoute) int {
	x, y := &a.Match, &b.Match
	return cmp.Or(
		cmp.Compare(pathRank[x.Path.Kind], pathRank[y.Path.Kind]),
		cmp.Compare(len(y.Path.Value), len(x.Path.Value)),
		cmp.Compare(min(len(y.Methods), 1), min(len(x.Methods), 1)),
		cmp.Compare(len(y.Headers), len(x.Headers)),
		cmp.Compare(len(y.Query), len(x.Query)),
		cmp.Compare(a.Name, b.Name),
	)
}

var pathRank = [...]int{PathExact: 0, PathPrefix: 1, PathRegex: 2, PathTemplate: 2}

// conflicts reports routes of one gateway that ask for exactly the same requests; vague ones are left out.
func (l *loader) conflicts(g *Gateway, vague map[string]bool) {
	type request struct{ hostname, conditions string }
	first := make(map[request]*BoundRoute, len(g.Routes))
	for _, r := range g.Routes {
		if vague[r.Name] {
			continue
		}
		conditions := r.Match.canonical()
		for _, h := range r.Hostnames {
			key := request{h, conditions}
			other := first[key]
			if other == nil {
				first[key] = r
				continue
			}
			p := l.reportKey(l.raw["routes"][r.Name].key, "matches the same requests as the route %s at %s, for %s",
				quote(other.Name), other.Pos, h)
			p.also(other.Pos).Hintf("give one of them another hostname, path, method, header or query condition, or name other gateways")
			break
		}
	}
}

// shadowed warns of routes by regex that never answer: on each of their hostnames a prefix / without further conditions
// goes before them. Vague ones are left out.
func (l *loader) shadowed(g *Gateway, vague map[string]bool) {
	all := make(map[string]*BoundRoute) // the route that takes whatever is left of a hostname
	for _, r := range g.Routes {
		m := &r.Match
		if !vague[r.Name] && m.Path.Kind == PathPrefix && m.Path.Value == "/" && len(m.Methods)+len(m.Headers)+len(m.Query) == 0 {
			for _, h := range r.Hostnames {
				all[h] = r
			}
		}
	}
	for _, r := range g.Routes {
		alive := func(h string) bool { return all[h] == nil }
		if vague[r.Name] || r.Match.Path.Kind != PathRegex || len(r.Hostnames) == 0 || slices.ContainsFunc(r.Hostnames, alive) {
			continue
		}
		other := all[r.Hostnames[0]]
		l.report(l.raw["routes"][r.Name].value, "match.path", true, "never matches: the prefix / of the route %s goes before every regex",
			quote(other.Name)).Hintf("write a prefix here, or {regex: \"/.*\"} as the path of %s", other.Name)
	}
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
	put(strconv.Itoa(int(m.Path.Kind)), m.Path.Value)
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
	return s.String()
}
