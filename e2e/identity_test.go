package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/xds"
)

// pki is the authority of a test.
type pki struct {
	t   *testing.T
	dir string
}

func newPKI(t *testing.T) pki {
	t.Helper()
	p := pki{t, filepath.Join(t.TempDir(), "pki")}
	p.do("init")
	p.do("issue", "--server", "127.0.0.1")
	return p
}

// do runs a verb of legation pki.
func (p pki) do(verb string, args ...string) string {
	p.t.Helper()
	out, status := legation(p.t, append([]string{"pki", verb, p.dir}, args...)...)
	if status != 0 {
		p.t.Fatalf("pki %s %v: %s", verb, args, out)
	}
	return out
}

func (p pki) path(name string) string { return filepath.Join(p.dir, name) }

// flags shows the certificate of that name.
func (p pki) flags(name string) []string {
	return []string{"--tls-cert", p.path(name + ".crt"), "--tls-key", p.path(name + ".key"), "--tls-ca", p.path("ca.crt")}
}

// watchful starts an Envoy that watches its certificate, at several control planes.
func watchful(t *testing.T, planes []*plane, group string, more ...string) *envoyChild {
	t.Helper()
	admin, dir := local(ports(t, 1)[0]), t.TempDir()
	args := []string{"bootstrap", "--group", group, "--envoy-admin-address", admin, "--out", dir}
	for _, p := range planes {
		args = append(args, "--server", p.xds, "--companion", p.companion)
	}
	if out, status := legation(t, append(args, more...)...); status != 0 {
		t.Fatalf("bootstrap: %s", out)
	}
	if out, status := validated(filepath.Join(dir, "envoy.json")); status != 0 {
		t.Fatalf("the bootstrap is not valid: %s", out)
	}
	c := start(t, proxy, "-c", filepath.Join(dir, "envoy.json"), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn")
	return &envoyChild{c, admin}
}

// node waits for the one Envoy that is connected to a control plane since then.
func node(t *testing.T, p *plane, since time.Time) (n xds.NodeStatus) {
	t.Helper()
	eventually(t, "an Envoy", func() error {
		nodes := p.status(t).Nodes
		if len(nodes) != 1 || nodes[0].Connected.Before(since) {
			return fmt.Errorf("there are %v", nodes)
		}
		n = nodes[0]
		return nil
	})
	return n
}

// Certificates of both ends, and the authority, change while an Envoy serves: no request fails, nothing drains, and what
// was good before can be taken back afterwards.
func TestRotationOnALiveEnvoy(t *testing.T) {
	t.Parallel()
	ca := newPKI(t)
	ca.do("issue", "--group", "edge")
	port := ports(t, 1)[0]
	policy := edge(port, upstream(t, "app"))
	policy = strings.ReplaceAll(policy, "    rateLimit: {rate: 100/day, by: consumer}\n", "")
	p := newPlane(t, policyDir(t, policy))
	p.serve(t, append(ca.flags("legation"), "--max-connection-age", "2s")...)
	e := watchful(t, []*plane{p}, "edge", ca.flags("edge")...)
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	stop := load(t, base+"/private", http.StatusOK, "Authorization", "Bearer "+token(t, "alice"))

	old := serials(t, ca, "edge")
	ca.do("renew", "edge")
	fresh := without(serials(t, ca, "edge"), old[0])[0]
	eventually(t, "the new certificate", func() error {
		body, err := get("http://"+e.admin+"/certs", "")
		if err == nil && !strings.Contains(body, fresh) {
			err = fmt.Errorf("%s is not among %s", fresh, body)
		}
		return err
	})
	ca.do("renew", "legation")
	renewed := time.Now()
	n := node(t, p, renewed) // by the new certificate, after its connection has reached its age
	node(t, p, n.Connected.Add(time.Second))

	ca.do("revoke", old[0])
	node(t, p, time.Now())
	write(t, filepath.Join(p.dir, "policy.yaml"), strings.Replace(policy, "hostnames: [localhost]", "hostnames: [localhost, added.test]", 1))
	answersTo(t, base, "added.test")
	good, bad := stop()
	if len(bad) > 0 || good == 0 {
		t.Errorf("%d good, %d failed: %.3q", good, len(bad), bad)
	}
	e.zero(t, "listener_manager.listener_modified", "listener_manager.listener_removed", "cluster_manager.cluster_removed")
	// The list reaches those that were let in by what is on it.
	ca.do("revoke", "edge")
	eventually(t, "the end of its stream", func() error {
		if n := len(p.status(t).Nodes); n > 0 {
			return fmt.Errorf("%d Envoys", n)
		}
		return nil
	})
	if a := mustRequest(t, "GET", base+"/"); a.status != http.StatusOK {
		t.Errorf("an Envoy that is refused answers %d, want what it last had", a.status)
	}
}

// answersTo waits until a host is served.
func answersTo(t *testing.T, base, host string) {
	t.Helper()
	eventually(t, host, func() error {
		a, err := request("GET", base+"/", "Host", host)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
}

// serials is the numbers of the certificates of a name.
func serials(t *testing.T, ca pki, name string) (numbers []string) {
	t.Helper()
	for line := range strings.Lines(ca.do("show")) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			numbers = append(numbers, fields[len(fields)-1])
		}
	}
	return numbers
}

// One of two control planes is killed under load: no request fails, and the next change comes through the other.
func TestFailOver(t *testing.T) {
	t.Parallel()
	ca := newPKI(t)
	ca.do("issue", "--group", "edge")
	port := ports(t, 1)[0]
	policy := edge(port, upstream(t, "app"))
	dir := policyDir(t, policy)
	planes := []*plane{newPlane(t, dir), newPlane(t, dir)}
	for _, p := range planes {
		p.serve(t, ca.flags("legation")...)
	}
	e := watchful(t, planes, "edge", ca.flags("edge")...)
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/")
	e.knows(t, 2)
	first, other := planes[0], planes[1]
	if len(first.status(t).Nodes) == 0 {
		first, other = other, first
	}
	stop := load(t, base+"/", http.StatusOK)
	killed := time.Now()
	first.kill()
	n := node(t, other, killed)
	t.Logf("with the other one %v after the kill", n.Connected.Sub(killed))
	if took := n.Connected.Sub(killed); took > 6*time.Second {
		t.Errorf("it took %v, want at most 6s", took)
	}
	write(t, filepath.Join(dir, "policy.yaml"), strings.Replace(policy, "hostnames: [localhost]", "hostnames: [localhost, added.test]", 1))
	answersTo(t, base, "added.test")
	if good, bad := stop(); len(bad) > 0 || good == 0 {
		t.Errorf("%d good, %d failed: %.3q", good, len(bad), bad)
	}
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
		t.Errorf("listener_modified is %s, want 0", got)
	}
}

