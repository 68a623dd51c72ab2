// Package envoy turns a policy model into the resources that Envoy is served, makes the configuration that an Envoy
// starts with, and finds, asks and runs the real Envoy. control and cmd call it; features contribute to it.
package envoy

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

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
	return NewTranslator(kinds).Translate(m)
}

// Translator translates the models of one policy as it changes, each as [Translate] does. What comes of entries that are
// the very same as in the model before, by their pointers, is the very same message: nobody may change one. It is for one
// goroutine.
type Translator struct {
	kinds []*policy.Kind
	last  *translation // of the last model that could be translated; nil for none
}

// NewTranslator returns one that has not translated anything yet.
func NewTranslator(kinds []*policy.Kind) *Translator { return &Translator{kinds: kinds} }

// Translate translates the next model. After an error the one before counts as the last.
func (t *Translator) Translate(m *policy.Model) (map[string][]Resource, error) {
	next := newTranslation(m, t.kinds, t.last)
	out := next.all()
	if len(next.problems) > 0 && next.before != nil {
		next = newTranslation(m, t.kinds, nil) // for all of them, in their order
		out = next.all()
	}
	if len(next.problems) > 0 {
		return nil, errors.Join(next.problems...)
	}
	next.before = nil
	t.last = next
	return out, nil
}

// translation is the translation of one model.
type translation struct {
	model      *policy.Model
	before     *translation // that of the model before, where routes and services may be taken over from it; else nil
	filters    []zero[FilterContributor]
	absents    []zero[Absent]
	strip      []string
	identities map[string][]string // who is known in the mesh by a certificate
	problems   []error

	// What was made, for the next one.
	served   map[*policy.Gateway]*served
	clusters map[clusterKey]*clusterPair
	secrets  map[string]secretMade // by ID
}

func newTranslation(m *policy.Model, kinds []*policy.Kind, before *translation) *translation {
	if before != nil && !sameSurroundings(before.model, m) {
		before = nil
	}
	return &translation{
		model:      m,
		before:     before,
		filters:    zeros[FilterContributor](kinds),
		absents:    zeros[Absent](kinds),
		strip:      stripped(m, kinds),
		identities: identities(m),
		served:     make(map[*policy.Gateway]*served, len(m.Gateways)),
		clusters:   make(map[clusterKey]*clusterPair),
		secrets:    make(map[string]secretMade),
	}
}

// sameSurroundings tells whether all is the same in two models that a route or a service may be translated by, beside
// itself: see [RouteContext].
func sameSurroundings(a, b *policy.Model) bool {
	return slices.Equal(a.Gateways, b.Gateways) && slices.Equal(a.Auth, b.Auth) && slices.Equal(a.Plans, b.Plans)
}

// all is the resources of every gateway.
func (t *translation) all() map[string][]Resource {
	out := make(map[string][]Resource, len(t.model.Gateways))
	for _, gw := range t.model.Gateways {
		out[gw.Name] = t.gateway(gw)
	}
	return out
}

// problem reports what Envoy can't be told, at its place in the policy and the others that it comes from.
func (t *translation) problem(pos policy.Pos, path, message, hint string, also ...policy.Pos) {
	t.problems = append(t.problems, &policy.Problem{Pos: pos, Path: path, Message: message, Hint: hint, Also: also})
}

// gateway makes the resources of one node group: its listeners, their route tables, and the clusters and secrets that
// these use.
func (t *translation) gateway(gw *policy.Gateway) []Resource {
	s := t.serve(gw)
	used := s.used(gw)
	asking := t.listeners(gw, s)
	var list []Resource
	for _, l := range gw.Listeners {
		p := s.ports[l]
		list = append(append(list, p.listener.Resource), p.tables...)
		used.add(p.uses)
	}
	for _, service := range t.model.Services {
		if used[service.Name] {
			pair := t.cluster(gw, service)
			asking = append(asking, asks{pair.resources[0], pair.secrets})
			list = append(list, pair.resources...)
		}
	}
	for _, a := range s.outside {
		asking = append(asking, a)
		list = append(list, a.Resource)
	}
	return sorted(append(list, t.secretsOf(gw, asking)...))
}

// ByTypeAndName compares two resources by the order that [Translate] gives them in.
func ByTypeAndName(a, b Resource) int {
	return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
}

// sorted puts resources, of which most stand in order but for their types, in order.
func sorted(list []Resource) []Resource {
	byType := make(map[string][]Resource)
	for _, r := range list {
		byType[r.Type] = append(byType[r.Type], r)
	}
	all := list[:0]
	for _, kind := range slices.Sorted(maps.Keys(byType)) {
		of := byType[kind]
		slices.SortFunc(of, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
		all = append(all, of...)
	}
	return all
}

// valid asks a message's own rules, so that what Envoy is sure to refuse never reaches it. Route tables are not asked:
// their routes were, one by one, for the sake of the position.
func (t *translation) valid(r Resource) Resource {
	if v, ok := r.Message.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.problem(r.Pos, "", "Envoy would refuse this: "+err.Error(), "")
		}
	}
	return r
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

// placesOf is where settings of the kinds that are a T may stand.
func placesOf[T any](kinds []*policy.Kind) policy.Place {
	var places policy.Place
	for _, k := range kinds {
		if _, ok := k.New().(T); ok {
			places |= k.Places
		}
	}
	return places
}
