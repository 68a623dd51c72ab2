package envoy_test

import (
	"net/netip"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

func TestZonesWeightsAndPriorities(t *testing.T) {
	at := func(host, zone string, weight, priority uint32) policy.Endpoint {
		return policy.Endpoint{Host: host, Port: 80, Zone: zone, Weight: weight, Priority: priority}
	}
	s := service("web", at("10.0.0.4", "b", 1, 1), at("10.0.0.1", "b", 3, 0), at("10.0.0.2", "a", 1, 0), at("10.0.0.3", "b", 2, 0),
		at("10.0.0.5", "", 0, 1))
	list := translate(t, modelOf([]*policy.Listener{httpListener("http")}, route("r", "app.test", "/", to(s))))
	type one struct {
		Priority uint32
		Zone     string
		Weight   uint32
		Hosts    map[string]uint32
	}
	var got []one
	for _, l := range find[*endpointv3.ClusterLoadAssignment](t, list, "web").Endpoints {
		hosts := make(map[string]uint32)
		for _, e := range l.LbEndpoints {
			hosts[e.GetEndpoint().Address.GetSocketAddress().Address] = e.LoadBalancingWeight.GetValue()
		}
		got = append(got, one{l.Priority, l.Locality.Zone, l.LoadBalancingWeight.Value, hosts})
	}
	want := []one{
		{0, "a", 1, map[string]uint32{"10.0.0.2": 0}},
		{0, "b", 5, map[string]uint32{"10.0.0.1": 3, "10.0.0.3": 2}},
		{1, "", 1, map[string]uint32{"10.0.0.5": 0}},
		{1, "b", 1, map[string]uint32{"10.0.0.4": 0}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("localities (-want +got):\n%s", diff)
	}
}

// TestLoadFollowsWeightsAndPriorities counts what the real Envoy sends where.
func TestLoadFollowsWeightsAndPriorities(t *testing.T) {
	backend := func(weight, priority uint32, zone string) policy.Endpoint {
		e := upstream(t)
		e.Weight, e.Priority, e.Zone = weight, priority, zone
		return e
	}
	heavy, light, spare := backend(3, 0, "a"), backend(1, 0, "b"), backend(1, 1, "a")
	m := modelOf([]*policy.Listener{httpListener("http")},
		route("weighed", "app.test", "/weighed", to(service("weighed", heavy, light, spare))))
	address := live(t, m)["http"]
	count := make(map[string]int)
	for range 40 {
		a := get(t, address, "app.test", "/weighed")
		count[a.header.Get("X-Served-By")]++
	}
	want := map[string]int{portOf(heavy): 30, portOf(light): 10}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func portOf(e policy.Endpoint) string {
	return netip.AddrPortFrom(netip.MustParseAddr(e.Host), uint16(e.Port)).String()
}

func TestNames(t *testing.T) {
	name := func(d policy.DNS) *dnsv3.DnsCluster {
		d.Host, d.Port = "backend.test", 8080
		s := &policy.Service{Entry: entry("name"), DNS: &d}
		c := find[*clusterv3.Cluster](t, translate(t, modelOf([]*policy.Listener{httpListener("http")}, route("r", "app.test", "/", to(s)))), "name")
		got := new(dnsv3.DnsCluster)
		if err := c.GetClusterType().GetTypedConfig().UnmarshalTo(got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	strict := name(policy.DNS{})
	if !strict.RespectDnsTtl || strict.DnsMinRefreshRate.AsDuration() != 5*time.Second || strict.AllAddressesInSingleEndpoint {
		t.Errorf("each address for as long as it lives: %v", strict)
	}
	logical := name(policy.DNS{Logical: true, Refresh: time.Minute})
	if logical.RespectDnsTtl || logical.DnsRefreshRate.AsDuration() != time.Minute || !logical.AllAddressesInSingleEndpoint {
		t.Errorf("one address, looked up each minute: %v", logical)
	}
}

// TestLogicalName has the real Envoy resolve a name.
func TestLogicalName(t *testing.T) {
	e := upstream(t)
	e.Host = "localhost"
	for _, logical := range []bool{false, true} {
		s := &policy.Service{Entry: entry("name"), DNS: &policy.DNS{Endpoint: e, Logical: logical}}
		address := live(t, modelOf([]*policy.Listener{httpListener("http")}, route("r", "app.test", "/", to(s))))["http"]
		if got := get(t, address, "app.test", "/"); got.code != 200 {
			t.Errorf("logical %t: %d %s", logical, got.code, got.body)
		}
	}
}

// TestClusterPerGateway holds that each gateway shows its own certificate to a service with a sidecar, and that any other
// service's cluster is made once.
func TestClusterPerGateway(t *testing.T) {
	s := service("web", policy.Endpoint{Host: "10.0.0.1", Port: 80})
	inbound := httpsListener("inbound")
	inbound.Trusted, inbound.Peers = true, []string{"edge", "inner"}
	s.Sidecar = &policy.Gateway{Entry: entry("web"), Sidecar: true, Listeners: []*policy.Listener{inbound}}
	shared := service("shared", policy.Endpoint{Host: "10.0.0.2", Port: 80})
	m := modelOf([]*policy.Listener{httpListener("http")}, route("r", "app.test", "/", to(s), to(shared)))
	inner := &policy.Gateway{Entry: entry("inner"), Listeners: m.Gateways[0].Listeners}
	m.Bound[inner] = m.Bound[m.Gateways[0]]
	m.Gateways = append(m.Gateways, inner)
	addSecret(m, &policy.Secret{Kind: policy.AuthoritySecret, Name: "mesh/ca"})
	for _, g := range m.Gateways {
		g.Mesh = &policy.Mesh{Certificate: "mesh/" + g.Name, CA: policy.Authority{Secret: "mesh/ca"}}
		addSecret(m, &policy.Secret{Kind: policy.CertificateSecret, Name: g.Mesh.Certificate})
	}
	resources, err := envoy.Translate(m, testKinds)
	if err != nil {
		t.Fatal(err)
	}
	for gateway, list := range resources {
		context := new(tlsv3.UpstreamTlsContext)
		if err := find[*clusterv3.Cluster](t, list, "web").GetTransportSocket().GetTypedConfig().UnmarshalTo(context); err != nil {
			t.Fatal(err)
		}
		if got, want := context.CommonTlsContext.TlsCertificateSdsSecretConfigs[0].Name, "certificate/mesh/"+gateway; got != want {
			t.Errorf("%s shows %s, want %s", gateway, got, want)
		}
	}
	a, b := find[*clusterv3.Cluster](t, resources["edge"], "shared"), find[*clusterv3.Cluster](t, resources["inner"], "shared")
	if a != b {
		t.Error("a cluster that is the same for all gateways was made twice")
	}
}

func TestServicesThatSettingsUseAreServed(t *testing.T) {
	var all []*policy.Service
	for _, name := range []string{"by-gateway", "by-listener", "by-route", "unused"} {
		all = append(all, service(name, policy.Endpoint{Host: "10.0.0.1", Port: 80}))
	}
	l, r := httpListener("http"), named("r", "app.test", "/")
	m := modelOf([]*policy.Listener{l}, r)
	m.Services = all
	m.Gateways[0].Settings = policy.Settings{set(toyKind, &toy{uses: []string{"by-gateway"}})}
	l.Settings = policy.Settings{set(toyKind, &toy{uses: []string{"by-listener"}})}
	r.Settings = append(r.Settings, set(toyKind, &toy{uses: []string{"by-route"}}))
	var got []string
	for _, r := range translate(t, m) {
		if _, ok := r.Message.(*clusterv3.Cluster); ok {
			got = append(got, r.Name)
		}
	}
	if diff := cmp.Diff([]string{"by-gateway", "by-listener", "by-route"}, got); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
}
