package ratelimit

import (
	"maps"
	"slices"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// Limits is what the companion counts: every limit that holds on some route and is not Envoy's own, once, sorted by ID.
func Limits(m *policy.Model) []ratelimit.Limit {
	limits := map[string]ratelimit.Limit{}
	for _, g := range m.Gateways {
		for _, r := range m.Bound[g] {
			for set, s := range policy.Each[*Setting](r.Settings) {
				for i := range s.Limits {
					if s.Limits[i].perEnvoy() {
						continue
					}
					l := s.limit(set.Layer, i)
					limits[l.ID()] = l
				}
			}
		}
	}
	var list []ratelimit.Limit
	for _, id := range slices.Sorted(maps.Keys(limits)) {
		list = append(list, limits[id])
	}
	return list
}
