package patch

import (
	"regexp"
	"slices"
	"strings"
	"time"

	concurrencyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/adaptive_concurrency/v3"
	admissionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/admission_control/v3"
	bandwidthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/bandwidth_limit/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	cdnloopv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cdn_loop/v3"
	csrfv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/csrf/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// added is a further filter of a listener.
type added struct {
	name   string
	config proto.Message
}

// ofFilters is the filters that a listener may add: those that only count, slow down or refuse. None changes a request,
// chooses another route or cluster, answers with anything but a refusal, runs code or asks anybody.
var ofFilters = []*message{
	{zero: (*concurrencyv3.AdaptiveConcurrency)(nil), allowed: []field{
		{path: "concurrency_limit_exceeded_status"}, {path: "enabled.default_value"}, {path: "gradient_controller_config"},
	}},
	{zero: (*admissionv3.AdmissionControl)(nil), allowed: []field{
		{path: "aggression.default_value"},
		{path: "enabled.default_value"},
		{path: "max_rejection_probability.default_value"},
		{path: "rps_threshold.default_value"},
		{path: "sampling_window"},
		{path: "sr_threshold.default_value"},
		{path: "success_criteria"},
	}},
	{zero: (*bandwidthv3.BandwidthLimit)(nil), allowed: []field{
		{path: "enable_mode"},
		{path: "enable_response_trailers"},
		{path: "fill_interval"},
		{path: "limit_kbps"},
		{path: "response_trailer_prefix"},
		{path: "runtime_enabled.default_value"},
		{path: "stat_prefix"},
	}},
	{zero: (*bufferv3.Buffer)(nil), allowed: []field{{path: "max_request_bytes", least: 1, most: 16 << 20}}},
	{zero: (*cdnloopv3.CdnLoopConfig)(nil), allowed: []field{{path: "cdn_id"}, {path: "max_allowed_occurrences"}}},
	{zero: (*csrfv3.CsrfPolicy)(nil), allowed: []field{
		{path: "additional_origins.contains"},
		{path: "additional_origins.exact"},
		{path: "additional_origins.ignore_case"},
		{path: "additional_origins.prefix"},
		{path: "additional_origins.suffix"},
		{path: "filter_enabled.default_value"},
		{path: "shadow_enabled.default_value"},
	}},
	{
		zero: (*grpcstatsv3.FilterConfig)(nil),
		allowed: []field{
			{path: "enable_upstream_stats"}, {path: "individual_method_stats_allowlist"}, {path: "replace_dots_in_grpc_service_name"},
		},
		refused: []refusal{
			{"stats_for_all_methods", "clients make methods up, and Envoy would keep a count of each", "write individualMethodStatsAllowlist"},
		},
	},
	{zero: (*localv3.LocalRateLimit)(nil), allowed: []field{
		{path: "enable_retry_after_header"},
		{path: "enable_x_ratelimit_headers"},
		{path: "filter_enabled.default_value"},
		{path: "filter_enforced.default_value"},
		{path: "local_rate_limit_per_downstream_connection"},
		{path: "rate_limited_as_resource_exhausted"},
		{path: "stat_prefix"},
		{path: "status"},
		{path: "token_bucket.fill_interval", shortest: 50 * time.Millisecond, longest: 24 * time.Hour}, // Envoy's own least
		{path: "token_bucket.max_tokens"},
		{path: "token_bucket.tokens_per_fill"},
	}},
}

const (
	typeKey    = "@type"
	typePrefix = "type.googleapis.com/"
	extensions = "envoy.extensions.filters.http."
)

// refusedFilters is why some families of filters that people ask for are refused, by their folder in Envoy's API.
var refusedFilters = map[string]string{
	"lua": runsCode, "wasm": runsCode, "golang": runsCode, "dynamic_modules": runsCode,
	"ext_proc": clearsRoute, "on_demand": clearsRoute, "grpc_json_transcoder": clearsRoute, "header_mutation": says,
	"composite": wraps, "match_delegate": wraps, "filter_chain": wraps,
	"ext_authz": decides, "jwt_authn": decides, "basic_auth": decides, "api_key_auth": decides, "oauth2": decides, "rbac": decides,
	"set_filter_state": reaches, "dynamic_forward_proxy": reaches, "router": reaches, "custom_response": reaches,
	"health_check": answers, "cache": answers, "cache_v2": answers, "file_server": answers,
	"header_to_metadata": says, "json_to_metadata": says, "set_metadata": says, "credential_injector": says,
	"compressor": byKey, "cors": byKey, "fault": byKey, "grpc_web": byKey, "ratelimit": byKey, "stateful_session": byKey,
	"tap": "it copies requests, tokens and all, to whoever may ask Envoy",
}

const (
	runsCode    = "it runs code, which can do anything to a request that auth has seen"
	clearsRoute = "it can have the route chosen anew, and with it the filters that count"
	wraps       = "it runs other filters that nothing here sees"
	decides     = "who may call is said by the keys auth and access"
	reaches     = "it can send requests where no service of the policy is"
	answers     = "it answers by itself"
	says        = "it can change what others believe of the request"
)

// typeNames is the types of the filters that may be added.
func typeNames() []string {
	var names []string
	for _, m := range ofFilters {
		names = append(names, string(m.zero.ProtoReflect().Descriptor().FullName()))
	}
	return names
}

var filterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?$`)

// readFilters reads the further filters of a listener.
func readFilters(d *policy.Decode, n *policy.Node) []added {
	if n.Kind != policy.List || len(n.Items) == 0 {
		d.Errorf(n, "want a list of one or more filters").Hintf(`write [{name: acme.bandwidth, typedConfig: {"@type": …}}]`)
		return nil
	}
	var all []added
	seen := make(map[string]bool)
	for _, item := range n.Items {
		var doc map[string]*policy.Node
		if !d.Decode(item, &doc) {
			continue
		}
		name, config := readFilter(d, item, doc)
		if name != "" && seen[name] {
			d.Errorf(item.Get("name"), "a filter of this name stands here already")
		}
		seen[name] = true
		all = append(all, added{name, config})
	}
	return all
}

func readFilter(d *policy.Decode, n *policy.Node, doc map[string]*policy.Node) (name string, config proto.Message) {
	keys := []string{"name", "typedConfig"}
	for _, key := range n.Keys {
		switch key.Text {
		case "name", "typedConfig", "typed_config":
		case "disabled", "isOptional", "is_optional", "configDiscovery", "config_discovery":
			d.Errorf(key, "no patch may write %s: an added filter acts on all routes, and is known before it is served", key.Text)
		default:
			d.Unknown(key, keys)
		}
	}
	if doc["name"] == nil {
		d.Errorf(n, "a filter needs a name").Hintf("write name: acme.bandwidth, or the like")
	} else if d.Decode(doc["name"], &name) && (!filterName.MatchString(name) || strings.HasPrefix(name, "legation.") || strings.HasPrefix(name, "envoy.")) {
		d.Errorf(doc["name"], "%.64q can't be the name of a filter", name).
			Hintf("up to 63 of a-z, 0-9, -, . and _; names that begin with legation. or envoy. are taken")
	}
	typed := doc["typedConfig"]
	switch {
	case typed != nil && doc["typed_config"] != nil:
		d.Errorf(doc["typed_config"], "typedConfig stands here twice, by both of its names")
	case typed == nil:
		typed = doc["typed_config"]
	}
	if typed == nil {
		d.Errorf(n, "a filter needs a typedConfig").Hintf(`write typedConfig: {"@type": %s…}`, typePrefix+extensions)
		return name, nil
	}
	return name, readTyped(d, typed)
}

// readTyped reads the configuration of a filter by the type that it names.
func readTyped(d *policy.Decode, n *policy.Node) proto.Message {
	var doc map[string]*policy.Node
	if !d.Decode(n, &doc) {
		return nil
	}
	if doc[typeKey] == nil {
		d.Errorf(n, "a typedConfig needs its \"@type\"").Hintf(`write "@type": %s%sbandwidth_limit.v3.BandwidthLimit, or the like`, typePrefix, extensions)
		return nil
	}
	var url string
	if !d.Decode(doc[typeKey], &url) {
		return nil
	}
	name := strings.TrimPrefix(url, typePrefix)
	at := slices.Index(typeNames(), name)
	if at < 0 || name == url {
		why := "it is not among those that leave auth and limits as they are"
		family, _, _ := strings.Cut(strings.TrimPrefix(name, extensions), ".")
		if told := refusedFilters[family]; told != "" {
			why = told
		}
		d.Errorf(doc[typeKey], "no patch may add a filter of the type %.96q: %s", url, why).
			Hintf("of %s there are %s", typePrefix+extensions+"…", strings.ReplaceAll(strings.Join(typeNames(), ", "), extensions, ""))
		return nil
	}
	return readPart(d, n, ofFilters[at]).message
}
