package ratelimit

import (
	"cmp"
	"slices"

	headertometadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/ratelimit"
)

// values is the filter that reads parts of requests into dynamic metadata, before limits are counted: cookies, for which
// descriptors have no action, and for refunds what the router writes over before the answer comes.
const values = "legation.limit.values"

// kept tells whether a refund takes the part from metadata.
func kept(by ratelimit.By) bool {
	switch by.Kind {
	case ratelimit.Header, ratelimit.Cookie, ratelimit.Path, ratelimit.Host:
		return true
	}
	return false
}

// without is the key that stands in the metadata when the request has no such part. Too long a value (Envoy takes less than
// 8 KiB) has neither key.
func without(by ratelimit.By) string { return "no " + by.Entry() }

// keep reads what the limits of a route need, nil for nothing; asked tells whether Envoy sends what they count by.
func keep(limits []counted, asked bool) *headertometadatav3.Config {
	var parts []ratelimit.By
	for _, l := range limits {
		for _, by := range l.By {
			reads := by.Kind == ratelimit.Cookie && (asked || l.written.perEnvoy()) || kept(by) && l.written.Refund != nil
			if reads && !slices.Contains(parts, by) {
				parts = append(parts, by)
			}
		}
	}
	if len(parts) == 0 {
		return nil
	}
	slices.SortFunc(parts, func(a, b ratelimit.By) int { return cmp.Compare(a.Entry(), b.Entry()) })
	config := new(headertometadatav3.Config)
	for _, by := range parts {
		config.RequestRules = append(config.RequestRules, rule(by))
	}
	return config
}

func rule(by ratelimit.By) *headertometadatav3.Config_Rule {
	value := &headertometadatav3.Config_KeyValuePair{MetadataNamespace: limitMetadata, Key: by.Entry()}
	r := &headertometadatav3.Config_Rule{
		OnHeaderPresent: value,
		OnHeaderMissing: &headertometadatav3.Config_KeyValuePair{MetadataNamespace: limitMetadata, Key: without(by), Value: "true"},
	}
	switch by.Kind {
	case ratelimit.Cookie:
		r.Cookie = by.Name
	case ratelimit.Header:
		r.Header = by.Name
	case ratelimit.Host:
		r.Header = ":authority"
	case ratelimit.Path:
		r.Header = ":path"
		value.RegexValueRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern: &matcherv3.RegexMatcher{Regex: `\?.*`},
		}
	}
	return r
}
