// Package cors lets web pages of other origins call a route: the key cors. [envoy.Translate] calls it.
package cors

import (
	_ "embed"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// Kind is the key cors.
var Kind = policy.Define[Setting]("cors", policy.Layers, doc)

// Setting is what stands under cors.
type Setting struct {
	AllowOrigins     []string        `policy:"allowOrigins,required" doc:"origins whose pages may call: https://app.example.com, https://*.example.com or \"*\""`
	AllowMethods     []string        `policy:"allowMethods" doc:"methods that the pages may use; default: those that the route matches"`
	AllowHeaders     []string        `policy:"allowHeaders" doc:"request headers that the pages may send beside the plain ones; \"*\" for any"`
	ExposeHeaders    []string        `policy:"exposeHeaders" doc:"response headers that the pages may read beside the plain ones"`
	MaxAge           policy.Duration `policy:"maxAge" doc:"how long a browser may remember the answer to a preflight; default: its own, 5s"`
	AllowCredentials bool            `policy:"allowCredentials" doc:"whether browsers send cookies and client certificates along"`
}

// maxOrigins is how many origins a route may allow.
const maxOrigins = 1000

// Check holds the lists against what browsers take, so that nobody finds out in a browser's console.
func (s *Setting) Check(c *policy.Check) {
	if s.AllowOrigins != nil && len(s.AllowOrigins) == 0 {
		c.Errorf("allowOrigins", "name at least one origin, or \"*\"").Hintf("write `cors: off` to allow none")
	}
	if len(s.AllowOrigins) > maxOrigins {
		c.Errorf("allowOrigins", "%d origins, more than %d: Envoy compares them one by one", len(s.AllowOrigins), maxOrigins)
		return
	}
	for i, o := range s.AllowOrigins {
		checkOrigin(c, policy.Item("allowOrigins", i), o)
	}
	for i, m := range s.AllowMethods {
		if !policy.IsToken(m) || m != strings.ToUpper(m) {
			c.Errorf(policy.Item("allowMethods", i), "%q is not a method in upper case, such as GET", m)
		}
	}
	checkHeaders(c, "allowHeaders", s.AllowHeaders)
	checkHeaders(c, "exposeHeaders", s.ExposeHeaders)
	if time.Duration(s.MaxAge)%time.Second != 0 {
		c.Errorf("maxAge", "want whole seconds, such as 10m")
	}
	s.checkWildcards(c)
	if r := c.Route(); r != nil && len(r.Backends) == 0 {
		c.Warnf("", "cors does nothing here: Envoy adds it to answers of a backend only")
	}
}

// checkWildcards refuses what would let any page act for the user; browsers ignore such answers, too.
func (s *Setting) checkWildcards(c *policy.Check) {
	i := slices.Index(s.AllowOrigins, "*")
	switch {
	case i >= 0 && s.AllowCredentials:
		c.Errorf(policy.Item("allowOrigins", i), `"*" and allowCredentials cannot stand together: any page could act for the user`).
			Hintf("name the origins, or leave allowCredentials out")
	case i >= 0 && len(s.AllowOrigins) > 1:
		c.Warnf(policy.Item("allowOrigins", i), `"*" allows every origin, so that the others say nothing`)
	}
	if i := slices.Index(s.ExposeHeaders, "*"); i >= 0 && s.AllowCredentials {
		c.Errorf(policy.Item("exposeHeaders", i), `"*" and allowCredentials cannot stand together: browsers take it for a header named *`).
			Hintf("name the headers")
	}
}

var (
	origin = regexp.MustCompile(`^([a-z][a-z0-9+.-]*)://(\*\.)?([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)
	// What browsers leave out of the origin.
	defaultPorts = map[string]string{"https": ":443", "http": ":80"}
)

func checkOrigin(c *policy.Check, path, o string) {
	if o == "*" {
		return
	}
	if o == "null" {
		c.Errorf(path, "null is not one origin: every sandboxed page and local file has it").Hintf("name the origin of the page")
		return
	}
	if m := origin.FindStringSubmatch(o); m != nil {
		if port := m[5]; port != "" && port == defaultPorts[m[1]] {
			c.Errorf(path, "browsers leave the port %s out of the origin, so that %q never matches", port, o).
				Hintf("write %s", strings.TrimSuffix(o, port))
		}
		if m[2] != "" && policy.CheckRegex(below(o)) != nil {
			c.Errorf(path, "the host is too long for Envoy to compare with a wildcard")
		}
		return
	}
	p := c.Errorf(path, `%q is not an origin: want scheme://host[:port] in lower case, with at most a first label "*"`, o)
	for _, better := range []string{strings.ToLower(strings.TrimRight(o, "/")), "https://" + strings.ToLower(o)} {
		if origin.MatchString(better) {
			p.Hintf("write %s", better)
			return
		}
	}
}

func checkHeaders(c *policy.Check, list string, names []string) {
	for i, name := range names {
		if !policy.IsToken(name) {
			c.Errorf(policy.Item(list, i), "%q is not a header name", name)
		}
	}
}

const filter = "legation.cors"

// Filters puts the filter that answers preflights before auth and limits.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Preflight, Config: &corsv3.Cors{}}}
}

// Route enables the filter and adds the route that preflights take.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	if len(c.Route.Backends) == 0 {
		return envoy.RouteParts{}
	}
	methods := c.Route.Match.Methods
	return envoy.RouteParts{
		Route:   answers(),
		Filters: map[string]proto.Message{filter: s.corsPolicy(methods)},
		Before:  []*routev3.Route{preflight(methods)},
	}
}

