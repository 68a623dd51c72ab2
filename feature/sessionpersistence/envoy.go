package sessionpersistence

import (
	"cmp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

const filter = "legation.session_persistence"

// Filters puts the filter that reads and writes sessions behind auth and limits.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Transform, Config: &filterv3.StatefulSession{}}}
}

// Route tells the filter where the session of the route is kept.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	config := &filterv3.StatefulSessionPerRoute{Override: &filterv3.StatefulSessionPerRoute_StatefulSession{
		StatefulSession: &filterv3.StatefulSession{SessionState: s.state(c.Route), Strict: s.Strict},
	}}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: config}}
}

// state is named as Envoy names its extensions: it looks them up by name.
func (s *Setting) state(r *policy.BoundRoute) *corev3.TypedExtensionConfig {
	if s.Cookie == nil {
		return envoy.Extension("envoy.http.stateful_session.header", &headerv3.HeaderBasedSessionState{Name: string(s.Header)})
	}
	return envoy.Extension("envoy.http.stateful_session.cookie", &cookiev3.CookieBasedSessionState{Cookie: s.Cookie.given(overTLS(r))})
}

// given is the cookie as clients get it. Envoy adds HttpOnly itself.
func (k *Cookie) given(secure bool) *httpv3.Cookie {
	cookie := &httpv3.Cookie{
		Name:       k.Name,
		Path:       cmp.Or(k.Path, "/"),
		Ttl:        envoy.Duration(k.TTL),
		Attributes: []*httpv3.CookieAttribute{{Name: "SameSite", Value: "Lax"}},
	}
	if secure {
		cookie.Attributes = append(cookie.Attributes, &httpv3.CookieAttribute{Name: "Secure"})
	}
	return cookie
}

// overTLS tells whether the route is served over TLS only: browsers take no Secure cookie otherwise.
func overTLS(r *policy.BoundRoute) bool {
	for _, l := range r.Gateway.Listeners {
		if r.On(l) && l.Protocol != policy.HTTPS {
			return false
		}
	}
	return true
}