// No Envoy without the right certificate gets anything.
func TestEnvoysWithoutTheRightCertificate(t *testing.T) {
	t.Parallel()
	ca, other := newPKI(t), newPKI(t)
	file := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, file, `nodes: {edge: {certificates: [{uri: "spiffe://example.com/gateway/edge"}]}}`)
	p := newPlane(t, policyDir(t, edge(ports(t, 1)[0], upstream(t, "app"))))
	ca.do("issue", "--group", "edge", "--trust-domain", "example.com", "--out", ca.path("revoked"))
	ca.do("revoke", "edge")
	for _, at := range []pki{ca, other} {
		at.do("issue", "--group", "edge", "--trust-domain", "example.com")
	}
	ca.do("issue", "--group", "inner", "--trust-domain", "example.com")
	ca.do("issue", "--group", "edge", "--trust-domain", "other.example", "--out", ca.path("other"))
	p.serve(t, append(ca.flags("legation"), "--nodes", file)...)
	mixed := func(dir string) []string {
		return []string{"--tls-cert", filepath.Join(dir, "edge.crt"), "--tls-key", filepath.Join(dir, "edge.key"), "--tls-ca", ca.path("ca.crt")}
	}
	for name, flags := range map[string][]string{
		"none":              nil,
		"of another CA":     mixed(other.dir),
		"of another group":  ca.flags("inner"),
		"by another name":   mixed(ca.path("other")),
		"revoked":           mixed(ca.path("revoked")),
		"of a server":       ca.flags("legation"),
		"trusts another CA": append(append([]string{}, ca.flags("edge")[:4]...), "--tls-ca", other.path("ca.crt")),
	} {
		e := watchful(t, []*plane{p}, "edge", flags...)
		eventually(t, name, func() error {
			for _, stat := range []string{"cluster.legation_xds.upstream_cx_connect_fail", "cluster_manager.cds.update_failure", "cluster.legation_xds.upstream_cx_destroy"} {
				if got, err := e.lookUp(stat); err == nil && got != "0" && got != "" {
					return nil
				}
			}
			return fmt.Errorf("nothing was refused yet")
		})
		for _, stat := range []string{"cluster_manager.cds.update_success", "listener_manager.lds.update_success", "listener_manager.listener_added"} {
			if got := e.stat(t, stat); got != "0" {
				t.Errorf("%s: %s is %s, want 0", name, stat, got)
			}
		}
		e.kill()
	}
	if nodes := p.status(t).Nodes; len(nodes) > 0 {
		t.Errorf("status knows %v", nodes)
	}
	e := watchful(t, []*plane{p}, "edge", ca.flags("edge")...)
	node(t, p, time.Time{})
	e.kill()
}

