package auth

import (
	"cmp"
	"slices"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

// limiter is a setting of a route whose limits the companion counts together with the auth check: one callout for
// both. layer is the one that wrote the setting.
type limiter interface {
	LimitIDs(layer policy.Layer) []string
}

// reader is a setting of a route, or of an auth entry, by which Envoy itself reads claims of the caller's token.
type reader interface{ Claims() []string }

// planner is a setting of a route that has the companion count the caller's plan in the same call.
type planner interface{ PlanUse() auth.PlanUse }

// authorizer is a setting of a route that asks more of callers than to be known.
type authorizer interface {
	Authorizations(layer policy.Layer) []auth.Authorization
}

// planned is a setting of a consumer that names its plan.
type planned interface{ Plan() string }

// Table is what the companion decides by: a rule for each route that asks for auth, and the consumers.
func Table(m *policy.Model) auth.Table { return new(Tables).Table(m) }

// Tables makes the tables of models that come one after the other. What comes of entries that are the very same as in the
// model before, by their pointers, is not made again, and a list in which nothing has changed is the very same.
type Tables struct {
	entries   []*policy.Auth // that the rules are made of, beside the routes
	routes    policy.Following[*policy.BoundRoute, *auth.Rule]
	consumers policy.Following[*policy.Consumer, auth.Consumer]
	rules     []auth.Rule
}

// Table is [Table] of the next model.
func (t *Tables) Table(m *policy.Model) auth.Table {
	if !slices.Equal(t.entries, m.Auth) {
		t.entries, t.routes, t.rules = m.Auth, policy.Following[*policy.BoundRoute, *auth.Rule]{}, nil
	}
	all, gone, come := t.routes.Next(m.BoundRoutes(), func(r *policy.BoundRoute) *auth.Rule { return ruleOf(m, r) })
	if len(gone)+len(come) > 0 && !sameRules(t.rules, all) {
		t.rules = make([]auth.Rule, 0, len(t.rules)+len(come))
		for _, r := range all {
			if r != nil {
				t.rules = append(t.rules, *r)
			}
		}
	}
	consumers, _, _ := t.consumers.Next(m.Consumers, consumerOf)
	return auth.Table{Rules: t.rules, Consumers: consumers, Secrets: secretsOf(m)}
}

// sameRules tells whether the routes come to these rules: the ID of each stands for all of it.
func sameRules(rules []auth.Rule, all []*auth.Rule) bool {
	for _, r := range all {
		switch {
		case r == nil:
		case len(rules) == 0 || rules[0].Known != r.Known:
			return false
		default:
			rules = rules[1:]
		}
	}
	return len(rules) == 0
}

// ruleOf is the rule of a route; nil where anyone may call it.
func ruleOf(m *policy.Model, r *policy.BoundRoute) *auth.Rule {
	s, ok := policy.Find[*Setting](r.Settings)
	if !ok || s.None {
		return nil
	}
	rule := s.rule(&m.Common, r)
	rule.Known = rule.ID()
	return &rule
}

func consumerOf(c *policy.Consumer) auth.Consumer {
	consumer := auth.Consumer{Name: c.Name}
	for _, i := range policy.Each[auth.Identifier](c.Settings) {
		consumer.Identities = append(consumer.Identities, i.Identities()...)
	}
	for _, k := range policy.Each[auth.KeyHolder](c.Settings) {
		consumer.Keys = append(consumer.Keys, k.APIKeys()...)
	}
	if p, ok := policy.Find[planned](c.Settings); ok {
		consumer.Plan = p.Plan()
	}
	return consumer
}

// secretsOf is what auth entries name by reference.
func secretsOf(m *policy.Model) map[string][]byte {
	var secrets map[string][]byte
	for _, s := range m.Secrets {
		if s.Kind == policy.CompanionSecret && len(s.Value) > 0 {
			if secrets == nil {
				secrets = map[string][]byte{}
			}
			secrets[s.Name] = s.Value
		}
	}
	return secrets
}

// rule is what the route asks of its callers. Both halves are made of it, so that Envoy's callout and the companion's
// table never mean different things.
func (s *Setting) rule(m *policy.Common, r *policy.BoundRoute) auth.Rule {
	rule := auth.Rule{Name: r.Gateway.Name + "/" + r.Name, All: s.All}
	for _, name := range s.Of {
		if p, ok := provider(m, name); ok {
			rule.Providers = append(rule.Providers, p)
		}
	}
	for set, l := range policy.Each[limiter](r.Settings) {
		rule.Limits = append(rule.Limits, l.LimitIDs(set.Layer)...)
	}
	for _, settings := range append(s.settings(m), r.Settings) {
		for _, l := range policy.Each[reader](settings) {
			rule.Metadata = append(rule.Metadata, l.Claims()...)
		}
	}
	for set, a := range policy.Each[authorizer](r.Settings) {
		rule.Authorize = append(rule.Authorize, a.Authorizations(set.Layer)...)
	}
	slices.Sort(rule.Metadata)
	rule.Metadata = slices.Compact(rule.Metadata)
	if p, ok := policy.Find[planner](r.Settings); ok {
		rule.Plan = p.PlanUse()
	}
	return rule
}

// entry is the auth entry of that name; nil for none.
func entry(m *policy.Common, name string) *policy.Auth {
	i, ok := slices.BinarySearchFunc(m.Auth, name, func(a *policy.Auth, name string) int { return cmp.Compare(a.Name, name) })
	if !ok {
		return nil
	}
	return m.Auth[i]
}

// settings are those of the entries.
func (s *Setting) settings(m *policy.Common) []policy.Settings {
	var all []policy.Settings
	for _, name := range s.Of {
		if a := entry(m, name); a != nil {
			all = append(all, a.Settings)
		}
	}
	return all
}

func provider(m *policy.Common, name string) (auth.Provider, bool) {
	a := entry(m, name)
	if a == nil {
		return auth.Provider{}, false
	}
	p, ok := policy.Find[auth.ProviderContributor](a.Settings)
	if !ok {
		return auth.Provider{}, false
	}
	return p.Provider(name), true
}
