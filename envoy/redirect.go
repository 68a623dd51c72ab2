package envoy

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// redirects is the routes that send everybody to the listener of https:// at a port. No filter has any say but those that
// refuse what nothing may see: neither auth nor limits are asked about a request that is to come again.
func redirects(port uint32, filters []Filter) []*routev3.Route {
	route := func(name string, code routev3.RedirectAction_RedirectResponseCode, methods ...string) *routev3.Route {
		match := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
		if len(methods) > 0 {
			match.Headers = []*routev3.HeaderMatcher{methodMatch(methods)}
		}
		to := &routev3.RedirectAction{
			SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true},
			ResponseCode:           code,
		}
		if port != 443 {
			to.PortRedirect = port
		}
		return &routev3.Route{
			Name: name, Match: match, Action: &routev3.Route_Redirect{Redirect: to},
			TypedPerFilterConfig: switchedOff(filters, Guard+1),
		}
	}
	return []*routev3.Route{
		route("legation.https", routev3.RedirectAction_MOVED_PERMANENTLY, "GET", "HEAD"),
		route("legation.https.method", routev3.RedirectAction_PERMANENT_REDIRECT), // the method and the body are kept
	}
}

// withAnyHost adds a virtual host for the hosts that have none, with nothing in it but the frame.
func withAnyHost(hosts []*routev3.VirtualHost, f frame) []*routev3.VirtualHost {
	if slices.ContainsFunc(hosts, func(h *routev3.VirtualHost) bool { return h.Name == "*" }) {
		return hosts
	}
	return slices.Insert(hosts, 0, &routev3.VirtualHost{Name: "*", Domains: []string{"*"}, Routes: f.around(nil)})
}
