package envoy

import (
	"net/netip"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
)

// Request is a request as the routes of a listener see it: Envoy has brought its host and its path into their normal
// form, and taken away the headers that clients must not send.
type Request struct {
	Scheme string // http or https
	Method string
	Host   string     // without a port
	Path   string     // with the query
	Client netip.Addr // the zero one where it is not known
	// Headers are the values by name, in lower case, one for each line. Of the headers that Envoy knows by name there is one,
	// which it has made of all lines.
	Headers map[string][]string
}

// Fact is one thing that becomes of a request, told to people.
type Fact struct {
	Stage Stage
	Topic string       // one word, mostly the key of the policy that it is about
	Text  string       // one line
	At    []policy.Pos // where it is written; none for what holds where nothing is
}

// Stage is when on the way of a request something happens. Facts are told in this order.
type Stage uint8

// The stages.
const (
	AtDoor    Stage = iota // what refuses requests before anybody is asked who they are
	WhoCalls               // auth
	HowOften               // limits
	Changed                // what becomes of the request before it is sent on
	SentOn                 // where it goes, and how long and how often it is tried
	Connected              // what holds for the service that it goes to
	Answered               // what becomes of the answer
)

// Explainer is a setting with something to tell people about a request: one of the settings of the route that answers,
// or of a service that it sends to.
type Explainer interface {
	Explain(c ExplainContext) []Fact
}

// AbsentExplainer is a kind of setting that has something to tell where nobody has written it, too. It is asked on the zero
// setting of the kind: of kinds that routes have for the route, of others for each service that the route sends to.
type AbsentExplainer interface {
	ExplainWithout(c ExplainContext) []Fact
}

// ExplainContext is what they see.
type ExplainContext struct {
	RouteContext
	Request Request
	Served  *routev3.Route  // the route as Envoy has it
	Set     policy.Set      // the setting in its place; empty where nobody has written it
	Service *policy.Service // whose setting it is; nil for a route's
}

// Fact is one about the setting itself, where it is written, or about some of its keys, where these are.
func (c ExplainContext) Fact(stage Stage, text string, keys ...string) Fact {
	f := Fact{Stage: stage, Topic: c.Set.Kind.Key, Text: text}
	for _, key := range keys {
		f.At = append(f.At, c.Set.Node.Get(key).Places()...)
	}
	if len(keys) == 0 {
		f.At = c.Set.Node.Places()
	}
	return f
}
