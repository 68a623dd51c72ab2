package envoy

import (
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// routeMatch is all conditions of a route but its hosts and its clients' addresses.
func routeMatch(m policy.Match) *routev3.RouteMatch {
	match := pathMatch(m.Path)
	if len(m.Methods) > 0 {
		match.Headers = append(match.Headers, methodMatch(m.Methods))
	}
	for _, h := range m.Headers {
		match.Headers = append(match.Headers, headerMatch(h))
	}
	for _, q := range m.Query {
		match.QueryParameters = append(match.QueryParameters, queryMatch(q))
	}
	return match
}

// pathMatch compares the path alone. Envoy's plain prefix would also take /abc for /a; the root it has to be told as one.
func pathMatch(p policy.PathMatch) *routev3.RouteMatch {
	match := new(routev3.RouteMatch)
	if p.IgnoreCase {
		match.CaseSensitive = wrapperspb.Bool(false)
	}
	prefix := strings.TrimRight(p.Value, "/")
	switch {
	case p.Kind == policy.PathExact:
		match.PathSpecifier = &routev3.RouteMatch_Path{Path: p.Value}
	case p.Kind == policy.PathRegex:
		match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: safeRegex(p.Value)}
	case p.Kind == policy.PathTemplate:
		match.PathSpecifier = pathTemplate(p.Value)
	case prefix == "":
		match.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	default:
		match.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: prefix}
	}
	return match
}

func pathTemplate(template string) *routev3.RouteMatch_PathMatchPolicy {
	return &routev3.RouteMatch_PathMatchPolicy{PathMatchPolicy: &corev3.TypedExtensionConfig{
		Name:        "envoy.path.match.uri_template.uri_template_matcher",
		TypedConfig: Pack(&templatev3.UriTemplateMatchConfig{PathTemplate: template}),
	}}
}

func methodMatch(methods []string) *routev3.HeaderMatcher {
	value := exactly(methods[0])
	if len(methods) > 1 {
		quoted := make([]string, len(methods))
		for i, m := range methods {
			quoted[i] = regexp.QuoteMeta(m)
		}
		value = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
			SafeRegex: safeRegex(strings.Join(quoted, "|")),
		}}
	}
	return &routev3.HeaderMatcher{
		Name:                 ":method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value},
	}
}

func headerMatch(v policy.ValueMatch) *routev3.HeaderMatcher {
	if v.Present != nil {
		return &routev3.HeaderMatcher{
			Name:                 v.Name,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: *v.Present},
		}
	}
	return &routev3.HeaderMatcher{
		Name:                 v.Name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatch(v)},
	}
}

func queryMatch(v policy.ValueMatch) *routev3.QueryParameterMatcher {
	if v.Present != nil {
		return &routev3.QueryParameterMatcher{
			Name: v.Name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_PresentMatch{
				PresentMatch: *v.Present,
			},
		}
	}
	return &routev3.QueryParameterMatcher{
		Name:                         v.Name,
		QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatch(v)},
	}
}

func stringMatch(v policy.ValueMatch) *matcherv3.StringMatcher {
	if v.Regex == "" {
		return exactly(v.Exact)
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: safeRegex(v.Regex)}}
}

func exactly(value string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}

func safeRegex(re string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: re} }
