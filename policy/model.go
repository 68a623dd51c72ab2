package policy

import (
	"iter"
	"slices"
)

// Model is a whole policy, decoded, checked and resolved. It is immutable. Every list is sorted by name, but routes
// below a gateway, which stand in order of precedence.
type Model struct {
	Revision  string // content hash of the files
	Gateways  []*Gateway
	Services  []*Service
	Routes    []*Route
	Auth      []*Auth
	Consumers []*Consumer
}

// Entry is what all named things have in common.
type Entry struct {
	Name     string
	Pos      Pos // of the name
	Settings Settings
}

// Gateway is a node group: the Envoys whose node.cluster is its name.
type Gateway struct {
	Entry
	Listeners []*Listener
	Defaults  Settings      // as written; merged into Routes
	Routes    []*BoundRoute // in order of precedence within a hostname
}

// Listener is one port of a gateway.
type Listener struct {
	Entry
	Address  string // default 0.0.0.0
	Port     uint32
	Protocol string // HTTP
	PerHost  bool   // routeTables: perHost
}

// Service is a set of endpoints that routes send to. It has either Endpoints or DNS.
type Service struct {
	Entry
	Endpoints []Endpoint
	DNS       *Endpoint // a host name that Envoy resolves
}

// Endpoint is one address of a service.
type Endpoint struct {
	Host string // an IP address, or a host name for DNS
	Port uint32
	Pos  Pos
}

// Route is a route as written.
type Route struct {
	Entry
	Hostnames []string // lower case; "*" for any, "*.example.com" for what is below
	Match     Match
	Backends  []Backend // weights above 0 only, sorted by name; empty when the route answers by itself
	Gateways  []string  // names; all of one when the policy has only one
}

// Backend is one of the services that a route sends to.
type Backend struct {
	Service *Service
	Weight  uint32
	Pos     Pos
}

// BoundRoute is a route at one gateway: with the settings of all layers merged.
type BoundRoute struct {
	*Route
	Gateway  *Gateway
	Settings Settings // merged; shadows the written Route.Settings

	broken []string // keys that have no setting because what is written can't be read
}

// Broken tells whether something under key could not be read: the route is without a setting that it was meant to have.
// No route of a whole policy has one; checks ask.
func (r *BoundRoute) Broken(key string) bool { return slices.Contains(r.broken, key) }

// Match is the conditions of a route; all must hold.
type Match struct {
	Path    PathMatch
	Methods []string // upper case; empty for any
	Headers []ValueMatch
	Query   []ValueMatch
}

// PathKind is the way a path is compared.
type PathKind uint8

// The ways to compare a path.
const (
	PathPrefix PathKind = iota // on segment borders: /a matches /a and /a/b, not /ab
	PathExact
	PathRegex // RE2, the whole path
)

// PathMatch compares the path, without the query.
type PathMatch struct {
	Kind  PathKind
	Value string
}

// ValueMatch compares one header or query parameter.
type ValueMatch struct {
	Name    string // header names in lower case
	Exact   string
	Regex   string // RE2, the whole value; else Exact holds
	Present *bool  // else only whether it is there
	Pos     Pos
}

// Auth is a way to tell who calls: an entry of the section auth.
type Auth struct{ Entry }

// Consumer is somebody who calls, whose identities are listed.
type Consumer struct{ Entry }

// Layer is the place that a setting was written in: its kind and the entry's name.
type Layer struct {
	Place Place
	Name  string
}

// String gives "gateway/edge", "service/orders" or "route/orders".
func (l Layer) String() string {
	switch l.Place {
	case InDefaults, InGateway, InListener:
		return "gateway/" + l.Name
	case InService:
		return "service/" + l.Name
	case InAuth:
		return "auth/" + l.Name
	case InConsumer:
		return "consumer/" + l.Name
	default:
		return "route/" + l.Name
	}
}

// Set is one setting in its place.
type Set struct {
	Kind    *Kind
	Setting Setting
	Node    *Node // what was written; merged settings keep the place of each leaf
	Layer   Layer // of a stacked setting, the layer that wrote it; of a merged one, the nearest
}

// Pos is where the setting stands.
func (s Set) Pos() Pos { return s.Node.Pos }

// Settings is the settings of one entry, sorted by key; those of a stacked key from the outermost layer inwards.
type Settings []Set

// All yields every setting under key.
func (s Settings) All(key string) iter.Seq[Set] {
	return func(yield func(Set) bool) {
		for _, set := range s {
			if set.Kind.Key == key && !yield(set) {
				return
			}
		}
	}
}

// Has tells whether there is a setting under key.
func (s Settings) Has(key string) bool {
	for range s.All(key) {
		return true
	}
	return false
}

// Each yields the settings that are a T, a type or an interface.
func Each[T any](s Settings) iter.Seq2[Set, T] {
	return func(yield func(Set, T) bool) {
		for _, set := range s {
			if t, ok := set.Setting.(T); ok && !yield(set, t) {
				return
			}
		}
	}
}

// Find returns the first setting that is a T.
func Find[T any](s Settings) (T, bool) {
	for _, t := range Each[T](s) {
		return t, true
	}
	var none T
	return none, false
}
