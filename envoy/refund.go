package envoy

import (
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	exprv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rate_limit_descriptors/expr/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// LimitFilter is the filter that asks the companion for limits, and tells it what to give back. Requests pass where the
// companion can't be reached.
const LimitFilter = "legation.limit.open"

// AuthMetadata is where the auth callout tells Envoy who calls: consumer, plan and claims.
const AuthMetadata = "envoy.filters.http.ext_authz"

// LimitKey is the key of the descriptor entry that names a limit.
const LimitKey = "limit"

// Refund is a descriptor by which a hit is given back once the answer is there. Envoy calls the companion for the
// descriptors that there are: limit is an expression that names the limit, and where it fails, or the status is another or
// Envoy says of the answer that it is one of uncounted, there is no descriptor and so no call.
type Refund struct {
	Limit     string
	Statuses  policy.Statuses
	Uncounted []string // response code details
	Entries   []*routev3.RateLimit_Action
}

// Descriptor makes it.
func (r Refund) Descriptor() *routev3.RateLimit {
	text := fmt.Sprintf("(%s) && !(response.code_details in ['%s']) ? (%s) : {'': ''}['none']",
		condition(r.Statuses), strings.Join(r.Uncounted, "', '"), r.Limit)
	return &routev3.RateLimit{
		Actions:           append([]*routev3.RateLimit_Action{ExpressionEntry(LimitKey, text, false)}, r.Entries...),
		ApplyOnStreamDone: true,
		HitsAddend:        &routev3.RateLimit_HitsAddend{Number: wrapperspb.UInt64(1), IsNegativeHits: true},
	}
}

// condition is the statuses in CEL.
func condition(list policy.Statuses) string {
	var either, codes []string
	for _, s := range list {
		if first, last := s.Range(); first < last {
			either = append(either, fmt.Sprintf("response.code >= %d && response.code <= %d", first, last))
			continue
		}
		codes = append(codes, string(s))
	}
	if len(codes) > 0 {
		either = append(either, "response.code in ["+strings.Join(codes, ", ")+"]")
	}
	return strings.Join(either, " || ")
}

// ExpressionEntry is a descriptor entry of what a CEL expression gives. Where that fails there is no entry if it may be
// left out, else no descriptor.
func ExpressionEntry(key, text string, optional bool) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Extension{
		Extension: Extension("envoy.rate_limit_descriptors.expr", &exprv3.Descriptor{
			DescriptorKey: key,
			SkipIfError:   optional,
			ExprSpecifier: &exprv3.Descriptor_Text{Text: text},
		}),
	}}
}

// MetadataEntry is a descriptor entry of a text in the request's dynamic metadata; left out where there is none.
func MetadataEntry(key, namespace string, path ...string) *routev3.RateLimit_Action {
	at := &metadatav3.MetadataKey{Key: namespace}
	for _, name := range path {
		at.Path = append(at.Path, &metadatav3.MetadataKey_PathSegment{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: name}})
	}
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Metadata{Metadata: &routev3.RateLimit_Action_MetaData{
		DescriptorKey: key,
		Source:        routev3.RateLimit_Action_MetaData_DYNAMIC,
		SkipIfAbsent:  true,
		MetadataKey:   at,
	}}}
}
