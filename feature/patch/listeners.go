package patch

import (
	"slices"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
)

// Why some fields are refused that many have in common.
const (
	paths    = "another spelling of a path could get around auth"
	hosts    = "another spelling of a host could get around auth"
	clients  = "clients could say which address they have"
	identity = "clients could say who calls"
	smuggles = "two readers could take one request for another"
	bounds   = "it bounds what one client can take"
	order    = "auth and limits stand in it"
	ports    = "it says what the listener listens to"
	chains   = "it says which filters connections go through"
)

// mostSilence is Linux's bound of TCP's probes, in seconds; an Envoy that can't set them does not listen.
const mostSilence = 1<<15 - 1

// ofListeners is what may be written in a listener. Whoever owns it owns auth as well; what is refused would give up what
// docs/security.md promises, by mistake more likely than not.
var ofListeners = []*message{ofPorts, ofManagers, ofProxies}

var ofPorts = &message{
	name: "listener",
	zero: (*listenerv3.Listener)(nil),
	allowed: []field{
		{path: "connection_balance_config.exact_balance"},
		{path: "drain_type"},
		{path: "enable_reuse_port"},
		{path: "listener_filters_timeout", shortest: 100 * time.Millisecond, longest: 15 * time.Second},
		{path: "max_connections_to_accept_per_socket_event"},
		{path: "per_connection_buffer_high_watermark_timeout"},
		{path: "per_connection_buffer_limit_bytes", least: 4 << 10, most: 1 << 20},
		{path: "tcp_backlog_size", most: 1<<31 - 1},
		{path: "tcp_keepalive.keepalive_interval", least: 1, most: mostSilence},
		{path: "tcp_keepalive.keepalive_probes", least: 1, most: 127},
		{path: "tcp_keepalive.keepalive_time", least: 1, most: mostSilence},
	},
	refused: []refusal{
		{"name", "routes know the listener by it", ""},
		{"address", ports, "write port and address in the listener"},
		{"additional_addresses", ports, "write a listener for each"},
		{"bind_to_port", ports, ""},
		{"use_original_dst", ports, ""},
		{"transparent", ports, ""},
		{"freebind", ports, ""},
		{"socket_options", "any option of the socket could be set", "tcpKeepalive and tcpBacklogSize may be written"},
		{"internal_listener", ports, ""},
		{"api_listener", ports, ""},
		{"udp_listener_config", ports, ""},
		{"filter_chains", chains, "write filters for further filters of HTTP"},
		{"default_filter_chain", chains, "write filters for further filters of HTTP"},
		{"filter_chain_matcher", chains, ""},
		{"fcds_config", chains, ""},
		{"listener_filters", chains, ""},
		{"continue_on_listener_filters_timeout", "connections could leave out what tells their address and name", ""},
		{"access_log", byKey, "write accessLog"},
		{"ignore_global_conn_limit", bounds, ""},
		{"bypass_overload_manager", bounds, ""},
		{"tcp_fast_open_queue_length", "requests could come twice", ""},
	},
}

