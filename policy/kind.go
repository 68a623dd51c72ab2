package policy

import (
	"iter"
	"reflect"
)

// Place says in which entries a key may stand; places are or-ed.
type Place uint16

// The places of a key. InDefaults, InService and InRoute are the layers that are merged for each route.
const (
	InGateway  Place = 1 << iota // gateways.NAME
	InListener                   // gateways.NAME.listeners.NAME
	InDefaults                   // gateways.NAME.defaults: layer 1
	InService                    // services.NAME: layer 2 where the key may stand in routes too
	InRoute                      // routes.NAME: layer 3
	InAuth                       // auth.NAME
	InConsumer                   // consumers.NAME
	InPlan                       // plans.NAME
	InDomain                     // rateLimits.NAME: what Envoys that others configure may ask for

	// Layers is the places of a key that may be written for a gateway, a service or a route.
	Layers = InDefaults | InService | InRoute
)

// Setting is what stands under one key, decoded into the feature's own type. What else a setting can do is told by
// the interfaces of the rooms that use it (envoy.RouteContributor, auth.ProviderContributor, ...).
type Setting interface {
	// Check reports what is wrong with the setting on its own and in its place. For a key of the layers it is called
	// for each layer as written, with c.Route() nil, and for the merged result of each route.
	Check(c *Check)
}

// RouteChecker is a setting, of whatever entry, that looks again once the routes are put together and checked.
type RouteChecker interface{ CheckRoutes(c *Check) }

// Kind is the definition of one key of the language.
type Kind struct {
	Key    string
	Places Place
	// Stacked keys are not merged: each layer's setting holds beside the others (limits). What one layer writes under
	// the key, be it a list, is one setting.
	Stacked bool
	// TCP tells that a route of TCP or TLS listeners may have the key; it makes no sense there otherwise.
	TCP bool
	// Switched keys have a setting for the word off as well, which a nearer layer may replace, because without any
	// setting the route has what its gateway says.
	Switched bool
	// App tells that what a service says under the key holds for the app behind its sidecar, too, and not only for those
	// who call the service.
	App bool
	// Doc is the feature's own documentation, Markdown; its first line is the summary.
	Doc string

	typ reflect.Type // the struct or named type that Setting points to
}

// New returns a zero setting of the kind, also to ask which interfaces its type has.
func (k *Kind) New() Setting { return reflect.New(k.typ).Interface().(Setting) }

// Define defines a key whose setting is decoded into a T. T's exported fields are tagged `policy:"name"`, with
// ",required" where a merged setting cannot do without, and `doc:"..."` for the schema; a T or a field type that is
// written in more than one form has a DecodePolicy method ([Decoder]) and a PolicySchema method ([Schemer]).
func Define[T any, S interface {
	*T
	Setting
}](key string, places Place, doc string) *Kind {
	return &Kind{Key: key, Places: places, Doc: doc, typ: reflect.TypeFor[T]()}
}

// Stack marks the kind as one whose layers hold beside each other, and returns it.
func (k *Kind) Stack() *Kind {
	k.Stacked = true
	return k
}

// Layer4 marks the kind as one that routes of TCP and TLS listeners may have, too, and returns it.
func (k *Kind) Layer4() *Kind {
	k.TCP = true
	return k
}

// Switch marks the kind as one whose off is a setting that its type decodes, and returns it.
func (k *Kind) Switch() *Kind {
	k.Switched = true
	return k
}

// ForApp marks the kind as one of services that holds for the app behind a sidecar, too, and returns it.
func (k *Kind) ForApp() *Kind {
	k.App = true
	return k
}

// Replacer is a stacked setting that can drop those of the layers outside it.
type Replacer interface{ Replaces() bool }

// Answerer is a setting that may answer requests itself, so that its route needs no backend.
type Answerer interface{ Answers() bool }

// Reacher is a setting that says something about the matter of other keys, too. Where a gateway locks one of these, that is
// refused as well. Reaches yields the keys, each with a path below the setting.
type Reacher interface {
	Reaches() iter.Seq2[string, string]
}

// Decoder is a type that reads itself from a node because it has more than one written form. Fields of structs
// below it are read with d.Decode.
type Decoder interface{ DecodePolicy(d *Decode, n *Node) }

// Whole is a type that is replaced as a whole where layers are merged, rather than key by key: a union, of which
// {header: x} in a service must not become {header: x, cookie: y}. What one layer writes has to be complete.
type Whole interface{ Whole() }

// Schemer is a type that tells its own JSON Schema (draft 2020-12), as the types that decode themselves must.
type Schemer interface {
	PolicySchema(s *Schemas) map[string]any
}
