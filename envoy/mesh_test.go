package envoy_test

import (
	"strings"
	"testing"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

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
