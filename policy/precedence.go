package policy

import (
	"cmp"
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

var pathRank = [...]int{PathExact: 0, PathPrefix: 1, PathRegex: 2}

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
