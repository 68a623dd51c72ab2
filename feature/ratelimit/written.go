package ratelimit

import (
	"cmp"
	"slices"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// Written is a limit that a policy comes to, and where it is written.
type Written struct {
	ratelimit.Limit
	PerEnvoy bool // each Envoy counts by itself
	Pos      policy.Pos
}

// All is every limit that holds on some route or that other Envoys may ask for, once, sorted by name.
func All(m *policy.Model) []Written {
	var all []Written
	seen := map[policy.Pos]bool{}
	for _, g := range m.Gateways {
		for _, r := range m.Bound[g] {
			for set, s := range policy.Each[*Setting](r.Settings) {
				for i := range s.Limits {
					w := Written{s.limit(set.Layer, i), s.Limits[i].perEnvoy(), set.Pos()}
					if s.listed {
						w.Pos = set.Node.Items[i].Pos
					}
					if w.PerEnvoy {
						w.Algorithm, w.Burst = algorithms["gcra"], cmp.Or(w.Burst, w.Requests)
					}
					if !seen[w.Pos] {
						all = append(all, w)
					}
					seen[w.Pos] = true
				}
			}
		}
	}
	for _, d := range m.Domains {
		for set, descriptors := range policy.Each[*Descriptors](d.Settings) {
			all = append(all, below("rateLimits/"+nameOf(d), *descriptors, set.Node)...)
		}
	}
	slices.SortStableFunc(all, func(a, b Written) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// below is the limits of a level of a domain's tree, and of the levels under it.
func below(path string, descriptors []Descriptor, list *policy.Node) (all []Written) {
	for i := range descriptors {
		d := &descriptors[i]
		node := d.node()
		name := node.Path(path)
		if l := node.Limit; l != nil && !l.Unlimited {
			w := Written{Limit: *l, Pos: list.Items[i].Pos}
			w.Name = name
			all = append(all, w)
		}
		if len(d.Descriptors) > 0 {
			all = append(all, below(name, d.Descriptors, list.Items[i].Get("descriptors"))...)
		}
	}
	return all
}
