package jwt

import (
	"cmp"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
)

// Envoy's own filter takes more for a token than the companion's gate lets by. What it verified is looked at once more:
// what does not have the usual form goes to the companion.
const (
	// bearer is one compact token and nothing else.
	bearer = `Bearer [A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`
	// accessToken is the typ of tokens that are for access. Those without one are left to the companion.
	accessToken = `(?i)(application/)?(at\+)?jwt`
	// visibleText is one that reaches every reader as it is: ASCII with spaces only between. plainText has no comma and no
	// percent sign either, which the companion escapes in headers; Envoy would pass on line ends, too.
	visibleText = `[!-~]([ -~]*[!-~])?`
	plainText   = `[!-$&-+\--~]([ -$&-+\--~]*[!-$&-+\--~])?`
)

// unusual are header parameters that the gate refuses: they bring keys, or change how the rest is read.
var unusual = []string{"crit", "b64", "cty", "zip", "enc", "epk", "apu", "apv", "iv", "tag", "jwk", "jku", "x5u", "x5c"}

// headerOf and claimsOf are the keys under which an entry's filter leaves what it verified.
func headerOf(entry string) string { return "header/" + entry }
func claimsOf(entry string) string { return "claims/" + entry }

// marker marks requests with a verified token of the usual form. As shadow rules it refuses nothing.
func marker(forms map[string]*rbacv3.Policy) *rbacfilterv3.RBAC {
	return &rbacfilterv3.RBAC{
		ShadowRulesStatPrefix: strings.TrimSuffix(envoy.VerifiedKey, "shadow_engine_result"),
		ShadowRules:           &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: forms},
	}
}

// form matches requests with a token that the entry's filter has verified, that has the usual form, and whose claims
// Envoy and the companion read alike.
func (j *JWT) form(entry string) *rbacv3.Policy {
	header := func(name string, value *matcherv3.ValueMatcher) *rbacv3.Permission {
		return verified(value, headerOf(entry), name)
	}
	rules := []*rbacv3.Permission{
		{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
			Name:                 "authorization",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: regex(bearer)},
		}}},
		header("typ", text(accessToken)),
	}
	for _, name := range unusual {
		rules = append(rules, not(header(name, there)))
	}
	rules = append(rules, claim(entry, cmp.Or(j.Consumer, "sub"), visibleText)...)
	for _, name := range j.StripHeaders() {
		rules = append(rules, claim(entry, j.claimOf(name), plainText)...)
	}
	return &rbacv3.Policy{
		Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: rules}}}},
		Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
	}
}

// claim matches tokens that have a text for a claim. A dotted name may also be that of one claim, which the companion
// then takes.
func claim(entry, path, expr string) []*rbacv3.Permission {
	steps := append([]string{claimsOf(entry)}, strings.Split(path, ".")...)
	if len(steps) == 2 {
		return []*rbacv3.Permission{verified(text(expr), steps...)}
	}
	if slices.Contains(steps, "") {
		return []*rbacv3.Permission{not(&rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}})}
	}
	rules := []*rbacv3.Permission{verified(text(expr), steps...)}
	for i := 1; i < len(steps)-1; i++ { // the name with dots may stand at any depth
		joined := append(slices.Clone(steps[:i]), strings.Join(steps[i:], "."))
		rules = append(rules, not(verified(there, joined...)))
	}
	return rules
}

var there = &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}

func text(expr string) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: regex(expr)}}
}

func regex(expr string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expr}}}
}

func not(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

// verified matches what an entry's filter has left of a token.
func verified(value *matcherv3.ValueMatcher, path ...string) *rbacv3.Permission {
	m := &matcherv3.MetadataMatcher{Filter: "envoy.filters.http.jwt_authn", Value: value}
	for _, key := range path {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_SourcedMetadata{SourcedMetadata: &rbacv3.SourcedMetadata{
		MetadataMatcher: m, MetadataSource: rbacv3.MetadataSource_DYNAMIC,
	}}}
}