// answers leaves the policy alone to say what pages may read: the backend's own CORS headers go (the filter writes
// ours after the route has taken them away), and caches keep the answers to different origins apart.
func answers() *routev3.Route {
	return &routev3.Route{
		ResponseHeadersToRemove: []string{
			"access-control-allow-credentials",
			"access-control-allow-origin",
			"access-control-expose-headers",
		},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "vary", Value: "origin"},
			AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
		}},
	}
}

func (s *Setting) corsPolicy(methods []string) *corsv3.CorsPolicy {
	if len(s.AllowMethods) > 0 {
		methods = s.AllowMethods
	}
	p := &corsv3.CorsPolicy{
		AllowMethods:  joined(methods),
		AllowHeaders:  joined(s.AllowHeaders),
		ExposeHeaders: joined(s.ExposeHeaders),
		// The filter answers other origins itself, 200 without allow-origin: by default they would reach the backend.
		ForwardNotMatchingPreflights: wrapperspb.Bool(false),
	}
	for _, o := range s.AllowOrigins {
		p.AllowOriginStringMatch = append(p.AllowOriginStringMatch, originMatcher(o))
	}
	if s.MaxAge > 0 {
		p.MaxAge = strconv.FormatInt(int64(time.Duration(s.MaxAge)/time.Second), 10)
	}
	if s.AllowCredentials {
		p.AllowCredentials = wrapperspb.Bool(true)
	}
	return p
}

// joined is a list as a header's value. A "*" has to stand alone: for it the filter names what the browser asked for,
// which browsers take with credentials too.
func joined(list []string) string {
	if slices.Contains(list, "*") {
		return "*"
	}
	return strings.Join(list, ", ")
}

// originMatcher takes "*" as it is: the filter knows it. A wildcard stands for one label or more.
func originMatcher(o string) *matcherv3.StringMatcher {
	if strings.Contains(o, "*.") {
		return regex(below(o))
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: o}}
}

// below is the expression for an origin with a wildcard.
func below(o string) string {
	return strings.Replace(regexp.QuoteMeta(o), `\*\.`, `([a-z0-9_-]+\.)+`, 1)
}

func regex(re string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: re},
	}}
}

// preflight is the route of the OPTIONS request that a browser sends first. It carries neither the method nor the
// headers of the request to come, so that the route itself may not match; it names the method, though. The filter has
// to answer: were a request to pass it, this route would carry it around the auth of the others. To the filter an
// empty header is none, so that both have to say something; and the route leads nowhere.
func preflight(methods []string) *routev3.Route {
	asked := ".+"
	if len(methods) > 0 {
		asked = strings.Join(quoted(methods), "|")
	}
	options := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "OPTIONS"}}
	return &routev3.Route{
		Match: &routev3.RouteMatch{
			Headers: []*routev3.HeaderMatcher{
				matching(":method", options),
				matching("origin", regex(".+")),
				matching("access-control-request-method", regex(asked)),
			},
		},
		Action: &routev3.Route_Route{Route: nowhere()},
	}
}

// nowhere has no backend: it asks for one by a header that no request has, since clients' x-envoy- headers are removed
// before routing. The filter takes no part in routes that answer by themselves, so that it can't be one of them.
func nowhere() *routev3.RouteAction {
	return &routev3.RouteAction{
		ClusterSpecifier:            &routev3.RouteAction_ClusterHeader{ClusterHeader: "x-envoy-nowhere"},
		ClusterNotFoundResponseCode: routev3.RouteAction_NOT_FOUND,
	}
}

func matching(header string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 header,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m},
	}
}

func quoted(words []string) []string {
	var q []string
	for _, w := range words {
		q = append(q, regexp.QuoteMeta(w))
	}
	return q
}
