// Package auth is the key auth: which ways to tell who calls (entries of the section auth) a route accepts. envoy asks
// it for the callout to the companion, control for the table that the companion decides by ([Table]): both are made of
// the same [auth.Rule].
package auth

import (
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

//go:embed doc.md
var doc string

// Kind is the key auth.
var Kind = policy.Define[Setting]("auth", policy.Layers, doc).Layer4()

// maxEntries is how many ways to tell who calls one route may accept.
const maxEntries = 64

// none is the word for a route that anyone may call.
const none = "none"

// Setting is what stands under auth: the entries of which any one is enough, or all are needed, or the word none.
type Setting struct {
	None bool
	Of   []string
	All  bool   // of them
	form string // the key that the list stands under: any, all, or none
}

// DecodePolicy reads a list of entries, {any: …}, {all: …}, or none.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	switch {
	case n.Kind == policy.List:
		d.Decode(n, &s.Of)
	case n.Kind == policy.Map:
		s.decodeForm(d, n)
	case n.Kind == policy.Scalar && n.Text == none:
		s.None = true
	case n.Kind == policy.Scalar && n.Text != "":
		d.Errorf(n, "want a list of auth entries or the word none, got %q", n.Text).Hintf("write [%s]", n.Text)
	default:
		d.Errorf(n, "want a list of auth entries, {all: […]} or the word none").Hintf("write auth: [idp], or auth: none")
	}
}

// decodeForm reads {any: …} or {all: …}.
func (s *Setting) decodeForm(d *policy.Decode, n *policy.Node) {
	var doc struct {
		Any *[]string `policy:"any"`
		All *[]string `policy:"all"`
	}
	if !d.Decode(n, &doc) {
		return
	}
	switch {
	case (doc.Any == nil) == (doc.All == nil):
		d.Errorf(n, "want one of any and all").Hintf("write auth: {all: [office, idp]} where callers have to satisfy both")
	case doc.Any != nil:
		s.Of, s.form = *doc.Any, "any"
	default:
		s.Of, s.form, s.All = *doc.All, "all", true
	}
}

// Whole says that a nearer layer's list replaces the outer one.
func (*Setting) Whole() {}

// PolicySchema describes all forms.
func (*Setting) PolicySchema(*policy.Schemas) map[string]any {
	list := map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": map[string]any{"type": "string"}}
	return map[string]any{"oneOf": []any{map[string]any{"const": none}, list, policy.OnlyKey("any", list), policy.OnlyKey("all", list)}}
}

// Check holds the list against the entries that there are, and the merged one against the routes around.
func (s *Setting) Check(c *policy.Check) {
	if s.None {
		return
	}
	if r := c.Route(); r != nil && r.Layer4 {
		c.Errorf("", "nobody can be asked who they are on the connections of the route %q, whose listeners speak TCP or TLS", r.Name).
			Hintf("write auth: none in the route if anyone may connect")
		return
	}
	if len(s.Of) == 0 {
		c.Errorf("", "name at least one auth entry").Hintf("write auth: none for a route that anyone may call")
	}
	if len(s.Of) > maxEntries {
		c.Errorf("", "%d auth entries, more than %d", len(s.Of), maxEntries).Hintf("give callers of so many sorts routes of their own")
		return
	}
	for i, name := range s.Of {
		at := fmt.Sprintf("%s[%d]", s.form, i)
		switch {
		case name == none:
			c.Errorf(at, "none stands alone, not in a list").Hintf("write auth: none for a route that anyone may call")
		case slices.Contains(s.Of[:i], name):
			c.Errorf(at, "the auth entry %q stands here twice", name).Hintf("remove one of the two")
		case c.Ref(at, "auth", name):
			s.checkEntry(c, at, name)
		}
	}
	s.warnReach(c)
	s.warnLost(c)
	s.warnPlacement(c)
}

// KnowsCaller tells whether requests that pass have a consumer and claims, for limits to count by.
func (s *Setting) KnowsCaller() bool { return !s.None }

// Entries names the auth entries that a caller is known by; none where anyone may call.
func (s *Setting) Entries() []string { return s.Of }

// String is the setting as a policy writes it.
func (s *Setting) String() string {
	if s.None {
		return none
	}
	list := "[" + strings.Join(s.Of, ", ") + "]"
	if s.All {
		return "{all: " + list + "}"
	}
	return list
}

const (
	filter = "legation.auth"
	// timeout lies above the companion's slowest answer, 50 ms, and what a busy machine adds.
	timeout = 200 * time.Millisecond
)

// Filters puts the callout into every chain, switched on: a route that nobody thought of is closed.
func (*Setting) Filters(c envoy.ListenerContext) []envoy.Filter {
	asks := callout(c.Listener)
	asks.FilterEnabledMetadata = unverified(c.Model)
	return []envoy.Filter{{Name: filter, Phase: envoy.Identity, Config: asks, Enabled: true}}
}

// Route names the rule of the route, or switches the callout off.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	if s.None {
		return s.RouteWithout(c)
	}
	p := parts(perRoute(s.rule(&c.Model.Common, c.Route), s.takes(c.Model)))
	maps.Copy(p.Filters, s.verifyFilters(c.Model, c.Route))
	return p
}

// RouteWithout switches the callout off where no layer asks for auth.
func (*Setting) RouteWithout(envoy.RouteContext) envoy.RouteParts { return parts(envoy.Off) }

func parts(m proto.Message) envoy.RouteParts {
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: m}}
}

func callout(l *policy.Listener) *extauthzv3.ExtAuthz {
	return &extauthzv3.ExtAuthz{
		Services:            &extauthzv3.ExtAuthz_GrpcService{GrpcService: companion(timeout)},
		TransportApiVersion: corev3.ApiVersion_V3,
		FailureModeAllow:    false,
		// Tells an outage from a denial, which by default are both 403.
		StatusOnError: &typev3.HttpStatus{Code: typev3.StatusCode(http.StatusServiceUnavailable)},
		// A header of ours must never move the request to another route, whose own auth was not asked.
		ClearRouteCache:   false,
		ValidateMutations: true,
		// Known of the listener alone, so that the first entry that goes by certificates changes no listener.
		IncludePeerCertificate: l != nil && verifiesClients(l),
	}
}

// taker is a setting of an auth entry that may take longer than others to judge a request.
type taker interface{ Takes() time.Duration }

// takes is how long the callout may take.
func (s *Setting) takes(m *policy.Model) time.Duration {
	longest := timeout
	for _, a := range m.Auth {
		if t, ok := policy.Find[taker](a.Settings); ok && slices.Contains(s.Of, a.Name) {
			longest = max(longest, t.Takes())
		}
	}
	return longest
}

func companion(timeout time.Duration) *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: envoy.Companion},
		},
		Timeout: durationpb.New(timeout),
	}
}

func perRoute(r auth.Rule, takes time.Duration) *extauthzv3.ExtAuthzPerRoute {
	settings := &extauthzv3.CheckSettings{ContextExtensions: map[string]string{auth.RuleExtension: r.ID()}}
	if takes != timeout {
		settings.ServiceOverride = &extauthzv3.CheckSettings_GrpcService{GrpcService: companion(takes)}
	}
	return &extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: settings}}
}
