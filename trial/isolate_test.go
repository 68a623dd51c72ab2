package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/proto"
)

// policies are those of the examples, and one that reaches out in every way that there is.
func policies(t *testing.T) map[string]policy.Files {
	t.Helper()
	all := map[string]policy.Files{"outside": {"policy.yaml": []byte(`
gateways:
  edge:
    listeners:
      http: {port: 10000, accessLog: {path: /var/log/access.log}}
      db: {port: 5432, protocol: TCP, accessLog: {path: /var/log/db.log}}
    tracing: {openTelemetry: {service: collector}}
    accessLog: {openTelemetry: {service: collector}}
auth: {idp: {jwt: {issuer: idp, audiences: any, jwks: "https://id.example.com/keys", verify: envoy}}}
services:
  named: {dns: {name: "named.example.com:443", type: logical}, tls: {hostname: named.example.com}, healthCheck: {path: /}}
  numbered: {endpoints: ["192.0.2.1:80", "[2001:db8::1]:80"]}
  collector: {endpoints: ["192.0.2.3:4317"], protocol: grpc}
routes:
  named: {hostnames: [a.test], auth: [idp], backends: {named: 1}, mirror: {numbered: 10%}}
  numbered: {hostnames: [b.test], backends: {numbered: 1}}
  db: {listeners: [db], backends: {numbered: 1}}
`)}}
	dirs, err := filepath.Glob("../examples/*/README.md")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no examples (%v)", err)
	}
	for _, name := range dirs {
		files, problems, err := control.ReadDir(filepath.Dir(name))
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		all[name] = files
	}
	archive, err := txtar.ParseFile("testdata/holds.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		if f.Name == "policy.yaml" {
			all["holds"] = policy.Files{f.Name: f.Data}
		}
	}
	return all
}

// Whatever a policy says, Envoys are served nothing that leads away from this machine, and write no file.
func TestNothingLeadsElsewhere(t *testing.T) {
	for name, files := range policies(t) {
		m, problems := feature.Language().Load(files)
		if m == nil {
			t.Fatal(name, problems.Err())
		}
		ca, err := newAuthority()
		if err != nil {
			t.Fatal(err)
		}
		held, err := newSecrets(m, nil, ca)
		if err != nil {
			t.Fatal(err)
		}
		if m, problems = feature.Language().WithSecrets(held).Load(files); m == nil {
			t.Fatal(name, problems.Err())
		}
		compiled, err := control.Compile(m)
		if err != nil {
			t.Fatal(err)
		}
		i := &isolated{model: m, authority: ca, samples: newSamples(ca), issuer: "127.0.0.1:1"}
		var gateways []string
		for _, g := range m.Gateways {
			gateways = append(gateways, g.Name)
		}
		served, err := i.resources(compiled.Resources, gateways)
		i.samples.close()
		if err != nil {
			t.Fatal(err)
		}
		addresses, logs := 0, 0
		for _, list := range served {
			for _, r := range list {
				envoy.Walk(r.Message, func(m proto.Message) bool {
					switch m := m.(type) {
					case *corev3.SocketAddress:
						if addresses++; m.Address != "127.0.0.1" {
							t.Errorf("%s: %s leads to %s", name, r.Name, m.Address)
						}
					case *accesslogv3.AccessLog:
						if logs++; !strings.HasSuffix(m.Name, "_grpc") {
							t.Errorf("%s: %s logs to %s", name, r.Name, m.Name)
						}
					case *corev3.DataSource:
						if m.GetFilename() != "" || m.GetEnvironmentVariable() != "" {
							t.Errorf("%s: %s reads %v", name, r.Name, m)
						}
					}
					return false
				})
			}
		}
		if addresses == 0 || logs == 0 {
			t.Errorf("%s: %d addresses, %d logs", name, addresses, logs)
		}
	}
	if _, err := os.Stat("/var/log/access.log"); err == nil {
		t.Error("a log was written")
	}
}
