package explain

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Question is a request that somebody asks about.
type Question struct {
	Method   string
	URL      string
	Headers  []Header   // as a client sends them; one named host takes the place of the URL's
	From     netip.Addr // the address that connects; the zero one where it is not known
	Gateway  string     // "" for whichever has a listener that fits
	Listener string
}

// Explanation is what becomes of a request.
type Explanation struct {
	Gateway  string     `json:"gateway"`
	Listener string     `json:"listener"`
	At       policy.Pos `json:"at"` // of the listener
	// Method, Host and Path are the request as routes see it, in normal form.
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`

	VirtualHost string   `json:"virtualHost,omitempty"` // the hostname that owns the request
	Answer      Answer   `json:"answer"`
	Route       *Place   `json:"route,omitempty"`
	Because     []string `json:"because,omitempty"` // the conditions that the request meets
	Others      []Other  `json:"others"`            // the nearest routes that do not answer
	Facts       []Told   `json:"facts"`
	// Calls is how many calls to the companion the request costs: before it is sent on, and after the answer.
	Calls      Calls    `json:"calls"`
	Filters    []string `json:"filters,omitempty"` // Envoy's, that act on the route, in their order
	Undecided  []string `json:"undecided,omitempty"`
	OnlyHTTP2  string   `json:"onlyHTTP2,omitempty"` // why Envoy answers 400 over HTTP/1.1 instead
	Hostnames  []string `json:"hostnames,omitempty"` // where none owns the request: those that there are, the nearest first
	Normalized bool     `json:"normalized"`          // whether host or path were written in another way
}

// Answer is who answers.
type Answer struct {
	By     By     `json:"by"`
	Status int    `json:"status,omitempty"` // where it is not a backend's
	Why    string `json:"why,omitempty"`
	Filter string `json:"filter,omitempty"` // the one that refuses
}

// By is who answers a request.
type By string

// Those who answer.
const (
	Backend   By = "backend"   // of the route
	Itself    By = "route"     // the route, without a backend
	Preflight By = "preflight" // cors, for the route
	Door      By = "door"      // Envoy refuses the request
	Redirect  By = "redirect"  // the listener, to https://
	Nobody    By = "nobody"    // no route: 404
)

// Place is an entry of the policy.
type Place struct {
	Name string     `json:"name"`
	At   policy.Pos `json:"at"`
}

// Other is a route that does not answer.
type Other struct {
	Place
	Why string `json:"why"`
}

// Told is a fact as JSON has it.
type Told struct {
	Topic string       `json:"topic"`
	Text  string       `json:"text"`
	At    []policy.Pos `json:"at,omitempty"`
}

// Calls is calls to the companion.
type Calls struct {
	Before int `json:"before"`
	After  int `json:"after"`
	// Spared tells that there is none before where Envoy has verified the caller's token itself (verify: envoy).
	Spared bool `json:"spared,omitempty"`
}

// Explain answers a question about a policy that is good. The error is an [*Unclear] or tells what is no request.
func (p Policy) Explain(q Question) (*Explanation, error) {
	if q.Method == "" {
		q.Method = http.MethodGet
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	u, err := parseURL(q.URL)
	if err != nil {
		return nil, err
	}
	d, err := p.open(q, u)
	if err != nil {
		return nil, err
	}
	d.prepare()
	return d.explain(q, u), nil
}

// onlyHTTP2 tells why a request is answered with 400 over HTTP/1.1, whatever it is over HTTP/2; empty where it is not.
func onlyHTTP2(method, path string) string {
	switch {
	case !slices.Contains(methodsOfHTTP1, method):
		return "the method " + method + " is not known there"
	case strings.ContainsFunc(path, func(r rune) bool { return r > '~' }):
		return "the URL has characters that are not ASCII and not escaped"
	}
	return ""
}

// methodsOfHTTP1 are those that Envoy takes over HTTP/1.1. Over HTTP/2 it takes any word.
var methodsOfHTTP1 = strings.Fields(`ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY
	OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE`)

func (d *door) explain(q Question, u target) *Explanation {
	r := q.request(u)
	e := &Explanation{
		Gateway: d.gateway.Name, Listener: d.listener.Name, At: d.listener.Pos,
		Method: r.Method, Host: r.Host, Path: r.Path, Others: []Other{}, Facts: []Told{},
	}
	name := ""
	if d.listener.Protocol == policy.HTTPS {
		name = serverName(u)
	}
	manager, why := d.manager(name, q.From)
	if manager == nil {
		e.Answer = Answer{By: Door, Why: why}
		return e
	}
	a, refusal := normal(manager, r, q.headers())
	if refusal != nil {
		e.refuse(refusal)
		return e
	}
	e.Normalized = a.Path != r.Path || a.Host != withoutPort(r.Host)
	e.Host, e.Path = a.Host, a.Path
	d.decide(e, manager, a, name)
	if e.Answer.Status != http.StatusBadRequest {
		e.OnlyHTTP2 = onlyHTTP2(q.Method, u.path)
	}
	return e
}

// decide tells who answers a request in its normal form, and what happens until then.
func (d *door) decide(e *Explanation, manager *hcmv3.HttpConnectionManager, a *asked, serverName string) {
	f := d.look(manager, a)
	e.Undecided = f.unsure
	if f.host != nil {
		e.VirtualHost = f.host.Domains[0]
	}
	chain, unsure := filters(manager, f.route), ""
	refusal := upgraded(manager, f.route, a)
	if refusal == nil {
		refusal, unsure = d.refused(chain, a, serverName)
	}
	if unsure != "" {
		e.Undecided = append(e.Undecided, unsure)
	}
	d.answer(e, f, refusal)
	if e.Answer.By == Backend && preflight(chain, f.route, a) {
		e.Answer = Answer{By: Preflight, Status: 200}
	}
	d.others(e, f, a)
	if e.Route == nil {
		return
	}
	if e.Answer.By == Backend || e.Answer.By == Itself {
		e.Filters, e.Calls = names(chain), calls(chain)
	}
	d.facts(e, f, a)
}

func (e *Explanation) refuse(r *Refusal) {
	e.Answer = Answer{By: Door, Status: r.Status, Why: r.Why, Filter: r.By}
}

// answer tells who answers, and by which route of the policy.
func (d *door) answer(e *Explanation, f found, refusal *Refusal) {
	bound := d.bound(f.route)
	if bound != nil {
		e.Route = &Place{bound.Name, bound.Pos}
		e.Because = because(bound, f)
	}
	switch {
	case refusal != nil:
		e.refuse(refusal)
	case f.host == nil:
		e.Answer = Answer{By: Nobody, Status: 404, Why: "no route is for the host " + e.Host}
	case f.route == nil:
		e.Answer = Answer{By: Nobody, Status: 404, Why: "no route of the host " + e.VirtualHost + " takes the request"}
	case bound == nil && f.route.GetRedirect() == nil:
		e.Answer = Answer{By: Door, Status: 405, Filter: "the listener", Why: "TRACE echoes back what a request carries"}
	case bound == nil:
		e.Answer = Answer{By: Redirect, Status: redirectStatus(f.route), Why: "the listener sends its clients to https://"}
	case f.route.GetRoute() != nil:
		e.Answer = Answer{By: Backend}
	default:
		e.Answer = Answer{By: Itself, Status: int(f.route.GetDirectResponse().GetStatus()) + redirectStatus(f.route)}
	}
}

// redirectStatus is the status of a redirect, 0 for other routes.
func redirectStatus(r *routev3.Route) int {
	if r.GetRedirect() == nil {
		return 0
	}
	return map[routev3.RedirectAction_RedirectResponseCode]int{
		routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
		routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
	}[r.GetRedirect().ResponseCode]
}

// bound is the policy's route that a route was made of; nil for those that every listener has.
func (d *door) bound(r *routev3.Route) *policy.BoundRoute {
	if r.GetMetadata().GetFilterMetadata()[envoy.Metadata] == nil {
		return nil
	}
	return d.byName[r.Name]
}

func names(chain []acting) []string {
	var all []string
	for _, f := range chain {
		all = append(all, f.Name)
	}
	return all
}

// context is what settings see of the request.
func (d *door) context(bound *policy.BoundRoute, f found, a *asked) envoy.ExplainContext {
	return envoy.ExplainContext{
		RouteContext: envoy.RouteContext{Model: d.policy.Model, Route: bound},
		Request:      a.Request, Served: f.route,
	}
}
