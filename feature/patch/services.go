package patch

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

const (
	elsewhere = "it says where the requests go"
	proofs    = "it says who the service is, and to whom"
	byKey     = "there is a key for it"
	tlsHint   = "write tls in the service"
)

// Bounds of HTTP/2: windows from HTTP's own least to what Envoy takes by itself.
const (
	leastWindow = 64<<10 - 1
	mostWindow  = 16 << 20
	mostTable   = 64 << 10
)

// ofServices is what may be written in a service.
var ofServices = []*message{ofClusters, ofUpstreams, ofNames}

var ofClusters = &message{
	name: "cluster",
	zero: (*clusterv3.Cluster)(nil),
	allowed: []field{
		{path: "circuit_breakers.thresholds", key: "circuitBreakers"},
		{path: "close_connections_on_host_health_failure", key: "healthCheck"},
		{path: "common_lb_config.close_connections_on_host_set_change", key: "loadBalancer"},
		{path: "common_lb_config.update_merge_window", key: "loadBalancer"},
		{path: "connection_pool_per_downstream_connection", key: "connections"},
		{path: "ignore_health_on_host_removal", key: "healthCheck"},
		{path: "outlier_detection.always_eject_one_host", key: "outlierDetection", needs: true},
		{path: "outlier_detection.detect_degraded_hosts", key: "outlierDetection", needs: true},
		{path: "outlier_detection.max_ejection_time_jitter", key: "outlierDetection", needs: true},
		{path: "outlier_detection.successful_active_health_check_uneject_host", key: "outlierDetection", needs: true},
		{path: "per_connection_buffer_high_watermark_timeout", key: "connections"},
		{path: "preconnect_policy.per_upstream_preconnect_ratio", key: "connections"},
		{path: "preconnect_policy.predictive_preconnect_ratio", key: "connections"},
		{path: "track_cluster_stats"},
		{path: "upstream_connection_options.happy_eyeballs_config", key: "connections"},
		{path: "upstream_connection_options.set_local_interface_name_on_upstream_connections", key: "connections"},
		{path: "wait_for_warm_on_init"},
	},
	refused: []refusal{
		{"name", "routes know the service by it", ""},
		{"alt_stat_name", "statistics of another cluster could be written", ""},
		{"stats_matcher", "statistics that others look at could be left out", ""},
		{"metadata", "filters and balancers know the service by it", ""},
		{"type", elsewhere, "write endpoints, or dns"},
		{"cluster_type", elsewhere, "write endpoints, or dns; details of dns stand under envoy: {dns: …}"},
		{"eds_cluster_config", elsewhere, "write endpoints, or dns"},
		{"load_assignment", elsewhere, "write endpoints"},
		{"lrs_server", elsewhere, ""},
		{"dns_refresh_rate", "Envoy reads it in another message", "write dns: {name: …, refresh: 5s} in the service"},
		{"dns_lookup_family", "Envoy reads it in another message", "write envoy: {dns: {dnsLookupFamily: V4_ONLY}}"},
		{"dns_failure_refresh_rate", "Envoy reads it in another message", "write envoy: {dns: {dnsFailureRefreshRate: {baseInterval: 1s}}}"},
		{"dns_jitter", "Envoy reads it in another message", "write envoy: {dns: {dnsJitter: 1s}}"},
		{"respect_dns_ttl", "Envoy reads it in another message", "the records' own life counts unless dns has refresh"},
		{"typed_dns_resolver_config", "names would be asked of another server", ""},
		{"upstream_bind_config", "servers may trust addresses that it could take", ""},
		{"transport_socket", proofs, tlsHint},
		{"transport_socket_matches", proofs, tlsHint},
		{"transport_socket_matcher", proofs, tlsHint},
		{"filters", "they could send the bytes elsewhere", ""},
		{"upstream_config", "it could send the bytes elsewhere", ""},
		{"typed_extension_protocol_options", "it is a part of its own", "write envoy: {http: …} for HTTP's options"},
		{"connect_timeout", byKey, "write connections: {connectTimeout: 1s}"},
		{"per_connection_buffer_limit_bytes", byKey, "write connections: {bufferLimit: 64KiB}"},
		{"upstream_connection_options.tcp_keepalive", byKey, "write connections: {keepAlive: {idle: 30s}}"},
		{"health_checks", byKey, "write healthCheck"},
		{"circuit_breakers.per_host_thresholds", byKey, "write circuitBreakers: {perEndpoint: {maxConnections: 10}}"},
		{"outlier_detection.monitors", "they could answer in place of the service", "write outlierDetection"},
		{"outlier_detection", byKey, "write outlierDetection"},
		{"common_lb_config.ignore_new_hosts_until_first_hc", "an endpoint would get requests before its first health check", ""},
		{"common_lb_config", byKey, "write loadBalancer"},
		{"lb_policy", byKey, "write loadBalancer"},
		{"load_balancing_policy", byKey, "write loadBalancer"},
		{"lb_subset_config", "endpoints have no labels to choose by", ""},
		{"original_dst_lb_config", "clients would say where requests go", ""},
		{"http2_protocol_options", "Envoy reads it in another message", "write protocol: http2, and envoy: {http: …} for details"},
	},
}

