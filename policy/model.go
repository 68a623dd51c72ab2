package policy

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Model is a whole policy, decoded, checked and resolved. It is immutable. Every list is sorted by name, but routes
// below a gateway, which stand in order of precedence. What the section sidecars expands to stands among the gateways,
// services and routes, under names that nobody can write: they have a slash.
type Model struct {
	Revision string // content hash of the files
	Common
	Services []*Service
	Routes   []*Route
	Bound    map[*Gateway][]*BoundRoute // the routes of each gateway, in order of precedence within a hostname
	Secrets  []*Secret                  // those that the settings refer to, by kind and name
	Files    []string                   // names of those beside the policy files that it refers to
}

// Common is what all routes and services of a policy have around them.
type Common struct {
	Gateways  []*Gateway
	Auth      []*Auth
	Consumers []*Consumer
	Plans     []*Plan
	Domains   []*Domain // of the section rateLimits
}

// Entry is what all named things have in common.
type Entry struct {
	Name     string
	Pos      Pos // of the name
	Settings Settings
	Node     *Node // what was written, whole; nil for what the section sidecars expands to
}

// Gateway is a node group: the Envoys whose node.cluster is its name.
type Gateway struct {
	Entry
	Sidecar   bool  // an entry of the section sidecars
	Mesh      *Mesh // nil for a gateway that can't call services with a sidecar
	Listeners []*Listener
	Defaults  Settings // as written; merged into those of the routes
}

// Mesh is how a gateway or a sidecar proves to sidecars who it is, and whom it believes.
type Mesh struct {
	Certificate string    // the secret; it names the gateway or sidecar
	CA          Authority // that signs the certificates of all of them
}

// Listener is one port of a gateway.
type Listener struct {
	Entry
	Address      string // default 0.0.0.0
	Port         uint32
	Protocol     Protocol
	PerHost      bool          // routeTables: perHost
	Certificates []Certificate // of HTTPS, and of TLS that ends here; TLS without any is passed through
	// RedirectPort is the port of https:// that a listener of HTTP sends clients to, but for the routes that name the
	// listener; 0 for none.
	RedirectPort uint32
	// Trusted listeners are those of sidecars: callers may say who somebody is and where a request has come from.
	Trusted bool
	// Peers are the gateways and sidecars that may connect, each with a certificate of its name; sorted. Only the inbound
	// listener of a sidecar has any.
	Peers []string
}

// Protocol is what a listener speaks.
type Protocol string

// The protocols of listeners, as Gateway API names them.
const (
	HTTP  Protocol = "HTTP"  // HTTP/1.1, and HTTP/2 with prior knowledge
	HTTPS Protocol = "HTTPS" // HTTP/1.1 or HTTP/2 over TLS that ends here
	TCP   Protocol = "TCP"   // bytes, to one route
	TLS   Protocol = "TLS"   // by SNI: passed through, or bytes of TLS that ends here
)

// HTTP tells whether requests are told apart on the listener; else it knows connections only.
func (l *Listener) HTTP() bool { return l.Protocol == HTTP || l.Protocol == HTTPS }

// Certificate is one of the certificates of a listener.
type Certificate struct {
	Hostname string // SNI: a name or *.name; empty for clients that send none of the others
	Secret   string
	Pos      Pos
}

// Service is a set of endpoints that routes send to. It has either Endpoints, maybe read from a file, or DNS.
type Service struct {
	Entry
	Endpoints []Endpoint
	DNS       *DNS     // a host name that Envoy resolves
	Sidecar   *Gateway // the sidecar that takes its calls; nil without one
	AppOf     *Service // of an app behind a sidecar, the service that it is; else nil
}

// Takes tells whether the service may be called from a gateway or a sidecar.
func (s *Service) Takes(g *Gateway) bool {
	if s.Sidecar == nil {
		return true
	}
	return slices.ContainsFunc(s.Sidecar.Listeners, func(l *Listener) bool {
		_, found := slices.BinarySearch(l.Peers, g.Name)
		return found
	})
}

// Endpoint is one address of a service.
type Endpoint struct {
	Host     string // an IP address, or a host name for DNS
	Port     uint32
	Weight   uint32 // among the endpoints of its zone; default 1
	Zone     string // empty where none is written
	Priority uint32 // 0 is asked first
	Pos      Pos
}

// DNS is a name that Envoy resolves, again and again.
type DNS struct {
	Endpoint
	Logical bool          // one address at a time, as large services want it; else each address is an endpoint
	Refresh time.Duration // 0: as long as the answer says it lives, at least 5 s
}

// Route is a route as written.
type Route struct {
	Entry
	Hostnames []string // lower case; "*" for any, "*.example.com" for what is below
	Match     Match
	Backends  []Backend // weights above 0 only, sorted by name; empty when the route answers by itself
	Gateways  []string  // names; all of one when the policy has only one
	Listeners []string  // names; empty for all listeners of HTTP and HTTPS that do not redirect
	// Layer4 tells that its listeners speak TCP or TLS: Hostnames are SNI ("*" on TCP), and there is no Match.
	Layer4 bool
}

// On tells whether a listener of one of the route's gateways serves the route.
func (r *Route) On(l *Listener) bool {
	if len(r.Listeners) > 0 {
		return slices.Contains(r.Listeners, l.Name)
	}
	return l.HTTP() && l.RedirectPort == 0
}

// Meets tells whether the two routes of a gateway stand on a listener together.
func (r *BoundRoute) Meets(o *BoundRoute) bool {
	if len(r.Listeners) == 0 {
		r, o = o, r
	}
	if len(r.Listeners) == 0 {
		return true
	}
	byName := func(l *Listener, name string) int { return strings.Compare(l.Name, name) }
	return slices.ContainsFunc(r.Listeners, func(name string) bool {
		i, found := slices.BinarySearchFunc(r.Gateway.Listeners, name, byName)
		return found && o.On(r.Gateway.Listeners[i])
	})
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
	Source  []netip.Prefix // the client's address is in one of them; empty for any
	GRPC    bool           // written as a gRPC service or method, which stands in Path
}

// PathKind is the way a path is compared.
type PathKind uint8

// The ways to compare a path.
const (
	PathPrefix PathKind = iota // on segment borders: /a matches /a and /a/b, not /ab
	PathExact
	PathRegex    // RE2, the whole path
	PathTemplate // Envoy's URI template: /users/{id} and /files/{rest=**}; the named parts can be used by rewrite
)

// PathMatch compares the path, without the query.
type PathMatch struct {
	Kind       PathKind
	Value      string
	IgnoreCase bool // not for a regex, which can say (?i)
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

// Plan is what a consumer may use: rate, burst and quota.
type Plan struct{ Entry }

// Domain is the limits that Envoys which others configure may ask for; they name the domain.
type Domain struct{ Entry }

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
	case InPlan:
		return "plan/" + l.Name
	case InDomain:
		return "rateLimits/" + l.Name
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