var ofManagers = &message{
	name: "http",
	zero: (*hcmv3.HttpConnectionManager)(nil),
	allowed: slices.Concat(codec, []field{
		{path: "access_log_options"},
		{path: "add_user_agent"},
		{path: "always_set_request_id_in_response"},
		{path: "append_local_overload"},
		{path: "append_x_forwarded_port"},
		{path: "common_http_protocol_options.idle_timeout", shortest: time.Second, longest: 24 * time.Hour},
		{path: "common_http_protocol_options.max_connection_duration"},
		{path: "common_http_protocol_options.max_connection_duration_jitter"},
		{path: "common_http_protocol_options.max_requests_per_connection"},
		{path: "common_http_protocol_options.max_stream_duration"},
		{path: "delayed_close_timeout", shortest: 100 * time.Millisecond, longest: time.Minute},
		{path: "drain_timeout", longest: time.Hour},
		{path: "drain_timeout_jitter"},
		{path: "http1_safe_max_connection_duration"},
		{path: "http2_protocol_options.max_concurrent_streams", least: 1, most: 1000},
		{path: "proxy_status_config.literal_proxy_name"},
		{path: "proxy_status_config.remove_connection_termination_details"},
		{path: "proxy_status_config.remove_details"},
		{path: "proxy_status_config.remove_response_flags"},
		{path: "proxy_status_config.use_node_id"},
		{path: "record_route_resolution_stats"},
		{path: "request_headers_timeout", shortest: 100 * time.Millisecond, longest: time.Minute},
		{path: "request_timeout", shortest: time.Second, longest: time.Hour},
		{path: "stream_flush_timeout", shortest: time.Second, longest: time.Hour},
		{path: "stream_idle_timeout", shortest: time.Second, longest: time.Hour},
		{path: "via"},
	}),
	refused: []refusal{
		{"http_filters", order, "write filters beside http: they come after"},
		{"rds", "it says which routes there are", "write routes"},
		{"route_config", "it says which routes there are", "write routes"},
		{"scoped_routes", "it says which routes there are", "write routeTables: perHost"},
		{"normalize_path", paths, ""},
		{"merge_slashes", paths, ""},
		{"path_with_escaped_slashes_action", paths, ""},
		{"path_normalization_options", paths, ""},
		{"typed_header_validation_config", paths, ""},
		{"strip_matching_host_port", hosts, ""},
		{"strip_any_host_port", hosts, ""},
		{"strip_trailing_host_dot", hosts, ""},
		{"use_remote_address", clients, ""},
		{"xff_num_trusted_hops", clients, "write trustedHops in the listener"},
		{"skip_xff_append", clients, ""},
		{"original_ip_detection_extensions", clients, ""},
		{"internal_address_config", clients, ""},
		{"represent_ipv4_remote_address_as_ipv4_mapped_ipv6", "lists of addresses would no longer hold", ""},
		{"early_header_mutation_extensions", identity, ""},
		{"forward_client_cert_details", identity, ""},
		{"set_current_client_cert_details", identity, ""},
		{"forward_client_cert_matcher", identity, ""},
		{"scheme_header_transformation", "clients could say that they came by TLS", ""},
		{"forward_proto_config", "clients could say that they came by TLS", ""},
		{"preserve_external_request_id", "clients could choose what requests are traced and sampled by", ""},
		{"request_id_extension", "clients could choose what requests are traced and sampled by", "write tracing"},
		{"local_reply_config", "a refusal could look like an answer", ""},
		{"proxy_status_config.set_recommended_response_code", "auth and limits answer with statuses of their own", ""},
		{"upgrade_configs", "behind an upgrade no request is looked at any more", "write upgrades: [websocket] in the route"},
		{"server_name", "nobody needs to know what runs here", ""},
		{"server_header_transformation", "nobody needs to know what runs here", ""},
		{"max_request_headers_kb", bounds, ""},
		{"common_http_protocol_options.max_headers_count", bounds, ""},
		{"common_http_protocol_options.headers_with_underscores_action", "x_auth_user is x-auth-user to some backends", ""},
		{"http_protocol_options", smuggles, ""},
		{"stream_error_on_invalid_http_message", smuggles, "write http2ProtocolOptions: {overrideStreamErrorOnInvalidHttpMessage: true}"},
		{"http2_protocol_options.allow_connect", "behind CONNECT no request is looked at any more", "write upgrades in the route"},
		{"http2_protocol_options", bounds, ""},
		{"http3_protocol_options", "listeners don't speak HTTP/3", ""},
		{"codec_type", "listeners speak what clients do", ""},
		{"access_log", byKey, "write accessLog"},
		{"tracing", byKey, "write tracing"},
	},
}

var ofProxies = &message{
	name: "tcp",
	zero: (*tcpproxyv3.TcpProxy)(nil),
	allowed: []field{
		{path: "access_log_options"},
		{path: "backoff_options"},
		{path: "check_drain_close"},
		{path: "max_connect_attempts", least: 1, most: 10},
		{path: "max_downstream_connection_duration_jitter_percentage"},
	},
	refused: []refusal{
		{"cluster", elsewhere, "write backends in the route"},
		{"weighted_clusters", elsewhere, "write backends in the route"},
		{"on_demand", elsewhere, "write backends in the route"},
		{"tunneling_config", elsewhere, ""},
		{"hash_policy", byKey, "write loadBalancer: {maglev: {by: ip}} in the service"},
		{"proxy_protocol_tlvs", identity, ""},
		{"downstream_idle_timeout", "Envoy does not read it yet", "write timeouts: {idle: 1h} in the route"},
		{"upstream_idle_timeout", "Envoy does not read it yet", "write timeouts: {idle: 1h} in the route"},
		{"idle_timeout", byKey, "write timeouts: {idle: 1h} in the route"},
		{"max_downstream_connection_duration", byKey, "write timeouts: {stream: 1h} in the route"},
		{"access_log", byKey, "write accessLog"},
	},
}
