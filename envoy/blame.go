package envoy

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
)

// MaxAsked is how often an Envoy is asked about a gateway: enough to find one line among ten thousand routes.
const MaxAsked = 20

// Judge has the real Envoy validate what gateways are served, and finds the line of the policy that a refusal is about:
// by the name that Envoy says, else by asking it about halves.
type Judge struct {
	Kinds []*policy.Kind
	// Ask answers for Envoy: [Validate] with a binary. Its error is a [Refused], or ends the search.
	Ask     func(ctx context.Context, b *bootstrapv3.Bootstrap) error
	Secrets string // [BootstrapOptions.Secrets]
	// Searching is told once for each gateway that is refused, before its line is looked for; nil tells nobody.
	Searching func(gateway string)
}

// Gateway is what the Envoys of a gateway would refuse of the model; nothing when they would take it. The error is that
// Envoy can't be asked, or it ends with the context.
func (j Judge) Gateway(ctx context.Context, m *policy.Model, gw *policy.Gateway) (policy.Problems, error) {
	s := search{kinds: j.Kinds, model: m, gateway: gw, ask: func(resources []Resource) error {
		b, err := Static(resources, BootstrapOptions{Group: gw.Name, Secrets: j.Secrets})
		if err != nil {
			return err
		}
		return j.Ask(ctx, b)
	}}
	whole := part{listeners: gw.Listeners, routes: m.Bound[gw]}
	var found policy.Problems
	for s.asked < MaxAsked {
		refusal := s.refused(whole)
		if s.err != nil || refusal == nil {
			return found, s.err
		}
		if len(found) == 0 && j.Searching != nil {
			j.Searching(gw.Name)
		}
		rest, p := s.find(whole, refusal)
		if s.err != nil {
			return nil, s.err
		}
		if slices.ContainsFunc(found, func(o *policy.Problem) bool { return o.Pos == p.Pos && o.Message == p.Message }) {
			break // it came back by another way, such as a setting's own service
		}
		found = append(found, p)
		whole = rest
	}
	if s.asked >= MaxAsked {
		last := found[len(found)-1]
		last.Hint += "; mend this and check again: there may be more, Envoy has been asked often enough"
	}
	return found, nil
}

// search is the questions about one gateway.
type search struct {
	kinds   []*policy.Kind
	ask     func([]Resource) error
	model   *policy.Model
	gateway *policy.Gateway
	asked   int
	err     error // that Envoy can't be asked
}

// part is what of a gateway Envoy is asked about.
type part struct {
	listeners []*policy.Listener
	routes    []*policy.BoundRoute
	clusters  []string    // only these, and no listener, when it isn't nil
	without   *policy.Set // this setting is left out
}

// refused asks Envoy about a part; nil when it takes it, or can't be asked any more.
func (s *search) refused(p part) *Refused {
	if s.err != nil || s.asked >= MaxAsked {
		return nil
	}
	s.asked++
	err := s.ask(s.resources(p))
	if refusal, ok := errors.AsType[*Refused](err); ok {
		return refusal
	}
	s.err = err
	return nil
}

// resources are those that a part comes to.
func (s *search) resources(p part) []Resource {
	m, gw := *s.model, *s.gateway
	gw.Listeners = p.listeners
	routes := p.routes
	if p.without != nil {
		routes = p.leaveOut(&m, &gw)
	}
	m.Bound = maps.Clone(m.Bound)
	m.Bound[&gw] = routes
	m.Gateways = slices.Clone(m.Gateways)
	if i := slices.Index(m.Gateways, s.gateway); i >= 0 {
		m.Gateways[i] = &gw
	}
	list := newTranslation(&m, s.kinds, nil).gateway(&gw)
	if p.clusters == nil {
		return list
	}
	return slices.DeleteFunc(list, func(r Resource) bool {
		return r.Type == resource.ListenerType || r.Type == resource.ClusterType && !slices.Contains(p.clusters, r.Name)
	})
}

// leaveOut drops the setting from the copies of all that it may stand in, of which it returns those of the routes.
func (p part) leaveOut(m *policy.Model, gw *policy.Gateway) []*policy.BoundRoute {
	drop := func(settings *policy.Settings) {
		*settings = slices.DeleteFunc(slices.Clone(*settings), func(s policy.Set) bool {
			return s.Kind == p.without.Kind && s.Pos() == p.without.Pos()
		})
	}
	drop(&gw.Settings)
	gw.Listeners = copies(gw.Listeners, func(l *policy.Listener) { drop(&l.Settings) })
	m.Services = copies(m.Services, func(s *policy.Service) { drop(&s.Settings) })
	return copies(p.routes, func(r *policy.BoundRoute) { drop(&r.Settings) })
}

// copies is a list of copies, changed.
func copies[T any](list []*T, change func(*T)) []*T {
	var all []*T
	for _, one := range list {
		again := *one
		change(&again)
		all = append(all, &again)
	}
	return all
}

