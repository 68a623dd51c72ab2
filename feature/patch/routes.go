package patch

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// ofRoutes is what may be written in a route: by a team that may not change what the platform has said of auth, limits and
// other teams' services.
var ofRoutes = []*message{{
	name: "route",
	zero: (*routev3.Route)(nil),
	allowed: []field{
		{path: "decorator", key: "tracing"},
		{path: "stat_prefix"},
		{path: "route.append_x_forwarded_host"},
		{path: "route.cluster_not_found_response_code"},
		{path: "route.flush_timeout", key: "timeouts", shortest: time.Second, longest: time.Hour},
		{path: "route.hedge_policy.hedge_on_per_try_timeout", key: "retry", needs: true},
		{path: "route.max_stream_duration.grpc_timeout_header_offset", key: "timeouts"},
		{path: "route.priority"},
		{path: "route.retry_policy.per_try_idle_timeout", key: "timeouts"},
	},
	refused: []refusal{
		{"match", "it says which requests the route takes, and so whose auth they meet", "write match beside envoy"},
		{"name", "auth, limits and logs know the route by it", ""},
		{"metadata", "logs and filters know the route by it", ""},
		{"typed_per_filter_config", "it could switch off auth and limits", "the keys that filters are for configure them"},
		{"request_headers_to_add", "it could say who calls", "write headers: {request: {set: …}}"},
		{"request_headers_to_remove", "it could take away who calls", "write headers: {request: {remove: […]}}"},
		{"response_headers_to_add", byKey, "write headers: {response: {set: …}}"},
		{"response_headers_to_remove", byKey, "write headers: {response: {remove: […]}}"},
		{"tracing", byKey, "write tracing: {sampling: 10%}"},
		{"redirect", "it would answer in place of the backends", "write redirect beside envoy"},
		{"direct_response", "it would answer in place of the backends", "write directResponse beside envoy"},
		{"filter_action", "a filter would answer in place of the backends", ""},
		{"non_forwarding_action", "the route would no longer answer", ""},
		{"request_body_buffer_limit", "it is memory of all routes", "write requestBody"},
		{"per_request_buffer_limit_bytes", "it is memory of all routes", "write requestBody"},
		{"route_specifiers", "they could send requests to clusters that are nobody's to reach", "write backends"},
		{"route.cluster", "it could name a cluster that is not yours to reach", "write backends"},
		{"route.cluster_header", "clients would say where requests go", "write backends"},
		{"route.weighted_clusters", "it could name a cluster that is not yours to reach", "write backends"},
		{"route.cluster_specifier_plugin", "it could send requests to clusters that are not yours to reach", "write backends"},
		{"route.inline_cluster_specifier_plugin", "it could send requests to clusters that are not yours to reach", "write backends"},
		{"route.prefix_rewrite", "what auth has seen and what the backend gets could differ", "write rewrite, which is checked"},
		{"route.regex_rewrite", "what auth has seen and what the backend gets could differ", "write rewrite, which is checked"},
		{"route.path_rewrite", "what auth has seen and what the backend gets could differ", "write rewrite, which is checked"},
		{"route.path_rewrite_policy", "what auth has seen and what the backend gets could differ", "write rewrite, which is checked"},
		{"route.host_rewrite_literal", byKey, "write rewrite: {hostname: …}"},
		{"route.auto_host_rewrite", byKey, "write rewrite: {hostname: auto}"},
		{"route.host_rewrite_header", "clients would say which host the backend takes them for", "write rewrite: {hostname: …}"},
		{"route.host_rewrite_path_regex", "clients would say which host the backend takes them for", "write rewrite: {hostname: …}"},
		{"route.timeout", byKey, "write timeouts: {request: 5s}"},
		{"route.idle_timeout", byKey, "write timeouts: {idle: 5s}"},
		{"route.early_data_policy", "requests in TLS's early data can be played again by anyone who saw them", ""},
		{"route.retry_policy", byKey, "write retry, or timeouts: {backendRequest: 1s}"},
		{"route.retry_policy_typed_config", byKey, "write retry"},
		{"route.request_mirror_policies", "it could name a cluster that is not yours to reach", "write mirror: {SERVICE: 10%}"},
		{"route.rate_limits", "it could use up what others are let", "write rateLimit"},
		{"route.include_vh_rate_limits", "it could get around limits", "write rateLimit"},
		{"route.hash_policy", byKey, "write loadBalancer: {maglev: {by: …}} in the service, or sessionPersistence"},
		{"route.cors", byKey, "write cors"},
		{"route.upgrade_configs", "behind an upgrade no request is looked at any more", "write upgrades: [websocket]"},
		{"route.internal_redirect_policy", "a backend's answer would choose another route", ""},
		{"route.internal_redirect_action", "a backend's answer would choose another route", ""},
		{"route.max_internal_redirects", "a backend's answer would choose another route", ""},
		{"route.max_stream_duration", byKey, "write timeouts: {stream: 1h}"},
		{"route.hedge_policy", "each request would be sent more than once", "write retry, or mirror"},
	},
}}
