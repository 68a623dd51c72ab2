package golden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/envoy"
	"google.golang.org/protobuf/proto"
)

// show gives one line and the JSON of what a selector names:
//
//	route:GATEWAY/LISTENER/HOSTNAME/ROUTE   the route, and those that a feature puts before it
//	cluster:GATEWAY/SERVICE                 the cluster of a service
//	endpoints:GATEWAY/SERVICE               the list of its endpoints
//	http:GATEWAY/LISTENER                   the connection manager
//	tcp:GATEWAY/LISTENER                    the TCP proxy of the first filter chain
//	filters:GATEWAY/LISTENER                the filters in their order, those that stand disabled in brackets
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
	for _, r := range list {
		switch m := r.Message.(type) {
		case *clusterv3.Cluster:
			if kind == "cluster" && r.Name == steps[0] {
				return []any{m}, nil
			}
		case *endpointv3.ClusterLoadAssignment:
			if kind == "endpoints" && r.Name == steps[0] {
				return []any{m}, nil
			}
		case *routev3.RouteConfiguration:
			if kind == "route" && len(steps) == 3 && r.Name == steps[0] {
				return routes(m, steps[1], steps[2]), nil
			}
		case *listenerv3.Listener:
			if (kind == "http" || kind == "filters") && r.Name == steps[0] {
				return manager(m, kind)
			}
			if kind == "tcp" && r.Name == steps[0] {
				return proxy(m)
			}
		}
	}
	return nil, fmt.Errorf("there is no %s %s", kind, strings.Join(steps, "/"))
}

func routes(table *routev3.RouteConfiguration, host, name string) []any {
	var found []any
	for _, h := range table.VirtualHosts {
		for _, r := range h.Routes {
			if h.Name == host && r.Name == name {
				r = proto.Clone(r).(*routev3.Route)
				r.Metadata = nil
				found = append(found, r)
			}
		}
	}
	return found
}

func proxy(l *listenerv3.Listener) ([]any, error) {
	filters := l.FilterChains[0].Filters
	m := new(tcpproxyv3.TcpProxy)
	if err := filters[len(filters)-1].GetTypedConfig().UnmarshalTo(m); err != nil {
		return nil, err
	}
	return []any{m}, nil
}

func manager(l *listenerv3.Listener, kind string) ([]any, error) {
	m := new(hcmv3.HttpConnectionManager)
	if err := l.FilterChains[0].Filters[0].GetTypedConfig().UnmarshalTo(m); err != nil {
		return nil, err
	}
	if kind == "http" {
		return []any{m}, nil
	}
	names := []string{}
	for _, f := range m.HttpFilters {
		if f.Disabled {
			names = append(names, "("+f.Name+")")
		} else {
			names = append(names, f.Name)
		}
	}
	return []any{names}, nil
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
