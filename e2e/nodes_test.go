package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/legation/legation/app"
	"github.com/legation/legation/xds"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// What a real Envoy has is told of each resource, by the command and to gRPC's tools alike, with no secret in it; it can do
// all that the policy asks; and how it stood is known when it has left.
func TestEachResourceOfAnEnvoyIsTold(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.serve(t)
	e := p.envoy(t, "edge")
	answers(t, fmt.Sprintf("http://localhost:%d/", port))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	id := "edge-" + host
	told := func() (s app.Status) {
		t.Helper()
		out, _ := legation(t, "status", "--server", "http://"+p.admin, "--node", id, "-o", "json")
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return s
	}
	versions := map[string]string{}
	eventually(t, "all resources to be acknowledged", func() error {
		s := told()
		if len(s.Nodes) != 1 || len(s.Nodes[0].Types) < 4 {
			return fmt.Errorf("got %+v", s.Nodes)
		}
		if lacks := s.Nodes[0].Lacks; len(lacks) > 0 {
			t.Fatalf("this Envoy is said not to have %v", lacks)
		}
		for _, of := range s.Nodes[0].Types {
			if len(of.Resources) == 0 {
				return fmt.Errorf("no %s", of.Type)
			}
			for _, r := range of.Resources {
				if r.State != xds.ACK || r.Since == nil || r.Acknowledged == "" || !strings.HasPrefix(r.Origin, "policy.yaml:") {
					return fmt.Errorf("%s: %+v", of.Type, r)
				}
				versions[of.Type+"/"+r.Name] = r.Acknowledged
			}
		}
		return nil
	})
	if versions["cluster/app"] == "" || versions["endpoint/app"] == "" || versions["listener/http"] == "" {
		t.Errorf("got %v", versions)
	}

	conn, err := grpc.NewClient(p.admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	answer, err := statusv3.NewClientStatusDiscoveryServiceClient(conn).FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{})
	if err != nil || len(answer.GetConfig()) != 1 {
		t.Fatalf("%v, %v", answer, err)
	}
	for _, g := range answer.GetConfig()[0].GetGenericXdsConfigs() {
		short := strings.ToLower(g.GetTypeUrl()[strings.LastIndex(g.GetTypeUrl(), ".")+1:])
		short = map[string]string{"clusterloadassignment": "endpoint", "routeconfiguration": "route"}[short]
		if short != "" && g.GetVersionInfo() != versions[short+"/"+g.GetName()] {
			t.Errorf("%s %s: version %q, but status has %q", short, g.GetName(), g.GetVersionInfo(), versions[short+"/"+g.GetName()])
		}
		if g.GetClientStatus().String() != "ACKED" || g.GetXdsConfig() == nil {
			t.Errorf("%s %s: %s, contents %t", short, g.GetName(), g.GetClientStatus(), g.GetXdsConfig() != nil)
		}
	}

	e.kill()
	eventually(t, "the Envoy to be known as gone", func() error {
		s := told()
		if len(s.Nodes) != 0 || len(s.Left) != 1 || s.Left[0].ID != id || s.Left[0].Left == nil || s.Left[0].Version == "" {
			return fmt.Errorf("connected %+v, left %+v", s.Nodes, s.Left)
		}
		return nil
	})
	if out, _ := legation(t, "status", "--server", "http://"+p.admin); !strings.Contains(out, "left: "+id+" (edge) went ") {
		t.Errorf("status does not tell that it left:\n%s", out)
	}
}
