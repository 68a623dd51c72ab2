package ratelimit

import (
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// Limits is what the companion counts: every limit that holds on some route and is not Envoy's own, once, sorted by ID.
func Limits(m *policy.Model) []ratelimit.Limit { return new(Tables).Limits(m) }

// Domains is what Envoys that others configure may ask for.
func Domains(m *policy.Model) []ratelimit.Domain { return new(Tables).Domains(m) }

// Tables makes the limits and domains of models that come one after the other. What comes of entries that are the very same
// as in the model before, by their pointers, is not made again, and a list in which nothing has changed is the very same.
type Tables struct {
	routes  policy.Following[*policy.BoundRoute, []ratelimit.Limit]
	places  map[string]int // on how many routes each limit holds, by ID
	limits  []ratelimit.Limit
	entries policy.Following[*policy.Domain, ratelimit.Domain]
}

// Limits is [Limits] of the next model.
func (t *Tables) Limits(m *policy.Model) []ratelimit.Limit {
	if t.places == nil {
		t.places = map[string]int{}
	}
	changes := map[string][]ratelimit.Limit{} // by ID: the limit that has come, or none
	_, gone, come := t.routes.Next(m.BoundRoutes(), limitsOf)
	for _, limits := range gone {
		for _, l := range limits {
			if t.places[l.Known]--; t.places[l.Known] == 0 {
				delete(t.places, l.Known)
				changes[l.Known] = nil
			}
		}
	}
	for _, limits := range come {
		for _, l := range limits {
			if t.places[l.Known]++; t.places[l.Known] > 1 {
				continue
			}
			if _, left := changes[l.Known]; left {
				delete(changes, l.Known) // from one route to another
			} else {
				changes[l.Known] = []ratelimit.Limit{l}
			}
		}
	}
	if len(changes) > 0 {
		t.limits = policy.Patch(t.limits, func(l ratelimit.Limit) string { return l.Known }, changes)
	}
	return t.limits
}

// limitsOf is the limits that hold on a route and are not Envoy's own.
func limitsOf(r *policy.BoundRoute) []ratelimit.Limit {
	var limits []ratelimit.Limit
	for set, s := range policy.Each[*Setting](r.Settings) {
		for i := range s.Limits {
			if s.Limits[i].perEnvoy() {
				continue
			}
			l := s.limit(set.Layer, i)
			l.Known = l.ID()
			limits = append(limits, l)
		}
	}
	return limits
}

// Domains is [Domains] of the next model.
func (t *Tables) Domains(m *policy.Model) []ratelimit.Domain {
	all, _, _ := t.entries.Next(m.Domains, func(d *policy.Domain) ratelimit.Domain {
		domain := ratelimit.Domain{Name: nameOf(d)}
		if list, ok := policy.Find[*Descriptors](d.Settings); ok {
			domain.Descriptors = tree(*list)
		}
		return domain
	})
	return all
}
