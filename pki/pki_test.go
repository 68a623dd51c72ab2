package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := Init(filepath.Join(t.TempDir(), "pki"), "test", AuthorityTTL, false, now)
	must(t, err)
	return a
}

func order(use Use, name string) Order {
	o := Order{Use: use, Name: name, TrustDomain: "example.com", TTL: LeafTTL}
	if use == ForServer {
		o.Hosts = []string{"control.example.com", "10.0.0.5", "::1"}
	}
	return o
}

func TestUses(t *testing.T) {
	t.Parallel()
	a := authority(t)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	for use, want := range map[Use]struct {
		uri            string
		client, server bool
	}{
		ForNode:    {"spiffe://example.com/gateway/of-group", true, false},
		ForGateway: {"spiffe://example.com/gateway/of-gateway", true, false},
		ForSidecar: {"spiffe://example.com/gateway/of-sidecar", true, true},
		ForServer:  {"", false, true},
	} {
		i, err := a.Issue(order(use, "of-"+string(use)))
		must(t, err)
		for usage, ok := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: want.client, x509.ExtKeyUsageServerAuth: want.server} {
			_, err := i.Certificate.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
			if (err == nil) != ok {
				t.Errorf("%s as usage %d: got %v, want it good: %t", use, usage, err, ok)
			}
		}
		if use == ForServer {
			for _, host := range order(use, "x").Hosts {
				must(t, i.Certificate.VerifyHostname(host))
			}
		} else if len(i.Certificate.URIs) != 1 || i.Certificate.URIs[0].String() != want.uri {
			t.Errorf("%s: got the names %v, want %s", use, i.Certificate.URIs, want.uri)
		}
		pair, err := tls.LoadX509KeyPair(i.Cert, i.Key)
		must(t, err)
		if key := pair.PrivateKey.(*ecdsa.PrivateKey); key.Params().Name != "P-256" {
			t.Errorf("%s: a key on %s: Envoy takes none of these", use, key.Params().Name)
		}
		if i.Certificate.IsCA || !i.Certificate.NotAfter.Equal(now.Add(LeafTTL)) {
			t.Errorf("%s: it is an authority: %t, and ends on %s", use, i.Certificate.IsCA, i.Certificate.NotAfter)
		}
	}
}

