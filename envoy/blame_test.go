package envoy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/encoding/prototext"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// refusedRoute is what passes the rules of Envoy's messages, and Envoy refuses: an expression without an end.
var refusedRoute = envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: &routev3.RouteAction{
	RegexRewrite: &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: "("}, Substitution: "x"},
}}}}

// at is a setting that stands in a line of its own.
func at(line int, t *toy) policy.Set {
	return policy.Set{Kind: toyKind, Setting: t, Node: &policy.Node{Pos: policy.Pos{File: "edge.yaml", Line: line, Col: 5}}}
}

// crowdedModel is a policy of many routes to two services on two listeners.
func crowdedModel(routes int) *policy.Model {
	services := []*policy.Service{service("orders", policy.Endpoint{Host: "10.0.0.1", Port: 80, Weight: 1}), service("web", policy.Endpoint{Host: "10.0.0.2", Port: 80, Weight: 1})}
	var all []*policy.BoundRoute
	for i := range routes {
		all = append(all, route(fmt.Sprintf("route-%d", i), fmt.Sprintf("h%d.test", i%7), fmt.Sprintf("/p%d", i), to(services[i%2])))
	}
	listeners := []*policy.Listener{httpListener("first"), httpListener("second")}
	listeners[0].Port, listeners[1].Port = 10000, 10001
	return modelOf(listeners, all...)
}

func TestBlameFindsTheLine(t *testing.T) {
	binary := realEnvoy(t)
	wrongServer := &hcmv3.HttpConnectionManager{ServerName: "x", RequestIdExtension: &hcmv3.RequestIDExtension{TypedConfig: envoy.Pack(&corev3.Address{})}}
	for _, row := range []struct {
		name  string
		spoil func(m *policy.Model, gw *policy.Gateway)
		lines []int
	}{
		{"nothing", func(*policy.Model, *policy.Gateway) {}, nil},
		{"a route in the middle", func(m *policy.Model, gw *policy.Gateway) {
			m.Bound[gw][137].Settings = policy.Settings{at(41, &toy{}), at(42, &toy{route: refusedRoute})}
		}, []int{42}},
		{"the first route and the last", func(m *policy.Model, gw *policy.Gateway) {
			m.Bound[gw][0].Settings = policy.Settings{at(42, &toy{route: refusedRoute})}
			m.Bound[gw][3].Settings = policy.Settings{at(43, &toy{route: refusedRoute})}
			m.Bound[gw] = m.Bound[gw][:4]
		}, []int{42, 43}},
		{"a listener", func(_ *policy.Model, gw *policy.Gateway) {
			gw.Listeners[1].Settings = policy.Settings{at(42, &toy{http: wrongServer})}
		}, []int{42}},
		{"all listeners, by their gateway", func(_ *policy.Model, gw *policy.Gateway) {
			gw.Settings = policy.Settings{at(42, &toy{http: wrongServer})}
		}, []int{42}},
		{"a cluster", func(m *policy.Model, _ *policy.Gateway) {
			m.Services[1].Settings = policy.Settings{at(42, &toy{cluster: &clusterv3.Cluster{TransportSocket: brokenSocket()}})}
		}, []int{42}},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := crowdedModel(200)
			row.spoil(m, m.Gateways[0])
			asked, searching := 0, 0
			j := envoy.Judge{Kinds: testKinds, Searching: func(string) { searching++ }, Ask: func(ctx context.Context, b *bootstrapv3.Bootstrap) error {
				asked++
				return envoy.Validate(ctx, binary, b)
			}}
			problems, err := j.Gateway(t.Context(), m, m.Gateways[0])
			if err != nil {
				t.Fatal(err)
			}
			var lines []int
			for _, p := range problems {
				lines = append(lines, p.Pos.Line)
				t.Log(p, p.Hint)
			}
			if fmt.Sprint(lines) != fmt.Sprint(row.lines) {
				t.Errorf("got lines %v, want %v", lines, row.lines)
			}
			if asked > envoy.MaxAsked || searching != min(len(lines), 1) {
				t.Errorf("asked %d times, told %d times that it searches", asked, searching)
			}
		})
	}
}

// An Envoy that names what it refuses is asked about that first; one that names something else is not believed.
func TestBlameGoesByTheName(t *testing.T) {
	for _, row := range []struct {
		says string
		most int
	}{{"route 'route-700' is wrong", 5}, {"route 'route-9' is wrong", 17}, {"something is wrong", 16}} {
		m := crowdedModel(1000)
		asked := 0
		j := envoy.Judge{Kinds: testKinds, Ask: func(_ context.Context, b *bootstrapv3.Bootstrap) error {
			asked++
			if strings.Contains(prototext.Format(b), `"/p700"`) {
				return &envoy.Refused{Words: row.says}
			}
			return nil
		}}
		problems, err := j.Gateway(t.Context(), m, m.Gateways[0])
		if err != nil || len(problems) != 1 || problems[0].Path != "routes.route-700" || asked > row.most {
			t.Errorf("%s: got %v %v by %d questions, want one about route-700 by %d", row.says, problems, err, asked, row.most)
		}
	}
}

// Two that Envoy takes one at a time have no line of their own; and an Envoy that refuses everything is not asked for ever.
func TestBlameEnds(t *testing.T) {
	m := crowdedModel(1000)
	asked := 0
	j := envoy.Judge{Kinds: testKinds, Ask: func(_ context.Context, b *bootstrapv3.Bootstrap) error {
		asked++
		return &envoy.Refused{Words: "no"}
	}}
	problems, err := j.Gateway(t.Context(), m, m.Gateways[0])
	if err != nil || len(problems) == 0 || asked > envoy.MaxAsked {
		t.Errorf("got %v %v by %d questions", problems, err, asked)
	}
	gone := errors.New("gone")
	j.Ask = func(context.Context, *bootstrapv3.Bootstrap) error { return gone }
	if problems, err := j.Gateway(t.Context(), m, m.Gateways[0]); !errors.Is(err, gone) || problems != nil {
		t.Errorf("an Envoy that can't be asked: got %v %v", problems, err)
	}
}
