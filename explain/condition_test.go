package explain

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
)

// What a translation may come to one day is not taken for met, nor for missed.
func TestUnknownConditionsAreUnsure(t *testing.T) {
	t.Parallel()
	root := &routev3.RouteMatch_Prefix{Prefix: "/"}
	exact := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "y"}}
	suffix := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: "y"}}
	header := func(s *matcherv3.StringMatcher) *routev3.HeaderMatcher {
		return &routev3.HeaderMatcher{Name: "x", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: s}}
	}
	inverted := header(exact)
	inverted.InvertMatch = true
	for name, row := range map[string]struct {
		match  *routev3.RouteMatch
		unsure bool
	}{
		"a share of requests": {&routev3.RouteMatch{PathSpecifier: root, RuntimeFraction: &corev3.RuntimeFractionalPercent{}}, true},
		"gRPC alone":          {&routev3.RouteMatch{PathSpecifier: root, Grpc: &routev3.RouteMatch_GrpcRouteMatchOptions{}}, true},
		"a suffix":            {&routev3.RouteMatch{PathSpecifier: root, Headers: []*routev3.HeaderMatcher{header(suffix)}}, true},
		"what is not":         {&routev3.RouteMatch{PathSpecifier: root, Headers: []*routev3.HeaderMatcher{inverted}}, true},
		"an exact header":     {&routev3.RouteMatch{PathSpecifier: root, Headers: []*routev3.HeaderMatcher{header(exact)}}, false},
	} {
		a := ask(envoy.Request{Method: "GET", Path: "/", Headers: map[string][]string{"x": {"y"}}})
		miss := newMatcher().misses(row.match, a)
		if got := miss != nil && miss.unsure != ""; got != row.unsure || !row.unsure && miss != nil {
			t.Errorf("%s: got %+v, want unsure %t", name, miss, row.unsure)
		}
	}
}

func TestRegexTakesNoBytesThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	m := newMatcher()
	if !m.whole(".*", "ü") || m.whole(".*", "\xfc") {
		t.Error("want .* to match text, and not other bytes: RE2 knows UTF-8 only")
	}
}
