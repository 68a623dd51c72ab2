package tls_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"google.golang.org/grpc"
)

const rotating = `
gateways:
  edge:
    listeners:
      https: {port: %d, address: 127.0.0.1, protocol: HTTPS, certificates: [{secret: tls/a}], tls: {clientCertificates: {ca: {secret: mesh/clients}}}}
services: {mutual: {endpoints: [%q], tls: {hostname: api.internal, ca: {secret: mesh/servers}, certificate: {secret: mesh/edge}}}}
routes: {any: {hostnames: [a.test], backends: {mutual: 1}}}
`

// served is an Envoy that gets its resources from a control plane, and those as they change.
type served struct {
	t         *testing.T
	secrets   policy.SecretSource
	text      string
	snapshots cache.SnapshotCache
	version   int
	envoy     *envoy.Process
}

func (s *served) publish() {
	s.t.Helper()
	m, problems := policy.New(kinds...).WithSecrets(s.secrets).Load(policy.Files{"policy.yaml": []byte(s.text)})
	if err := problems.Err(); err != nil {
		s.t.Fatal(err)
	}
	resources, err := envoy.Translate(m, kinds)
	if err != nil {
		s.t.Fatal(err)
	}
	byType := make(map[string][]types.Resource)
	for _, r := range resources["edge"] {
		byType[r.Type] = append(byType[r.Type], r.Message)
	}
	s.version++
	snapshot, err := cache.NewSnapshot(strconv.Itoa(s.version), byType)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.snapshots.SetSnapshot(s.t.Context(), "edge", snapshot); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(s.t.Context(), s.snapshots, nil))
	go server.Serve(l)
	s.t.Cleanup(server.Stop)
	s.envoy, err = envoy.Start(s.t.Context(), envoy.ProcessOptions{
		Binary: golden.Binary(s.t), Dir: s.t.TempDir(), Concurrency: 1, Drain: time.Millisecond, Log: s.t.Output(),
		Bootstrap: envoy.Bootstrap(envoy.BootstrapOptions{Group: "edge", XDS: l.Addr().String(), Admin: "127.0.0.1:0"}),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := s.envoy.Stop(context.WithoutCancel(s.t.Context())); err != nil {
			s.t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if err := s.envoy.Ready(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// renewed is secrets of which one authority was exchanged.
type renewed struct {
	policy.SecretSource
	name      string
	authority *golden.Authority
}

func (r renewed) Secret(name string) ([]byte, error) {
	if name == r.name+".crt" {
		return r.authority.PEM(), nil
	}
	return r.SecretSource.Secret(name)
}

// TestRotation exchanges both what the gateway trusts clients by and what it shows to the service, while it runs.
func TestRotation(t *testing.T) {
	golden.Binary(t)
	secrets := golden.NewSecrets(t, strings.Join([]string{
		"tls/a certificate a.test", "mesh/clients authority", "mesh/servers authority", "mesh/edge certificate edge-1.internal by mesh/servers",
	}, "\n"))
	backend := newBackend(t)
	backend.Config.SetKeepAlivesEnabled(false) // what is open stays as it was
	servers := secrets.Authority(t, "mesh/servers")
	backend.start(t, servers.Issue(t, "api.internal"), false, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, servers.Pool()
	})
	port := golden.FreePort(t)
	s := &served{t: t, secrets: secrets, snapshots: cache.NewSnapshotCache(false, cache.IDHash{}, nil)}
	s.text = fmt.Sprintf(rotating, port, backend.address())
	s.publish()
	s.start()

	old := secrets.Authority(t, "mesh/clients").Issue(t, "spiffe://mesh/old")
	get := func(c golden.Certificate) string {
		config := showing(t, &tls.Config{ServerName: "a.test", RootCAs: secrets.Authority(t, "").Pool()}, c)
		transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
		}, DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: transport}).Get("https://a.test/")
		if err != nil {
			return "refused"
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	await := func(c golden.Certificate, want string) {
		t.Helper()
		golden.Eventually(t, "an answer "+want, func() bool { return strings.Contains(get(c), want) })
	}
	await(old, "from edge-1.internal")

	secrets.Issue(t, "mesh/edge", "mesh/servers", "edge-2.internal")
	s.publish()
	await(old, "from edge-2.internal")

	next := golden.NewAuthority(t, "next")
	s.secrets = renewed{secrets, "mesh/clients", next}
	s.publish()
	await(next.Issue(t, "spiffe://mesh/new"), "from edge-2.internal")
	if got := get(old); got != "refused" {
		t.Errorf("a client of the old authority: got %q, want it refused", got)
	}
	resp, err := http.Get("http://" + s.envoy.Admin() + "/stats?filter=listener_manager.listener_modified|cluster_manager.cluster_modified")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stats, _ := io.ReadAll(resp.Body)
	if want := "cluster_manager.cluster_modified: 0\nlistener_manager.listener_modified: 0\n"; string(stats) != want {
		t.Errorf("something else than secrets has changed:\n%s", stats)
	}
}
