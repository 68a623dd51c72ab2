package envoy_test

import (
	"cmp"
	"os"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// toy is a setting whose contributions the test chooses.
type toy struct {
	http    *hcmv3.HttpConnectionManager
	route   envoy.RouteParts
	cluster *clusterv3.Cluster
	strip   []string

	listener   *listenerv3.Listener
	connection []*listenerv3.Filter
	tls        *tlsv3.DownstreamTlsContext
	tcp        *tcpproxyv3.TcpProxy
	uses       []string
}

func (*toy) Check(*policy.Check)                                       {}
func (t *toy) HTTP(envoy.ListenerContext) *hcmv3.HttpConnectionManager { return t.http }
func (t *toy) Route(envoy.RouteContext) envoy.RouteParts               { return t.route }
func (t *toy) StripHeaders() []string                                  { return t.strip }

func (t *toy) Listener(envoy.ListenerContext) *listenerv3.Listener { return t.listener }

func (t *toy) Connection(envoy.ListenerContext) []*listenerv3.Filter           { return t.connection }
func (t *toy) DownstreamTLS(envoy.ListenerContext) *tlsv3.DownstreamTlsContext { return t.tls }
func (t *toy) TCP(envoy.TCPContext) *tcpproxyv3.TcpProxy                       { return t.tcp }
func (t *toy) UsesServices() []string                                          { return t.uses }
func (t *toy) Cluster(envoy.ServiceContext) *clusterv3.Cluster                 { return t.cluster }

var toyKind = policy.Define[toy]("toy", policy.InGateway|policy.InListener|policy.InService|policy.Layers, "")

// serviceToy is a setting of services only, which the routes to them also ask.
var serviceToy = policy.Define[toy]("serviceToy", policy.InService, "")

func set(k *policy.Kind, t *toy) policy.Set {
	return policy.Set{Kind: k, Setting: t, Node: &policy.Node{}}
}

// guard is the filter that feature/paths contributes, by the convention of its name and its policy's name.
type guard struct{}

func (*guard) Check(*policy.Check) {}

func (*guard) Filters(envoy.ListenerContext) []envoy.Filter {
	tricky := `[^?]*(;|\\|%00|%25|%2[fF]|%5[cC]|%[cC][01]|%([^0-9a-fA-F]|$|[0-9a-fA-F]([^0-9a-fA-F]|$))|[^\x21-\x7e]).*`
	config := &rbacfilterv3.RBAC{Rules: &rbacv3.RBAC{
		Action: rbacv3.RBAC_DENY,
		Policies: map[string]*rbacv3.Policy{"guard": {
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
				Name: ":path",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: tricky}},
				}},
			}}}},
			Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
		}},
	}}
	return []envoy.Filter{{Name: "legation.guard", Phase: envoy.Guard, Config: config, Enabled: true}}
}

var guardKind = policy.Define[guard]("guard", policy.Layers, "")

// door is a filter that refuses /admin, switched off by the routes that have the key: it stands in for ext_authz.
type door struct{}

func (*door) Check(*policy.Check) {}

func (*door) Filters(envoy.ListenerContext) []envoy.Filter {
	config := &rbacfilterv3.RBAC{Rules: &rbacv3.RBAC{
		Action: rbacv3.RBAC_DENY,
		Policies: map[string]*rbacv3.Policy{"door": {
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
				Rule: &matcherv3.PathMatcher_Path{Path: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "/admin"},
				}},
			}}}},
			Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
		}},
	}}
	return []envoy.Filter{{Name: "test.door", Phase: envoy.Identity, Config: config, Enabled: true}}
}

func (*door) Route(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Filters: map[string]proto.Message{"test.door": envoy.Off}}
}

var doorKind = policy.Define[door]("door", policy.Layers, "")

var testKinds = []*policy.Kind{doorKind, guardKind, toyKind}

// modelOf makes a model of one gateway, edge, in order of precedence as given.
func modelOf(listeners []*policy.Listener, routes ...*policy.BoundRoute) *policy.Model {
	gw := &policy.Gateway{Entry: entry("edge"), Listeners: listeners}
	m := &policy.Model{Revision: "test", Common: policy.Common{Gateways: []*policy.Gateway{gw}}, Bound: map[*policy.Gateway][]*policy.BoundRoute{gw: routes}}
	for _, r := range routes {
		r.Gateway = gw
		m.Routes = append(m.Routes, r.Route)
		for _, b := range r.Backends {
			if !slices.Contains(m.Services, b.Service) {
				m.Services = append(m.Services, b.Service)
			}
		}
	}
	slices.SortFunc(m.Services, func(a, b *policy.Service) int { return cmp.Compare(a.Name, b.Name) })
	return m
}

func entry(name string) policy.Entry {
	return policy.Entry{Name: name, Pos: policy.Pos{File: "edge.yaml", Line: len(name), Col: 3}}
}

func httpListener(name string) *policy.Listener {
	return &policy.Listener{Entry: entry(name), Address: "127.0.0.1", Protocol: "HTTP"}
}

func service(name string, endpoints ...policy.Endpoint) *policy.Service {
	return &policy.Service{Entry: entry(name), Endpoints: endpoints}
}

func route(name, host, prefix string, to ...policy.Backend) *policy.BoundRoute {
	return &policy.BoundRoute{Route: &policy.Route{
		Entry:     entry(name),
		Hostnames: []string{host},
		Match:     policy.Match{Path: policy.PathMatch{Value: prefix}},
		Backends:  to,
	}}
}

func to(s *policy.Service) policy.Backend { return policy.Backend{Service: s, Weight: 1} }

// find returns the resource of a type and name.
func find[T proto.Message](t *testing.T, list []envoy.Resource, name string) T {
	t.Helper()
	for _, r := range list {
		if m, ok := r.Message.(T); ok && r.Name == name {
			return m
		}
	}
	t.Fatalf("no %T named %s", *new(T), name)
	panic("unreachable")
}

// realEnvoy finds the real Envoy, or skips the test.
func realEnvoy(t *testing.T) string {
	t.Helper()
	path, _, err := envoy.Find("")
	if err != nil {
		if os.Getenv("LEGATION_ENVOY") != "" {
			t.Fatal(err)
		}
		t.Skipf("the real Envoy is missing: %v", err)
	}
	return path
}

// addSecret keeps the secrets in their order.
func addSecret(m *policy.Model, s *policy.Secret) {
	m.Secrets = append(m.Secrets, s)
	slices.SortFunc(m.Secrets, func(a, b *policy.Secret) int { return cmp.Compare(a.ID(), b.ID()) })
}
