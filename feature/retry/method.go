package retry

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/policy"
)

// Method is an HTTP method in upper case, or * for all.
type Method string

// DecodePolicy reads a method.
func (m *Method) DecodePolicy(d *policy.Decode, n *policy.Node) {
	upper := strings.ToUpper(n.Text)
	switch {
	case n.Kind != policy.Scalar || !policy.IsToken(n.Text):
		d.Errorf(n, "want a method such as GET, or \"*\" for all")
	case upper != n.Text:
		d.Errorf(n, "methods are written in upper case").Hintf("write %s", upper)
	default:
		*m = Method(n.Text)
	}
}

// PolicySchema describes a method.
func (*Method) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": "^[A-Z0-9!#$%&'*+.^_`|~-]+$"}
}

// idempotent is the methods that do the same when a request is carried out twice (RFC 9110, 9.2.2), but TRACE, which
// no listener takes.
var idempotent = []Method{"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}

const all = Method("*")

// methods is those that are tried again; nil for all. Where nothing is said and the backend may have carried out the
// request, a POST is not sent again: an order might be placed twice. gRPC, where all is POST, has its own conditions:
// whoever writes one of them means its calls.
func (s *Setting) methods() []Method {
	switch {
	case slices.Contains(s.Methods, all):
		return nil
	case len(s.Methods) > 0:
		return s.Methods
	case slices.ContainsFunc(s.RetryOn, Condition.seen):
		return idempotent
	default:
		return nil
	}
}

// seen tells whether the backend may have carried out a request of which no gRPC status says how it went.
func (r Condition) seen() bool {
	return !slices.Contains(unseen, r.Name) && !slices.Contains(statuses, r.Name)
}

func (s *Setting) checkMethods(c *policy.Check) {
	switch {
	case s.Methods != nil && len(s.Methods) == 0:
		c.Errorf("methods", "name at least one method").Hintf("write `retry: off` for no retries")
	case slices.Contains(s.Methods, all) && len(s.Methods) > 1:
		c.Errorf("methods", `"*" means all methods`).Hintf("leave out the others")
	}
}

// checkReach warns of a route that says what to retry on, but none of whose requests are tried again.
func (s *Setting) checkReach(c *policy.Check) {
	methods, route := s.methods(), c.Route()
	asked := route.Match.Methods
	if route.Match.GRPC {
		asked = []string{"POST"}
	}
	reached := slices.ContainsFunc(asked, func(m string) bool { return slices.Contains(methods, Method(m)) })
	grpc := slices.ContainsFunc(s.RetryOn, func(r Condition) bool { return slices.Contains(statuses, r.Name) })
	switch {
	case methods == nil || reached || !saysItself(route):
	case len(asked) > 0:
		c.Warnf("retryOn", "nothing is tried again: the route takes %s, and retries are for %s",
			strings.Join(asked, ", "), join(methods)).Hintf(`write methods: ["*"] if a request may be carried out twice`)
	case grpc && !slices.Contains(methods, "POST"):
		c.Warnf("retryOn", "calls of gRPC are not tried again: they are POST, and retries are for %s", join(methods)).
			Hintf(`write methods: [POST] if a call may be carried out twice, or only gRPC's conditions`)
	}
}

// saysItself tells whether retryOn stands in the route and not in a layer around it, which knows nothing of its methods.
func saysItself(route *policy.BoundRoute) bool {
	for set := range route.Route.Settings.All("retry") {
		return set.Node.Get("retryOn") != nil
	}
	return false
}

func join(methods []Method) string {
	var text []string
	for _, m := range methods {
		text = append(text, string(m))
	}
	return strings.Join(text, ", ")
}

// retriableRequests is the methods as Envoy wants them: one of the matches is enough.
func (s *Setting) retriableRequests() []*routev3.HeaderMatcher {
	var matches []*routev3.HeaderMatcher
	for _, m := range s.methods() {
		matches = append(matches, &routev3.HeaderMatcher{
			Name: ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Exact{Exact: string(m)},
			}},
		})
	}
	return matches
}
