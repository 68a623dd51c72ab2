package envoy

import (
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// guardPolicy is the name of the policy by which our filters of the phase [Guard] refuse, and guardDenial what Envoy
// says of such a request.
const (
	guardPolicy       = "guard"
	guardDenial       = "rbac_access_denied_matched_policy[" + guardPolicy + "]"
	misdirectedDenial = "rbac_access_denied_matched_policy[" + misdirectedPolicy + "]"
)

// ownBody is the replies whose body is somebody else's choice: the policy's, or the auth service's.
var ownBody = []string{"direct_response", "ext_authz_denied"}

// replies is what clients read when Envoy answers by itself. Envoy's own words tell about what stands behind it.
var replies = []struct {
	status uint32
	text   string
}{
	{400, "bad request"},
	{401, "unauthorized"},
	{403, "forbidden"},
	{404, "not found"},
	{405, "method not allowed"},
	{408, "request timeout"},
	{413, "payload too large"},
	{414, "uri too long"},
	{426, "upgrade required"},
	{429, "too many requests"},
	{431, "request header fields too large"},
	{500, "internal server error"},
	{501, "not implemented"},
	{502, "bad gateway"},
	{503, "service unavailable"},
	{504, "gateway timeout"},
}

// localReplies turns Envoy's own replies into small JSON, and what was refused by our filters of the phase [Guard] into
// 400 and 421 (RBAC knows only 403).
// The first mapper that fits has the word. Each looks at the status first, which costs next to nothing: a client that
// is over its limit gets many replies.
func localReplies() *hcmv3.LocalReplyConfig {
	config := &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
		denial(guardDenial, 400, "bad request"),
		denial(misdirectedDenial, 421, "misdirected request"),
	}}
	others := "!(response.code_details in ['" + strings.Join(ownBody, "', '") + "'])"
	for _, r := range replies {
		config.Mappers = append(config.Mappers, &hcmv3.ResponseMapper{
			Filter:             both(statusIs(r.status), celFilter(others)),
			BodyFormatOverride: errorBody(r.text),
		})
	}
	return config
}

// denial gives what RBAC has refused for a reason of ours another status.
func denial(details string, status uint32, text string) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter:             both(statusIs(403), celFilter("response.code_details == '"+details+"'")),
		StatusCode:         wrapperspb.UInt32(status),
		BodyFormatOverride: errorBody(text),
	}
}

func both(a, b *accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{a, b}},
	}}
}

func statusIs(code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op: accesslogv3.ComparisonFilter_EQ,
			Value: &corev3.RuntimeUInt32{
				DefaultValue: code,
				RuntimeKey:   "legation.unused", // Envoy wants one; nobody sets it
			},
		}},
	}}
}

func celFilter(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name: "envoy.access_loggers.extension_filters.cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{
				TypedConfig: Pack(&celv3.ExpressionFilter{Expression: expression}),
			},
		},
	}}
}

func errorBody(text string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{
		JsonFormat: &structpb.Struct{Fields: map[string]*structpb.Value{"error": structpb.NewStringValue(text)}},
	}}
}
