package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rlfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/wellknown"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// facts gathers what the settings of the route and of its services have to tell, in the order of the request's way.
func (d *door) facts(e *Explanation, f found, a *asked) {
	bound := d.bound(f.route)
	c := d.context(bound, f, a)
	all := d.settings(c, bound.Settings, policy.InRoute)
	if e.Answer.By == Backend {
		all = append(all, backends(bound)...)
		for _, b := range bound.Backends {
			c.Service = b.Service
			all = append(all, d.settings(c, b.Service.Settings, policy.InService)...)
		}
	}
	if e.Answer.By == Backend || e.Answer.By == Itself {
		all = append(all, d.added(e.Filters)...)
	}
	slices.SortStableFunc(all, func(x, y envoy.Fact) int { return cmp.Compare(x.Stage, y.Stage) })
	topic := ""
	for _, one := range all {
		topic = cmp.Or(one.Topic, topic)
		if one.Stage > envoy.AtDoor && (e.Answer.By == Door || e.Answer.By == Preflight) {
			break // the request gets no further
		}
		e.Facts = append(e.Facts, Told{topic, one.Text, one.At})
	}
}

// added is the filters that the listener's own envoy has put into the chain.
func (d *door) added(filters []string) []envoy.Fact {
	var all []envoy.Fact
	for _, name := range filters {
		if !strings.HasPrefix(name, "legation.") && name != wellknown.Router {
			text := "the filter " + name + " acts, which the listener adds: what it does is not told here"
			all = append(all, envoy.Fact{Stage: envoy.Changed, Topic: "envoy", Text: text, At: []policy.Pos{d.listener.Pos}})
		}
	}
	return all
}

// settings asks those of an entry that stands in a place. What a service says as a layer of its routes is told as theirs.
func (d *door) settings(c envoy.ExplainContext, settings policy.Settings, place policy.Place) []envoy.Fact {
	var all []envoy.Fact
	for _, set := range settings {
		if place == policy.InService && set.Kind.Places&policy.InRoute != 0 {
			continue
		}
		c.Set = set
		if one, ok := set.Setting.(envoy.Explainer); ok {
			all = append(all, one.Explain(c)...)
		} else {
			all = append(all, written(c))
		}
	}
	c.Set = policy.Set{}
	for _, k := range d.policy.Kinds {
		one, ok := k.New().(envoy.AbsentExplainer)
		service := k.Places&policy.InRoute == 0
		if ok && k.Places&place != 0 && service == (place == policy.InService) && !settings.Has(k.Key) {
			all = append(all, one.ExplainWithout(c)...)
		}
	}
	return all
}

// written is what is told of a setting that has no words of its own.
func written(c envoy.ExplainContext) envoy.Fact {
	if c.Service != nil {
		return c.Fact(envoy.Connected, c.Service.Name+": "+c.Set.Node.Inline())
	}
	return c.Fact(envoy.Changed, c.Set.Node.Inline())
}

// backends is where requests go, each with its share.
func backends(r *policy.BoundRoute) []envoy.Fact {
	var all []envoy.Fact
	sum := 0.0
	for _, b := range r.Backends {
		sum += float64(b.Weight)
	}
	for _, b := range r.Backends {
		text := b.Service.Name
		if len(r.Backends) > 1 {
			text += fmt.Sprintf(", %.3g %% of requests", 100*float64(b.Weight)/sum)
		}
		all = append(all, envoy.Fact{Stage: envoy.SentOn, Topic: "backend", Text: text + ": " + endpoints(b.Service), At: []policy.Pos{b.Pos, b.Service.Pos}})
	}
	return all
}

func endpoints(s *policy.Service) string {
	const most = 3
	if s.DNS != nil {
		return fmt.Sprintf("the addresses of %s, port %d", s.DNS.Host, s.DNS.Port)
	}
	text := ""
	for i, one := range s.Endpoints {
		switch {
		case i == most:
			return text + fmt.Sprintf(" and %d more", len(s.Endpoints)-most)
		case i > 0:
			text += ", "
		}
		text += fmt.Sprintf("%s:%d", one.Host, one.Port)
	}
	return text
}

// calls counts the calls to the companion that the filters of a route make.
func calls(chain []acting) Calls {
	var c Calls
	verified := false // Envoy looks at the caller's token before
	for _, f := range chain {
		var auth extauthzv3.ExtAuthz
		var limits rlfilterv3.RateLimitPerRoute
		var token jwtv3.PerRouteConfig
		switch {
		case f.config != nil && f.config.UnmarshalTo(&token) == nil:
			verified = true
		case f.GetTypedConfig().UnmarshalTo(&auth) == nil:
			c.Before++
			c.Spared = verified && auth.FilterEnabledMetadata != nil
		case f.config != nil && f.config.UnmarshalTo(&limits) == nil:
			before, after := 0, 0
			for _, one := range limits.RateLimits {
				if one.ApplyOnStreamDone {
					after = 1
				} else {
					before = 1
				}
			}
			c.Before += before
			c.After += after
		}
	}
	return c
}
