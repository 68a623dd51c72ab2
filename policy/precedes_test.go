package policy_test

import (
	"testing"

	"github.com/legation/legation/policy"
)

const ordered = `gateways: {edge: {listeners: {http: {port: 1}}}}
services: {web: {endpoints: [127.0.0.1:1]}}
routes:
  exact: {hostnames: [a], match: {path: {exact: /a/b}}, backends: {web: 1}}
  long: {hostnames: [a], match: {path: /a/b}, backends: {web: 1}}
  short: {hostnames: [a], match: {path: /a}, backends: {web: 1}}
  folded: {hostnames: [a], match: {path: {prefix: /a, ignoreCase: true}}, backends: {web: 1}}
  get: {hostnames: [a], match: {path: /a, methods: [GET]}, backends: {web: 1}}
  header: {hostnames: [a], match: {path: /a, headers: {x: y}}, backends: {web: 1}}
  query: {hostnames: [a], match: {path: /a, query: {x: y}}, backends: {web: 1}}
  query2: {hostnames: [a], match: {path: /a, query: {x: z}}, backends: {web: 1}}
  regex: {hostnames: [a], match: {path: {regex: "/a.*"}}, backends: {web: 1}}
  root: {hostnames: [a], backends: {web: 1}}
`

func TestPrecedesTellsTheRule(t *testing.T) {
	m, problems := testLanguage().Load(policy.Files{"p.yaml": []byte(ordered)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	byName := map[string]*policy.BoundRoute{}
	all := m.Bound[m.Gateways[0]]
	for i, r := range all {
		byName[r.Name] = r
		for _, o := range all[i+1:] {
			if r.Precedes(o) == "" || o.Precedes(r) != "" {
				t.Errorf("%s stands before %s: %q, and the other way %q", r.Name, o.Name, r.Precedes(o), o.Precedes(r))
			}
		}
	}
	for _, row := range [][3]string{
		{"exact", "long", "an exact path goes first"},
		{"long", "short", "the longer path goes first"},
		{"short", "folded", "a path whose case counts goes first"},
		{"get", "short", "a route with methods goes first"},
		{"header", "short", "more conditions on headers go first"},
		{"query", "short", "more conditions on the query go first"},
		{"query", "query2", "the name comes first in the alphabet"},
		{"short", "regex", "a prefix goes before a regex or template"},
		{"regex", "root", "the prefix / comes last"},
	} {
		if got := byName[row[0]].Precedes(byName[row[1]]); got != row[2] {
			t.Errorf("%s before %s: got %q, want %q", row[0], row[1], got, row[2])
		}
	}
}
