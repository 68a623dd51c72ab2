package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// The sides of the scenario through Envoy: one Envoy has a listener for each, so that all share their surroundings.
const (
	envoyBare   = "no filters"
	envoyEmpty  = "empty grpc-go callout"
	envoyExact  = "one exact limit"
	envoyMute   = "one exact limit, headers: none"
	envoyAuth   = "auth"
	envoyNative = "auth, verify: envoy"
	envoyOne    = "auth + quota, one call"
	envoyTwo    = "auth + quota, two calls"
)

// chain is a side's filters, and what their route says to them, in Envoy's JSON.
type chain struct{ name, filters, route string }

// chains is each side's.
func chains(native *native) []chain {
	return []chain{
		{envoyBare, "", ""},
		{envoyEmpty, limitFilter("empty"), ""},
		{envoyExact, limitFilter("legation"), ""},
		{envoyMute, strings.Replace(limitFilter("legation"), `"domain"`, `"stage": 1, "domain"`, 1), ""},
		{envoyAuth, authFilter("edge/auth"), rule("edge/auth")},
		{envoyNative, native.filters, native.route},
		{envoyOne, authFilter("edge/auth-quota"), rule("edge/auth-quota")},
		{envoyTwo, authFilter("edge/auth") + limitFilter("legation"), rule("edge/auth")},
	}
}

// Both deny when the callout fails, so that failures show.
func limitFilter(cluster string) string {
	return fmt.Sprintf(`{"name": "limit", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit", "domain": "legation", "timeout": "1s", "failure_mode_deny": true,
		"rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": %q}}}}},`, cluster)
}

// authFilter names the rule in the metadata of the call, as routes else do one by one.
func authFilter(rule string) string {
	return fmt.Sprintf(`{"name": "auth", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "transport_api_version": "V3",
		"grpc_service": {"envoy_grpc": {"cluster_name": "legation"}, "timeout": "1s"}, "stat_prefix": %q}},`, strings.ReplaceAll(rule, "/", "_"))
}

const listenerJSON = `{"name": %q, "address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}, "filter_chains": [{"filters": [{
	"name": "http", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
	"stat_prefix": "bench", "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
		"match": {"prefix": "/"},
		"route": {"cluster": "backend", "rate_limits": [{"actions": [
			{"generic_key": {"descriptor_key": "limit", "descriptor_value": "route/exact/0"}},
			{"request_headers": {"header_name": "x-key", "descriptor_key": "header:x-key"}}]}, {"stage": 1, "actions": [
			{"generic_key": {"descriptor_key": "limit", "descriptor_value": "route/mute/0"}},
			{"request_headers": {"header_name": "x-key", "descriptor_key": "header:x-key"}}]}]}
		, "typed_per_filter_config": {%s}}]}]},
	"http_filters": [%s {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}`

const clusterJSON = `{"name": %q, "type": "STATIC", "connect_timeout": "1s", %s
	"circuit_breakers": {"thresholds": [{"max_connections": 1000000, "max_pending_requests": 1000000, "max_requests": 1000000}]},
	"load_assignment": {"cluster_name": %[1]q, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %[3]s}}}}]}]}}`

const http2JSON = `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
	"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}},`

// envoyConfig gives the configuration, and the address of each side's listener.
func envoyConfig(chains []chain, admin int, empty, legation, backend string) (config string, addresses map[string]string, err error) {
	addresses = map[string]string{}
	var listeners []string
	for _, c := range chains {
		port, err := rig.Port()
		if err != nil {
			return "", nil, err
		}
		addresses[c.name] = rig.Local(port)
		listeners = append(listeners, fmt.Sprintf(listenerJSON, c.name, port, c.route, c.filters))
	}
	port := func(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
	clusters := []string{
		fmt.Sprintf(clusterJSON, "empty", http2JSON, port(empty)),
		fmt.Sprintf(clusterJSON, "legation", http2JSON, port(legation)),
		fmt.Sprintf(clusterJSON, "backend", "", port(backend)),
	}
	return fmt.Sprintf(`{"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}}, "static_resources": {"listeners": [%s], "clusters": [%s]}}`,
		admin, strings.Join(listeners, ",\n"), strings.Join(clusters, ",\n")), addresses, nil
}

// rule is what the route says to the auth filter.
func rule(name string) string {
	return fmt.Sprintf(`"auth": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
		"check_settings": {"context_extensions": {"legation.rule": %q}}}`, name)
}

// envoySides starts Envoy and its backend, and gives the sides.
func (b *bench) envoySides(ctx context.Context, s scenario) ([]side, error) {
	backend, backendAddress, err := startChild(ctx, b.rig, staticVerb)
	if err != nil {
		return nil, err
	}
	admin, err := rig.Port()
	if err != nil {
		return nil, err
	}
	nothing, ours := b.field[0], b.field[1]
	native, err := b.native(ctx)
	if err != nil {
		return nil, err
	}
	all := chains(native)
	config, addresses, err := envoyConfig(all, admin, nothing.address, ours.address, backendAddress)
	if err != nil {
		return nil, err
	}
	envoy, err := b.startEnvoy(ctx, config, rig.Local(admin))
	if err != nil {
		return nil, err
	}
	processes := map[string][]int{
		"envoy": {envoy.PID}, "backend": {backend.PID}, "service": {nothing.service[0], ours.service[0]}, "redis": ours.redis,
	}
	base := 0.0 // of this round; the side without filters comes first
	var sides []side
	for _, c := range all {
		o := load.Options{Addresses: []string{addresses[c.name]}, Connections: s.connections, Plain: b.requests(addresses[c.name], s.keys)}
		sides = append(sides, side{row: &row{scenario: s, contestant: c.name}, measure: func(ctx context.Context) (figures, error) {
			f, err := b.sample(ctx, o, processes, false)
			if err != nil {
				return nil, err
			}
			if c.name == envoyBare {
				base = f["cpu"]
			}
			f["tax"] = f["cpu"] - base
			return f, nil
		}})
	}
	return sides, nil
}

func (b *bench) startEnvoy(ctx context.Context, config, admin string) (*rig.Process, error) {
	path := filepath.Join(b.rig.Dir, "envoy.json")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := b.rig.Envoy(path)
	if err != nil {
		return nil, err
	}
	err = rig.Until(ctx, 20*time.Second, "envoy to be ready", func() error {
		a, err := http.Get("http://" + admin + "/ready")
		if err != nil {
			return err
		}
		defer a.Body.Close()
		if a.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", a.StatusCode)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Said())
	}
	return p, nil
}

// requests is what the load asks Envoy: each key, and each token, in turn.
func (b *bench) requests(host string, keys uint64) func([]byte, uint64) []byte {
	texts := make([]string, keys)
	for i := range texts {
		texts[i] = fmt.Sprintf("GET /orders HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nx-key: key-%d\r\nAuthorization: Bearer %s\r\n\r\n",
			host, i, b.tokens[i%len(b.tokens)])
	}
	return func(dst []byte, number uint64) []byte { return append(dst, texts[number%keys]...) }
}