// Keys are for their owner alone, and nothing is left half written.
func TestModes(t *testing.T) {
	t.Parallel()
	a := authority(t)
	_, err := a.Issue(order(ForNode, "edge"))
	must(t, err)
	want := map[string]fs.FileMode{"ca.key": 0o600, "edge.key": 0o600, "ca.crt": 0o644, "edge.crt": 0o644}
	entries, err := os.ReadDir(a.dir)
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if mode, ok := want[e.Name()]; !e.IsDir() && (!ok || info.Mode() != mode) {
			t.Errorf("%s has the mode %v", e.Name(), info.Mode())
		}
	}
	if info, err := os.Stat(a.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has the mode %v, %v", info.Mode(), err)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	t.Parallel()
	a := authority(t)
	first, err := a.Issue(order(ForNode, "edge"))
	must(t, err)
	before := read(t, first.Key) + read(t, first.Cert) + read(t, a.Path())
	for name, try := range map[string]func() error{
		"issue":             func() error { _, err := a.Issue(order(ForNode, "edge")); return err },
		"issue another use": func() error { _, err := a.Issue(order(ForSidecar, "edge")); return err },
		"issue over a key": func() error {
			must(t, os.WriteFile(filepath.Join(a.dir, "k.key"), nil, 0o600))
			_, err := a.Issue(order(ForNode, "k"))
			return err
		},
		"init":               func() error { _, err := Init(a.dir, "x", AuthorityTTL, false, now); return err },
		"the name ca":        func() error { o := order(ForNode, "ca"); o.Force = true; _, err := a.Issue(o); return err },
		"a way out of there": func() error { o := order(ForNode, "../x"); o.Force = true; _, err := a.Issue(o); return err },
	} {
		if err := try(); err == nil {
			t.Errorf("%s: nothing holds it", name)
		}
	}
	if got := read(t, first.Key) + read(t, first.Cert) + read(t, a.Path()); got != before {
		t.Error("a file was replaced")
	}
	forced := order(ForNode, "edge")
	forced.Force = true
	if second, err := a.Issue(forced); err != nil || second.Serial() == first.Serial() {
		t.Errorf("with force: %v", err)
	}
	// Another authority knows nothing of what the one before it has signed.
	next, err := Init(a.dir, "next", AuthorityTTL, true, now)
	must(t, err)
	if all, err := next.Issued(); err != nil || len(all) != 0 {
		t.Errorf("the new authority lists %d certificates, %v", len(all), err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return string(content)
}

func TestOrdersThatCannotBe(t *testing.T) {
	t.Parallel()
	a := authority(t)
	for name, change := range map[string]func(o *Order){
		"no name":              func(o *Order) { o.Name = "" },
		"capitals":             func(o *Order) { o.Name = "Edge" },
		"a slash":              func(o *Order) { o.Name = "a/b" },
		"an escape":            func(o *Order) { o.Name = "a%2fb" },
		"a star":               func(o *Order) { o.Name = "*" },
		"dots":                 func(o *Order) { o.Name = "a..b" },
		"long":                 func(o *Order) { o.Name = strings.Repeat("a", 64) },
		"NUL":                  func(o *Order) { o.Name = "a\x00b" },
		"no trust domain":      func(o *Order) { o.TrustDomain = "" },
		"a trust domain's way": func(o *Order) { o.TrustDomain = "example.com/x" },
		"no time":              func(o *Order) { o.TTL = 0 },
		"no host":              func(o *Order) { *o = order(ForServer, "x"); o.Hosts = nil },
		"a wildcard host":      func(o *Order) { *o = order(ForServer, "x"); o.Hosts = []string{"*.example.com"} },
		"a host and port":      func(o *Order) { *o = order(ForServer, "x"); o.Hosts = []string{"a:18000"} },
	} {
		o := order(ForNode, "edge")
		change(&o)
		if _, err := a.Issue(o); err == nil {
			t.Errorf("%s: it is signed", name)
		}
	}
	if all, err := a.Issued(); err != nil || len(all) != 0 {
		t.Errorf("got %d, %v", len(all), err)
	}
}

func TestEndsWithItsAuthority(t *testing.T) {
	t.Parallel()
	a, err := Init(t.TempDir(), "short", 24*time.Hour, false, now)
	must(t, err)
	i, err := a.Issue(order(ForNode, "edge"))
	must(t, err)
	if !i.Certificate.NotAfter.Equal(a.cert.NotAfter) || i.Certificate.NotBefore.Before(a.cert.NotBefore) {
		t.Errorf("it is good from %s to %s, its authority from %s to %s", i.Certificate.NotBefore, i.Certificate.NotAfter, a.cert.NotBefore, a.cert.NotAfter)
	}
	late, err := Open(a.dir, now.Add(48*time.Hour))
	must(t, err)
	if _, err := late.Issue(order(ForNode, "late")); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("after the authority's end: got %v", err)
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	a := authority(t)
	edge, err := a.Issue(order(ForNode, "edge"))
	must(t, err)
	second := order(ForNode, "edge")
	second.Dir = filepath.Join(a.dir, "second")
	_, err = a.Issue(second)
	must(t, err)
	_, err = a.Issue(order(ForNode, "inner"))
	must(t, err)

	one, err := a.Find(strings.ToUpper(edge.Serial()))
	must(t, err)
	must(t, a.Revoke(Serials(one)))
	must(t, a.Revoke(Serials(one))) // again: no matter
	want := func(list map[string]int) {
		t.Helper()
		all, err := a.Issued()
		must(t, err)
		got := map[string]int{}
		for _, i := range all {
			if i.Revoked {
				got[i.Name]++
			}
		}
		if len(got) != len(list) || got["edge"] != list["edge"] || got["inner"] != list["inner"] {
			t.Errorf("revoked are %v, want %v", got, list)
		}
	}
	want(map[string]int{"edge": 1})
	one, err = a.Find(edge.Serial())
	must(t, err)
	if _, err := a.Renew(one[0], ""); err == nil {
		t.Error("a revoked certificate is renewed")
	}
	all, err := a.Find("edge")
	must(t, err)
	must(t, a.Revoke(Serials(all)))
	want(map[string]int{"edge": len(all)})
	if len(a.lists) != 1 || a.lists[0].Number.Cmp(big.NewInt(3)) != 0 {
		t.Errorf("got %d lists, want one, the third", len(a.lists))
	}
	must(t, a.lists[0].CheckSignatureFrom(a.cert))
	if a.lists[0].NextUpdate.Before(a.cert.NotAfter) {
		t.Error("the list is overdue before the authority ends: Envoy would trust nobody then")
	}
	if _, err := a.Find("other"); err == nil {
		t.Error("a name that is none is found")
	}
}

// Two at once lose nothing of each other.
func TestRevokeAtOnce(t *testing.T) {
	t.Parallel()
	a := authority(t)
	var group sync.WaitGroup
	for range 8 {
		other, err := Open(a.dir, now)
		must(t, err)
		_, serial, err := newKey()
		must(t, err)
		group.Go(func() {
			if err := other.Revoke([]*big.Int{serial}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	again, err := Look(a.dir, now)
	must(t, err)
	if got := len(again.lists[0].RevokedCertificateEntries); got != 8 {
		t.Errorf("%d are revoked, want 8", got)
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	a := authority(t)
	short := order(ForNode, "short")
	short.TTL = 20 * 24 * time.Hour
	for _, o := range []Order{short, order(ForServer, "legation"), order(ForSidecar, "orders")} {
		_, err := a.Issue(o)
		must(t, err)
	}
	due := func(days int) (names string) {
		t.Helper()
		later, err := Open(a.dir, now.Add(time.Duration(days)*24*time.Hour))
		must(t, err)
		all, err := later.Due(30 * 24 * time.Hour)
		must(t, err)
		for _, i := range all {
			names += i.Name + " "
		}
		return names
	}
	for days, want := range map[int]string{0: "", 12: "", 15: "short ", 21: "short ", 334: "short ", 336: "legation orders short "} {
		if got := due(days); got != want {
			t.Errorf("after %d days %q are due, want %q", days, got, want)
		}
	}
	later, err := Open(a.dir, now.Add(340*24*time.Hour))
	must(t, err)
	all, err := later.Due(30 * 24 * time.Hour)
	must(t, err)
	for _, old := range all {
		fresh, err := later.Renew(old, "")
		must(t, err)
		o, f := old.Certificate, fresh.Certificate
		life := func(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }
		if f.Equal(o) || life(f) != life(o) || f.PublicKey.(*ecdsa.PublicKey).Equal(o.PublicKey) || len(f.URIs) != len(o.URIs) ||
			len(f.DNSNames) != len(o.DNSNames) || len(f.IPAddresses) != len(o.IPAddresses) || len(f.ExtKeyUsage) != len(o.ExtKeyUsage) || fresh.Use != old.Use {
			t.Errorf("%s: got %v for %v", old.Name, f, o)
		}
		if _, err := tls.LoadX509KeyPair(fresh.Cert, fresh.Key); err != nil {
			t.Error(err)
		}
	}
	if got := due(340); got != "" {
		t.Errorf("still due: %s", got)
	}
}

func TestDirectoriesThatAreNone(t *testing.T) {
	t.Parallel()
	if _, err := Open(t.TempDir(), now); err == nil || !strings.Contains(err.Error(), "legation pki init") {
		t.Errorf("an empty directory: got %v", err)
	}
	for name, harm := range map[string]func(a *Authority){
		"others can read the key": func(a *Authority) { must(t, os.Chmod(filepath.Join(a.dir, "ca.key"), 0o640)) },
		"another key": func(a *Authority) {
			must(t, os.WriteFile(filepath.Join(a.dir, "ca.key"), []byte(read(t, filepath.Join(authority(t).dir, "ca.key"))), 0o600))
		},
		"no key":  func(a *Authority) { must(t, os.Remove(filepath.Join(a.dir, "ca.key"))) },
		"garbage": func(a *Authority) { must(t, os.WriteFile(a.Path(), []byte("x"), 0o644)) },
		"two authorities": func(a *Authority) {
			must(t, os.WriteFile(a.Path(), []byte(read(t, a.Path())+read(t, authority(t).Path())), 0o644))
		},
		"no authority's": func(a *Authority) {
			i, err := a.Issue(order(ForNode, "edge"))
			must(t, err)
			must(t, os.WriteFile(a.Path(), []byte(read(t, i.Cert)), 0o644))
		},
	} {
		a := authority(t)
		key := read(t, filepath.Join(a.dir, "ca.key"))
		harm(a)
		_, err := Open(a.dir, now)
		if err == nil || strings.Contains(err.Error(), strings.Split(key, "\n")[1]) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
