package envoy

import (
	"maps"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/policy"
)

// spoofable is request headers that some backends take for the host, the path, the method or the client of the
// request. Envoy neither sets nor checks them, so whatever a client sends would be believed.
var spoofable = []string{
	"cf-connecting-ip",
	"forwarded",
	"front-end-https",
	"proxy", // becomes HTTP_PROXY to CGI
	"remote-user",
	"true-client-ip",
	"x-client-ip",
	"x-cluster-client-ip",
	"x-forwarded",
	"x-host",
	"x-http-method",
	"x-http-method-override",
	"x-http-path-override",
	"x-method-override",
	"x-real-ip",
	"x-remote-user",
	"x-rewrite-url",
}

// spoofableFamilies is prefixes of such headers. One prefix costs Envoy less than two names.
var spoofableFamilies = []string{
	"x-envoy-",     // Envoy adds its own later
	"x-forwarded-", // so it does -for, with the address of the peer, and -proto
	"x-legation-",  // ours, such as who the client's certificate is for; a policy may match it on any listener
	"x-original-",
}

// spoofableForwarded stands for the family x-forwarded- behind a trusted proxy, whose -for and -proto are kept.
var spoofableForwarded = []string{
	"x-forwarded-host",
	"x-forwarded-method",
	"x-forwarded-path",
	"x-forwarded-port",
	"x-forwarded-prefix",
	"x-forwarded-scheme",
	"x-forwarded-server",
	"x-forwarded-ssl",
	"x-forwarded-uri",
	"x-forwarded-user",
}

// backendHeaders is response headers of backends that must not reach clients: they tell what runs there, or steer
// the Envoy in front.
var backendHeaders = []string{
	"server",
	"x-envoy-degraded",
	"x-envoy-immediate-health-check-fail",
	"x-powered-by",
}

// stripped is the request headers that only we may set, by the settings anywhere in the model.
func stripped(m *policy.Model, kinds []*policy.Kind) []string {
	names := make(map[string]bool)
	for _, settings := range settingsAt(m, placesOf[Stripper](kinds)) {
		for _, s := range policy.Each[Stripper](settings) {
			for _, name := range s.StripHeaders() {
				names[strings.ToLower(name)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// settingsAt is all settings of a model, as written and merged, but for those of entries that no kind of these places may
// stand in: routes and consumers are many.
func settingsAt(m *policy.Model, places policy.Place) []policy.Settings {
	var all []policy.Settings
	for _, g := range m.Gateways {
		all = append(all, g.Settings, g.Defaults)
		for _, l := range g.Listeners {
			all = append(all, l.Settings)
		}
	}
	for _, a := range m.Auth {
		all = append(all, a.Settings)
	}
	if places&policy.InConsumer != 0 {
		for _, c := range m.Consumers {
			all = append(all, c.Settings)
		}
	}
	if places&policy.Layers == 0 {
		return all
	}
	for _, g := range m.Gateways {
		for _, r := range m.Bound[g] {
			all = append(all, r.Settings)
		}
	}
	for _, s := range m.Services {
		all = append(all, s.Settings)
	}
	for _, r := range m.Routes {
		all = append(all, r.Settings)
	}
	return all
}

// earlyMutations removes headers before anything looks at the request: the route's own removal would come after auth,
// and take away what auth has set. Envoy adds the peer's address to x-forwarded-for, where backends read the first:
// what stands there before is kept only from proxies that are trusted.
func earlyMutations(strip []string, trusted bool) *earlyv3.HeaderMutation {
	early := new(earlyv3.HeaderMutation)
	names := slices.Concat(spoofable, strip)
	for _, prefix := range spoofableFamilies {
		if trusted && prefix == "x-forwarded-" {
			names = append(names, spoofableForwarded...)
			continue
		}
		early.Mutations = append(early.Mutations, removePrefix(prefix))
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		early.Mutations = append(early.Mutations, remove(name))
	}
	return early
}

// trustedMutations is what is removed on the listeners of sidecars: what steers Envoy itself. All the rest was taken from
// strangers where they came in, and says who somebody is and where a request comes from.
func trustedMutations() *earlyv3.HeaderMutation {
	return &earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{removePrefix("x-envoy-")}}
}

func earlyExtension(early *earlyv3.HeaderMutation) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: Pack(early),
	}
}

func remove(name string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}}
}

func removePrefix(prefix string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix},
		}},
	}}
}
