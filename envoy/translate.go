// Package envoy turns a policy model into the resources that Envoy is served, makes the configuration that an Envoy
// starts with, and finds, asks and runs the real Envoy. control and cmd call it; features contribute to it.
package envoy

import (
	"cmp"
	"errors"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// Companion is the name of the cluster in every bootstrap that leads to the rate limit and auth services.
const Companion = "legation_companion"

// Resource is one xDS resource, with the place in the policy that it comes from.
type Resource struct {
	Type    string // type URL
	Name    string
	Message proto.Message
	Pos     policy.Pos
	Salt    string // joins the version: a cluster's endpoints are sent again when the cluster changed
}

// Translate makes the resources of every gateway, by its name; each list is sorted by type and name. What can't be
// said to Envoy is a [policy.Problem]; the error joins all of them.
func Translate(m *policy.Model, kinds []*policy.Kind) (map[string][]Resource, error) {
	t := newTranslation(m, kinds)
	out := make(map[string][]Resource, len(m.Gateways))
	for _, gw := range m.Gateways {
		list := t.gateway(gw)
		slices.SortFunc(list, func(a, b Resource) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
		})
		out[gw.Name] = list
	}
	if len(t.problems) > 0 {
		return nil, errors.Join(t.problems...)
	}
	return out, nil
}

// translation is one run of Translate.
type translation struct {
	model      *policy.Model
	filters    []zero[FilterContributor]
	absents    []zero[Absent]
	strip      []string
	identities map[string][]string    // who is known in the mesh by a certificate
	clusters   map[string]clusterPair // by service; the gateways share those of services without a sidecar
	problems   []error
}

func newTranslation(m *policy.Model, kinds []*policy.Kind) *translation {
	return &translation{
		model:      m,
		filters:    zeros[FilterContributor](kinds),
		absents:    zeros[Absent](kinds),
		strip:      stripped(m),
		identities: identities(m),
		clusters:   make(map[string]clusterPair),
	}
}

// problem reports what Envoy can't be told, at its place in the policy and the others that it comes from.
func (t *translation) problem(pos policy.Pos, path, message, hint string, also ...policy.Pos) {
	t.problems = append(t.problems, &policy.Problem{Pos: pos, Path: path, Message: message, Hint: hint, Also: also})
}

// gateway makes the resources of one node group: its listeners, their route tables, and the clusters and secrets that
// these use.
func (t *translation) gateway(gw *policy.Gateway) []Resource {
	used := make(services)
	used.ofSettings(t.model, gw)
	table := t.table(gw, used)
	list := t.listeners(gw, table, used)
	for _, s := range t.model.Services {
		if used[s.Name] {
			list = append(list, t.cluster(gw, s).resources()...)
		}
	}
	list = append(list, t.outside(gw)...)
	list = append(list, t.secrets(gw, list)...)
	t.validate(list)
	return list
}

// listeners makes the listeners of a gateway and their route tables.
func (t *translation) listeners(gw *policy.Gateway, table table, used services) []Resource {
	var list []Resource
	var all []Filter // of all chains: route tables may be shared
	filters := make(map[*policy.Listener][]Filter)
	for _, l := range gw.Listeners {
		if l.HTTP() {
			filters[l] = t.chain(ListenerContext{Model: t.model, Gateway: gw, Listener: l})
			all = append(all, filters[l]...)
		}
	}
	trace := traceRoute(all)
	shared := false // the per-host tables, which such listeners of the gateway may have in common
	for _, l := range gw.Listeners {
		c := ListenerContext{Model: t.model, Gateway: gw, Listener: l}
		list = append(list, Resource{
			Type: resource.ListenerType, Name: l.Name, Message: t.listener(c, filters[l], used), Pos: l.Pos,
		})
		f := frame{before: []*routev3.Route{trace}}
		switch keys := scopeKeysOf(t.model, gw, l); {
		case !l.HTTP():
		case !scoped(l):
			list = append(list, t.tableOf(table, l, f, filters[l]))
		case !shared || keys.prefix != "":
			t.checkPerHost(gw, l)
			list, shared = append(list, keys.scopes(t.hosts(table, l, f))...), true
		}
	}
	return list
}

// tableOf is the one route table of a listener.
func (t *translation) tableOf(table table, l *policy.Listener, f frame, filters []Filter) Resource {
	if l.RedirectPort != 0 {
		f.after = redirects(l.RedirectPort, filters)
	}
	hosts := t.hosts(table, l, f)
	if l.RedirectPort != 0 {
		hosts = withAnyHost(hosts, f, l)
	}
	return Resource{Type: resource.RouteType, Name: l.Name, Message: routeConfiguration(l.Name, hosts), Pos: l.Pos}
}

// validate asks each message's own rules, so that what Envoy is sure to refuse never reaches it. Route tables are
// left out: their routes were asked one by one, for the sake of the position.
func (t *translation) validate(list []Resource) {
	for _, r := range list {
		v, ok := r.Message.(interface{ ValidateAll() error })
		if !ok || r.Type == resource.RouteType {
			continue
		}
		if err := v.ValidateAll(); err != nil {
			t.problem(r.Pos, "", "Envoy would refuse this: "+err.Error(), "")
		}
	}
}

// zero is the zero setting of a kind, asked for what it has to say whether or not the policy uses it.
type zero[T any] struct {
	key     string
	setting T
}

func zeros[T any](kinds []*policy.Kind) []zero[T] {
	var all []zero[T]
	for _, k := range kinds {
		if s, ok := k.New().(T); ok {
			all = append(all, zero[T]{k.Key, s})
		}
	}
	return all
}