// find looks for one thing that Envoy refuses, of a part that it refuses. It gives what is left of the part without it.
func (s *search) find(whole part, refusal *Refused) (rest part, p *policy.Problem) {
	rest = whole
	if bare := s.refused(part{listeners: whole.listeners}); bare != nil {
		some, refusal := narrow(s, whole.listeners, bare,
			func(l *policy.Listener) string { return l.Name }, func(ls []*policy.Listener) part { return part{listeners: ls} })
		rest.listeners = less(whole.listeners, some)
		if len(some) != 1 {
			return rest, s.vague(refusal)
		}
		settings := slices.Concat(some[0].Settings, s.gateway.Settings)
		p, _ = s.inside(part{listeners: some}, suspect{some[0].Entry, "gateways." + s.gateway.Name + ".listeners.", settings}, refusal)
		return rest, p
	}
	some, refusal := narrow(s, whole.routes, refusal,
		func(r *policy.BoundRoute) string { return r.Name }, func(rs []*policy.BoundRoute) part { return part{listeners: whole.listeners, routes: rs} })
	rest.routes = less(whole.routes, some)
	if len(some) != 1 {
		return rest, s.vague(refusal)
	}
	p, service := s.inside(part{listeners: whole.listeners, routes: some}, suspect{some[0].Entry, "routes.", some[0].Settings}, refusal)
	rest.routes = slices.DeleteFunc(rest.routes, func(r *policy.BoundRoute) bool {
		return slices.ContainsFunc(r.Backends, func(b policy.Backend) bool { return b.Service.Name == service })
	})
	return rest, p
}

// less is a list without some.
func less[T comparable](all, some []T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return slices.Contains(some, one) })
}

// narrow finds one of a list that Envoy refuses: the one that Envoy names, or else by halves. It leaves more than one when
// Envoy can't be asked often enough.
func narrow[T any](s *search, all []T, refusal *Refused, name func(T) string, as func([]T) part) ([]T, *Refused) {
	named := slices.DeleteFunc(slices.Clone(all), func(one T) bool { return !refusal.names(name(one)) })
	if len(named) == 1 && len(all) > 2 {
		if again := s.refused(as(named)); again != nil {
			return named, again
		}
	}
	for len(all) > 1 && s.err == nil && s.asked < MaxAsked {
		half := len(all) / 2
		if again := s.refused(as(all[:half])); again != nil {
			all, refusal = all[:half], again
		} else {
			all = all[half:]
		}
	}
	return all, refusal
}

// names tells whether a name stands in Envoy's words as a word of its own.
func (r *Refused) names(name string) bool {
	letter := func(b byte) bool {
		return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_' || b == '.' || b == '/'
	}
	for rest := r.Words; name != ""; {
		i := strings.Index(rest, name)
		if i < 0 {
			break
		}
		after := rest[i+len(name):]
		if (i == 0 || !letter(rest[i-1])) && (after == "" || !letter(after[0])) {
			return true
		}
		rest = rest[i+1:]
	}
	return false
}

// suspect is an entry that Envoy refuses, or one of the services that it sends to.
type suspect struct {
	policy.Entry
	above    string // its path begins with it
	settings policy.Settings
}

// inside tells which setting of a suspect is to blame: the one without which Envoy takes the part. It names the service
// where it is one that the suspect sends to.
func (s *search) inside(p part, of suspect, refusal *Refused) (_ *policy.Problem, guilty string) {
	var clusters []string
	for _, r := range s.resources(p) {
		if r.Type == resource.ClusterType {
			clusters = append(clusters, r.Name)
		}
	}
	var alone *Refused
	if p.clusters = clusters; len(clusters) > 0 {
		alone = s.refused(p)
	}
	if alone != nil {
		p.clusters, refusal = narrow(s, clusters, alone, func(name string) string { return name }, func(names []string) part {
			return part{listeners: p.listeners, routes: p.routes, clusters: names}
		})
		for _, service := range s.model.Services {
			if service.Name == p.clusters[0] {
				of, guilty = suspect{service.Entry, "services.", service.Settings}, service.Name
			}
		}
	} else {
		p.clusters = nil
	}
	settings := slices.Clone(of.settings)
	slices.SortStableFunc(settings, patchesFirst)
	for i := range settings {
		p.without = &settings[i]
		if s.asked < MaxAsked && s.refused(p) == nil && s.err == nil {
			return refusal.at(settings[i].Pos(), settings[i].Node.Path()), guilty
		}
	}
	return refusal.at(of.Pos, of.above+of.Name), guilty
}

// patchesFirst puts what is most likely to be refused before what our own checks know all about.
func patchesFirst(a, b policy.Set) int {
	rank := func(s policy.Set) int {
		if _, ok := s.Setting.(Patcher); ok {
			return 0
		}
		return 1
	}
	return rank(a) - rank(b)
}

func (r *Refused) at(pos policy.Pos, path string) *policy.Problem {
	p := &policy.Problem{Pos: pos, Path: path, Message: "Envoy refuses this: " + strings.Join(strings.Fields(r.Words), " ")}
	return p.Hintf("these are Envoy's own words; legation render shows what it is asked to take")
}

// vague is the problem where Envoy can't be asked often enough to find its line, or takes each half alone.
func (s *search) vague(r *Refused) *policy.Problem {
	p := r.at(s.gateway.Pos, "gateways."+s.gateway.Name)
	p.Message += " (its line was not found)"
	return p
}
