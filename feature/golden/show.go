package golden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/legation/legation/envoy"
	"google.golang.org/protobuf/proto"
)

// show gives one line and the JSON of what a selector names:
//
//	route:GATEWAY/LISTENER/HOSTNAME/ROUTE   the route, and those that a feature puts before it
//	cluster:GATEWAY/SERVICE                 the cluster of a service
//	endpoints:GATEWAY/SERVICE               its endpoints, where they are served apart from the cluster
//	listener:GATEWAY/LISTENER               the listener, of its filters and TLS the names only
//	http:GATEWAY/LISTENER                   the connection manager
//	filters:GATEWAY/LISTENER                the filters in their order, those that stand disabled in brackets
//	tls:GATEWAY/LISTENER/CHAIN              how TLS ends for a filter chain; the chain's name may have slashes
//	tcp:GATEWAY/LISTENER/CHAIN              the TCP proxy of a filter chain
//	secrets:GATEWAY                         the names of the secrets that are served
//
// Words after it are the fields to keep, such as route.retry_policy; a route's metadata is left out in any case.
func show(resources map[string][]envoy.Resource, selector string) (string, error) {
	words := strings.Fields(selector)
	if len(words) == 0 {
		return "", fmt.Errorf("want a selector")
	}
	kind, path, _ := strings.Cut(words[0], ":")
	steps := strings.Split(path, "/")
	messages, err := find(resources[steps[0]], kind, steps[1:])
	if err != nil {
		return "", err
	}
	out := selector + "\n"
	for _, m := range messages {
		text, err := render(m, words[1:])
		if err != nil {
			return "", err
		}
		out += text
	}
	return out, nil
}

func find(list []envoy.Resource, kind string, steps []string) ([]any, error) {
	if kind == "secrets" {
		return []any{secretNames(list)}, nil
	}
	for _, r := range list {
		if len(steps) == 0 || r.Name != steps[0] {
			continue
		}
		switch m := r.Message.(type) {
		case *clusterv3.Cluster:
			if kind == "cluster" {
				return []any{m}, nil
			}
		case *endpointv3.ClusterLoadAssignment:
			if kind == "endpoints" {
				return []any{m}, nil
			}
		case *routev3.RouteConfiguration:
			if kind == "route" && len(steps) == 3 {
				return routes(m, steps[1], steps[2])
			}
		case *listenerv3.Listener:
			if found, err := ofListener(m, kind, strings.Join(steps[1:], "/")); found != nil || err != nil {
				return []any{found}, err
			}
		}
	}
	return nil, fmt.Errorf("there is no %s %s", kind, strings.Join(steps, "/"))
}

func secretNames(list []envoy.Resource) []string {
	names := []string{}
	for _, r := range list {
		if _, ok := r.Message.(*tlsv3.Secret); ok {
			names = append(names, r.Name)
		}
	}
	return names
}

// ofListener is nil where the kind is not about listeners, or the chain is not there.
func ofListener(l *listenerv3.Listener, kind, chain string) (any, error) {
	i := max(0, slices.IndexFunc(l.FilterChains, func(c *listenerv3.FilterChain) bool { return c.Name == chain }))
	c := l.FilterChains[i]
	if c.Name != chain && (kind == "tls" || kind == "tcp") {
		return nil, fmt.Errorf("there is no filter chain %q", chain)
	}
	last := c.Filters[len(c.Filters)-1].GetTypedConfig()
	switch kind {
	case "listener":
		return bare(l), nil
	case "tls":
		return c.TransportSocket.GetTypedConfig().UnmarshalNew()
	case "tcp":
		return last.UnmarshalNew()
	case "http", "filters":
		m := new(hcmv3.HttpConnectionManager)
		if err := last.UnmarshalTo(m); err != nil || kind == "http" {
			return m, err
		}
		return filterNames(m), nil
	}
	return nil, nil
}

// bare is a listener without what its filters and TLS are configured with.
func bare(l *listenerv3.Listener) *listenerv3.Listener {
	l = proto.Clone(l).(*listenerv3.Listener)
	for _, f := range l.ListenerFilters {
		f.ConfigType = nil
	}
	for _, c := range l.FilterChains {
		for _, f := range c.Filters {
			f.ConfigType = nil
		}
		if c.TransportSocket != nil {
			c.TransportSocket.ConfigType = nil
		}
	}
	return l
}

func filterNames(m *hcmv3.HttpConnectionManager) []string {
	names := []string{}
	for _, f := range m.HttpFilters {
		if f.Disabled {
			names = append(names, "("+f.Name+")")
		} else {
			names = append(names, f.Name)
		}
	}
	return names
}

// routes is those of a name. In a host with routes for some clients only they stand in several lists; each is shown once.
func routes(table *routev3.RouteConfiguration, host, name string) ([]any, error) {
	var found []any
	seen := make(map[string]bool)
	for _, h := range table.VirtualHosts {
		if h.Name != host {
			continue
		}
		all, err := routesOf(h)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			text, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
			if err != nil {
				return nil, err
			}
			if r.Name == name && !seen[string(text)] {
				seen[string(text)] = true
				r = proto.Clone(r).(*routev3.Route)
				r.Metadata = nil
				found = append(found, r)
			}
		}
	}
	return found, nil
}

// routesOf is the routes of all lists of a host, those without a condition on the client last.
func routesOf(h *routev3.VirtualHost) ([]*routev3.Route, error) {
	all := h.Routes
	add := func(m *matcherv3.Matcher_OnMatch) error {
		list := new(routev3.RouteList)
		err := m.GetAction().GetTypedConfig().UnmarshalTo(list)
		all = append(all, list.Routes...)
		return err
	}
	for _, m := range h.GetMatcher().GetMatcherList().GetMatchers() {
		if err := add(m.OnMatch); err != nil {
			return nil, err
		}
	}
	if h.Matcher == nil {
		return all, nil
	}
	return all, add(h.Matcher.OnNoMatch)
}

// render is indented JSON with its keys in order, with protobuf's names as in `legation render`.
func render(v any, fields []string) (string, error) {
	if m, ok := v.(proto.Message); ok {
		decoded, err := decode(m)
		if err != nil {
			return "", err
		}
		v = decoded
	}
	if len(fields) > 0 {
		kept := map[string]any{}
		for _, f := range fields {
			kept[f] = pick(v, f)
		}
		v = kept
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return out.String(), err
}

func decode(m proto.Message) (v any, err error) {
	text, err := envoy.JSON(m)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(text, &v)
	return v, err
}

// pick follows a field such as route.retry_policy; null when it is not there.
func pick(v any, field string) any {
	for key := range strings.SplitSeq(field, ".") {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}
