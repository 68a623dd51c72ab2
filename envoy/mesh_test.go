package envoy_test

import (
	"strings"
	"testing"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// TestIdentityIsNotLent: the certificate by which a sidecar is known is its own, whatever setting of another gateway names it.
func TestIdentityIsNotLent(t *testing.T) {
	known := func(name, certificate string) *policy.Gateway {
		return &policy.Gateway{
			Entry: entry(name), Listeners: []*policy.Listener{httpListener("http")},
			Mesh: &policy.Mesh{Certificate: certificate, CA: policy.Authority{Secret: "mesh/ca"}},
		}
	}
	for _, tt := range []struct{ name, edge, service, listener, want string }{
		{"the gateway's own", "mesh/edge", "mesh/edge", "mesh/edge", ""},
		{"one that both are known by", "mesh/orders", "mesh/orders", "mesh/orders", ""},
		{"others", "mesh/edge", "tls/client", "tls/edge", ""},
		{"of a sidecar, in a service", "mesh/edge", "mesh/orders", "tls/edge", "services.web: the certificate mesh/orders tells who orders is"},
		{"of a sidecar, in a listener", "mesh/edge", "tls/client", "mesh/orders", "gateways.edge.listeners.https: the certificate mesh/orders tells who orders is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := service("web", policy.Endpoint{Host: "10.0.0.1", Port: 80})
			s.Settings = policy.Settings{{Kind: mutualKind, Setting: &mutual{policy.Authority{System: true}, tt.service}, Node: &policy.Node{}}}
			l := httpsListener("https", "one.test")
			l.Certificates[0].Secret = tt.listener
			m := modelOf([]*policy.Listener{l}, route("r", "one.test", "/", to(s)))
			m.Gateways[0].Mesh = known("edge", tt.edge).Mesh
			m.Gateways = append(m.Gateways, known("orders", "mesh/orders"))
			for _, name := range []string{"mesh/edge", "mesh/orders", "tls/client", "tls/edge"} {
				addSecret(m, &policy.Secret{Kind: policy.CertificateSecret, Name: name})
			}
			_, err := envoy.Translate(m, nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestWhatStandsInTheWayOfTheMesh tells why a gateway can't send to a service that has a sidecar, whatever setting has it
// do so: it never does without.
func TestWhatStandsInTheWayOfTheMesh(t *testing.T) {
	mesh := &policy.Mesh{Certificate: "mesh/edge", CA: policy.Authority{Secret: "mesh/ca"}}
	otherTLS := policy.Settings{{Kind: mutualKind, Setting: &mutual{policy.Authority{System: true}, "mesh/edge"}, Node: &policy.Node{}}}
	for _, tt := range []struct {
		name     string
		mesh     *policy.Mesh
		peers    []string
		settings policy.Settings
		want     string
	}{
		{"nothing", mesh, []string{"edge"}, nil, ""},
		{"the gateway has no certificate", nil, []string{"edge"}, nil, "the gateway edge, which sends to it, no certificate to show"},
		{"it is no peer", mesh, []string{"other"}, nil, "takes no calls from edge"},
		{"other TLS", mesh, []string{"edge"}, otherTLS, "leaves no room for other TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := service("orders", policy.Endpoint{Host: "10.0.0.1", Port: 15006})
			s.Settings = tt.settings
			inbound := httpsListener("inbound")
			inbound.Trusted, inbound.Peers = true, tt.peers
			s.Sidecar = &policy.Gateway{Entry: entry("orders"), Sidecar: true, Listeners: []*policy.Listener{inbound}}
			m := modelOf([]*policy.Listener{httpListener("http")}, route("r", "a.test", "/", to(s)))
			m.Gateways[0].Mesh = tt.mesh
			m.Secrets = []*policy.Secret{{Kind: policy.AuthoritySecret, Name: "mesh/ca"}, {Kind: policy.CertificateSecret, Name: "mesh/edge"}}
			resources, err := envoy.Translate(m, nil)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v (%d resources), want a problem: %s", err, len(resources["edge"]), tt.want)
			}
		})
	}
}
