package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/envoy/certtest"
)

// site is a policy with a listener of HTTPS whose certificate is a secret, and a service whose endpoints stand in a file.
func site(port, plain, heavier int, other string) string {
	return fmt.Sprintf(`gateways:
  edge:
    listeners:
      https: {port: %d, address: 127.0.0.1, protocol: HTTPS, certificates: [{hostname: site.test, secret: tls/site}]}
      http: {port: %d, address: 127.0.0.1, httpsRedirect: true}
services:
  app: {endpoints: {file: app.endpoints}}
  other: {endpoints: [%q]}
routes:
  all:
    hostnames: [site.test]
    backends: {app: %d, other: %d}
`, port, plain, other, heavier, 100-heavier)
}

// Certificates rotate, endpoints change in their file and weights move without a failed request, for clients that keep
// their connections and for those that come anew; and without a change of the listener.
func TestCertificatesEndpointsAndWeightsUnderLoad(t *testing.T) {
	t.Parallel()
	n := ports(t, 2)
	first, second, other := upstream(t, "first"), upstream(t, "second"), upstream(t, "other")
	dir, secrets := policyDir(t, site(n[0], n[1], 100, other)), t.TempDir()
	write(t, filepath.Join(dir, "app.endpoints"), first+"\n")
	ca := certtest.NewAuthority(t, "test")
	rotate := func() string {
		c := ca.Issue(t, "site.test")
		writeSecret(t, secrets, "tls/site.crt", c.Chain)
		writeSecret(t, secrets, "tls/site.key", c.Key)
		return c.TLS(t).Leaf.SerialNumber.String()
	}
	serial := rotate()
	p := newPlane(t, dir)
	p.serve(t, "--secrets-dir", secrets)
	e := p.envoy(t, "edge")

	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, local(n[0]))
	}
	keeping := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: true}
	coming := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, DisableKeepAlives: true}
	keep, come := &http.Client{Transport: keeping, Timeout: 10 * time.Second}, &http.Client{Transport: coming, Timeout: 10 * time.Second}
	served := func(want string) {
		t.Helper()
		eventually(t, "answers from "+want, func() error {
			a, err := requestBy(come, "GET", "https://site.test/")
			if got := a.header.Get("X-Service"); err == nil && got != want {
				err = fmt.Errorf("status %d from %q, want %s", a.status, got, want)
			}
			return err
		})
	}
	served("first")
	stops := []func() (int, []string){
		loadBy(t, keep, "https://site.test/", http.StatusOK),
		loadBy(t, come, "https://site.test/", http.StatusOK),
	}
	for round := range 3 {
		before := serial
		serial = rotate()
		eventually(t, "the new certificate", func() error {
			conn, err := tls.Dial("tcp", local(n[0]), &tls.Config{ServerName: "site.test", RootCAs: ca.Pool()})
			if err != nil {
				return err
			}
			defer conn.Close()
			if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.String(); got != serial {
				return fmt.Errorf("serial %s, want %s after %s", got, serial, before)
			}
			return nil
		})
		write(t, filepath.Join(dir, "app.endpoints"), []string{second, first}[round%2]+"\n")
		served([]string{"second", "first"}[round%2])
		write(t, filepath.Join(dir, "policy.yaml"), site(n[0], n[1], 0, other))
		served("other")
		write(t, filepath.Join(dir, "policy.yaml"), site(n[0], n[1], 100, other))
		served([]string{"second", "first"}[round%2])
	}
	for _, stop := range stops {
		good, bad := stop()
		if len(bad) > 0 || good == 0 {
			t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
		}
	}
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
		t.Errorf("listener_modified: got %s, want 0", got)
	}
	if a := mustRequest(t, "GET", fmt.Sprintf("http://127.0.0.1:%d/x?y=1", n[1]), "Host", "site.test"); a.status != 301 ||
		!strings.HasPrefix(a.header.Get("Location"), "https://site.test") {
		t.Errorf("plain text: got %d to %q, want 301 to https://site.test", a.status, a.header.Get("Location"))
	}
}

// writeSecret replaces a secret as a tool that renews certificates does.
func writeSecret(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".tmp", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}