var ofUpstreams = &message{
	name: "http",
	zero: (*httpv3.HttpProtocolOptions)(nil),
	allowed: slices.Concat(
		[]field{
			{path: "common_http_protocol_options.max_connection_duration_jitter", key: "connections"},
			{path: "common_http_protocol_options.max_headers_count", key: "connections", least: 1, most: 1000},
		},
		upstreamCodec("explicit_http_config."),
		upstreamCodec("auto_config."),
	),
	refused: []refusal{
		{"http_filters", "they see who calls, and could say it", ""},
		{"upstream_http_protocol_options", proofs, tlsHint},
		{"header_validation_config", "backends' answers would pass unchecked", ""},
		{"use_downstream_protocol_config", "clients would choose the protocol", "write protocol: http1, http2 or auto"},
		{"common_http_protocol_options.idle_timeout", byKey, "write connections: {idleTimeout: 50s}"},
		{"common_http_protocol_options.max_connection_duration", byKey, "write connections: {maxLifetime: 1h}"},
		{"common_http_protocol_options.max_requests_per_connection", byKey, "write connections: {requestsPerConnection: 1000}"},
		{"common_http_protocol_options.max_response_headers_kb", byKey, "write connections: {maxResponseHeaders: 60KiB}"},
		{"common_http_protocol_options.max_stream_duration", byKey, "write timeouts: {stream: 1h}"},
		{"explicit_http_config.http2_protocol_options.max_concurrent_streams", byKey, "write connections: {concurrentStreams: 100}"},
		{"explicit_http_config.http_protocol_options", "two readers could take it for two requests", ""},
		{"auto_config.http_protocol_options", "two readers could take it for two requests", ""},
		{"explicit_http_config.http3_protocol_options", "services don't speak HTTP/3", ""},
		{"auto_config.http3_protocol_options", "services don't speak HTTP/3", ""},
	},
}

// upstreamCodec is the details of HTTP to a service, in the message of a protocol.
func upstreamCodec(in string) []field {
	var all []field
	for _, f := range codec {
		f.path, f.key = in+f.path, "protocol"
		all = append(all, f)
	}
	return all
}

// codec is details of HTTP/1.1 and HTTP/2 on either side.
var codec = []field{
	{path: "http_protocol_options.header_key_format.proper_case_words"},
	{path: "http2_protocol_options.connection_keepalive"},
	{path: "http2_protocol_options.enable_huffman_encoding"},
	{path: "http2_protocol_options.hpack_table_size", most: mostTable},
	{path: "http2_protocol_options.initial_connection_window_size", least: leastWindow, most: mostWindow},
	{path: "http2_protocol_options.initial_stream_window_size", least: leastWindow, most: mostWindow},
	{path: "http2_protocol_options.override_stream_error_on_invalid_http_message"},
}

var ofNames = &message{
	name: "dns",
	zero: (*dnsv3.DnsCluster)(nil),
	allowed: []field{
		{path: "dns_failure_refresh_rate", shortest: 100 * time.Millisecond, longest: time.Hour},
		{path: "dns_jitter", longest: time.Hour},
		{path: "dns_lookup_family"},
		{path: "dns_min_refresh_rate", shortest: time.Second, longest: time.Hour},
	},
	refused: []refusal{
		{"dns_refresh_rate", byKey, "write dns: {name: …, refresh: 5s} in the service"},
		{"respect_dns_ttl", byKey, "the records' own life counts unless dns has refresh"},
		{"all_addresses_in_single_endpoint", byKey, "write dns: {name: …, type: logical} in the service"},
		{"typed_dns_resolver_config", "names would be asked of another server", ""},
	},
}
