package policy_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/policy"
)

const (
	meshed = "gateways: {edge: {listeners: {http: {port: 80}}, mesh: {certificate: mesh/edge, ca: {secret: ca}}}}\n"
	// toOrders is a team that calls the service of another.
	toOrders  = "routes: {a: {hostnames: [a], backends: {orders: 1}}}\n"
	toOrders2 = "routes: {a: {hostnames: [a2], backends: {orders: 1}}}\n"
	ordersAt  = "services: {orders: {endpoints: ['10.0.0.1:15006']}}\n"
)

// beside is the sidecar of orders with its peers.
func beside(peers string) string {
	return "sidecars: {orders: {app: '127.0.0.1:80', certificate: mesh/orders, ca: {secret: ca}, inbound: {port: 15006, peers: [" + peers + "]}}}\n"
}

// worker is a sidecar that calls orders.
const worker = "sidecars: {worker: {certificate: mesh/worker, ca: {secret: ca}, outbound: {port: 15001, services: [orders]}}}\n"

// TestIsolateSidecars tells for each change which files stay as they were.
func TestIsolateSidecars(t *testing.T) {
	all := files("p.yaml", meshed, "a.yaml", toOrders, "o.yaml", ordersAt, "s.yaml", beside("edge, worker"), "w.yaml", worker)
	for _, tt := range []struct {
		name      string
		candidate map[string]string // what changes; "" deletes
		back      []string          // the files that stay as they were
	}{
		{"a caller changes", map[string]string{"a.yaml": toOrders2}, nil},
		{"a caller that is no peer any more", map[string]string{"a.yaml": toOrders2, "s.yaml": beside("worker")}, []string{"a.yaml", "s.yaml"}},
		{"a peer is taken from the list", map[string]string{"s.yaml": beside("edge")}, []string{"s.yaml"}},
		{"a gateway loses its mesh", map[string]string{"p.yaml": platform}, []string{"p.yaml"}},
		{"a peer is deleted", map[string]string{"w.yaml": ""}, []string{"w.yaml"}},
		{"the service is deleted", map[string]string{"o.yaml": ""}, []string{"o.yaml"}},
		{"the sidecar is deleted: it is reached as any other service", map[string]string{"s.yaml": ""}, nil},
		{"a sidecar of a gateway's name", map[string]string{"n.yaml": strings.Replace(worker, "worker:", "edge:", 1)}, []string{"n.yaml"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			candidate := maps.Clone(all)
			for name, text := range tt.candidate {
				candidate[name] = []byte(text)
				if text == "" {
					delete(candidate, name)
				}
			}
			got, model, problems := testLanguage().Isolate(candidate, all)
			if model == nil || len(tt.back) > 0 != problems.HasErrors() {
				t.Fatalf("got the model %v with %v", model, problems)
			}
			want := maps.Clone(candidate)
			for _, name := range tt.back {
				delete(want, name)
				if was, ok := all[name]; ok {
					want[name] = was
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, problems)
			}
		})
	}
}

// TestMeshCertificates tells what is wrong with a certificate by the names in it.
func TestMeshCertificates(t *testing.T) {
	policies := files("p.yaml", strings.Replace(meshed, "edge:", "a.test:", 1))
	for _, tt := range []struct {
		certificate string
		want        []string
	}{
		{"a.test", nil},
		{"b.test", []string{"the certificate mesh/edge does not name a.test: none of the others would believe it"}},
	} {
		holds := vault{"mesh/edge.crt": cert(tt.certificate), "mesh/edge.key": key(tt.certificate), "ca.crt": cert("a.test")}
		_, problems := testLanguage().WithSecrets(holds).Load(policies)
		var got []string
		for _, p := range problems {
			got = append(got, p.Message)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.certificate, got, tt.want)
		}
	}
}

// A certificate that comes to name somebody else is not taken: the one that is served stays.
func TestMeshCertificateOfAnotherNameIsNotTaken(t *testing.T) {
	policies := files("p.yaml", strings.Replace(meshed, "edge:", "a.test:", 1))
	load := func(name string) *policy.Language {
		return testLanguage().WithSecrets(vault{"mesh/edge.crt": cert(name), "mesh/edge.key": key(name), "ca.crt": cert("a.test")})
	}
	served, problems := load("a.test").Load(policies)
	if served == nil {
		t.Fatal(problems)
	}
	_, model, problems := load("b.test").Isolate(policies, policies, served.Secrets...)
	if model == nil || !problems.HasErrors() {
		t.Fatalf("got the model %v with %v, want a problem and a model", model, problems)
	}
	if got := model.Secret("certificate/mesh/edge"); string(got.Value) != cert("a.test") {
		t.Errorf("got another certificate than the one that is served")
	}
}