func without(all []string, one string) (rest []string) {
	for _, s := range all {
		if s != one {
			rest = append(rest, s)
		}
	}
	return rest
}

// An Envoy with a token and no certificate: its stream ends with the token, and goes on by the one that has come meanwhile.
func TestTokenOnALiveEnvoy(t *testing.T) {
	t.Parallel()
	ca := newPKI(t)
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	file := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, file, "tokens: {issuer: \"https://quickstart.legation.test/\", audiences: [quickstart], jwks: {file: "+filepath.Join(p.dir, "test-keys.json")+"}}\n")
	p.serve(t, append(ca.flags("legation")[:4], "--nodes", file)...)

	held := filepath.Join(t.TempDir(), "token")
	group := func(name, ttl string) {
		write(t, held, token(t, "envoy-1", "--claim", "group="+name, "--ttl", ttl)+"\n")
	}
	group("inner", "1h")
	e := watchful(t, []*plane{p}, "edge", "--tls-ca", ca.path("ca.crt"), "--token-file", held)
	p.says(0, "envoy refused")
	if got := e.stat(t, "cluster_manager.cds.update_success"); got != "0" {
		t.Errorf("with the token of another group: cds.update_success is %s, want 0", got)
	}
	group("edge", "-20s") // good for the rest of the 30 s by which clocks may differ
	first := node(t, p, time.Time{})
	answers(t, fmt.Sprintf("http://localhost:%d/", port))
	group("edge", "1h")
	second := node(t, p, first.Connected.Add(time.Millisecond))
	if lived := second.Connected.Sub(first.Connected); lived > 16*time.Second {
		t.Errorf("the stream lived for %v, longer than its token", lived)
	}
	if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
		t.Errorf("listener_modified is %s, want 0", got)
	}
}

// Without TLS, a port that other machines reach is not served, whatever else is said.
func TestNothingBeyondLoopbackWithoutTLS(t *testing.T) {
	t.Parallel()
	ca := newPKI(t)
	dir := policyDir(t, edge(1, "127.0.0.1:1"))
	file := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, file, "nodes: {}\n")
	for want, args := range map[string][]string{
		"--xds-address":                  {"--xds-address", "0.0.0.0:0"},
		"--tls-cert and --tls-key":       {"--nodes", file},
		"--companion-address":            append(ca.flags("legation")[:4], "--nodes", file, "--companion-address", "0.0.0.0:0"),
		"nobody could join":              append(ca.flags("legation")[:4], "--nodes", file),
		"lies in the policy directory":   append(ca.flags("legation"), "--nodes", filepath.Join(dir, "nodes.yaml")),
		"all of --tls-cert":              ca.flags("legation")[:4],
		"give --tls-cert, --tls-key and": {"--xds-address", "[::]:0"},
	} {
		out, status := legation(t, append([]string{"serve", dir, "--data-dir", "", "--admin-address", "127.0.0.1:0"}, args...)...)
		if status != 2 || !strings.Contains(out, want) {
			t.Errorf("%v: got %d and %s, want 2 and %q", args, status, out, want)
		}
	}
}

// validated has the real Envoy judge a bootstrap.
func validated(path string) (out string, status int) {
	text, err := exec.Command(proxy, "--mode", "validate", "-c", path, "--use-dynamic-base-id", "-l", "error").CombinedOutput()
	if err != nil {
		return string(text), 1
	}
	return string(text), 0
}
