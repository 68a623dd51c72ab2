package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPKI(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	do := func(want int, part string, args ...string) string {
		t.Helper()
		status, out, errs := legation(append([]string{"pki"}, args...)...)
		if status != want || !strings.Contains(out+errs, part) {
			t.Errorf("pki %v: got %d %s%s, want %d and %q", args, status, out, errs, want, part)
		}
		return out
	}
	do(1, "legation pki init", "issue", dir, "--group", "edge")
	do(0, "ca.crt", "init", dir)
	do(1, "--force", "init", dir)
	do(0, "", "init", dir, "--force")
	do(0, "edge.key", "issue", dir, "--group", "edge", "--trust-domain", "example.com")
	do(1, "pki renew", "issue", dir, "--group", "edge")
	do(0, "legation.crt", "issue", dir, "--server", "127.0.0.1,control.example.com")
	do(0, "other.crt", "issue", dir, "--server", "localhost", "--name", "other")
	do(0, "mesh/orders.crt", "issue", dir, "--sidecar", "orders", "--out", filepath.Join(dir, "mesh"))
	do(0, "edge", "issue", dir, "--gateway", "edge", "--out", filepath.Join(dir, "mesh"), "--ttl", "12h")
	do(2, "--server, --group", "issue", dir)
	do(2, "--server, --group", "issue", dir, "--group", "a", "--sidecar", "a")
	do(2, "--name is for servers", "issue", dir, "--group", "a", "--name", "b")
	do(2, "--ttl", "issue", dir, "--group", "a", "--ttl", "long")
	do(1, "can't be a name", "issue", dir, "--group", "A")
	do(0, "nothing ends", "renew", dir)
	do(1, "serial number", "renew", dir, "edge")
	do(0, "orders.crt", "renew", dir, "orders", "--out", filepath.Join(dir, "mesh"))
	do(0, "revoked: orders", "revoke", dir, "orders")
	do(1, "pki show", "revoke", dir, "nobody")
	do(2, "", "revoke", dir)
	text := do(0, "spiffe://example.com/gateway/edge", "show", dir)
	for _, part := range []string{"revoked", "good, ends in 11 hours", "server", "sidecar"} {
		if !strings.Contains(text, part) {
			t.Errorf("show does not say %q: %s", part, text)
		}
	}
	var shown struct {
		Certificates []struct{ Name, Serial string }
	}
	must(t, json.Unmarshal([]byte(do(0, "", "show", dir, "-o", "json")), &shown))
	if len(shown.Certificates) != 6 {
		t.Errorf("show has %d certificates, want 6", len(shown.Certificates))
	}
	key, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	must(t, err)
	if secret := strings.Split(string(key), "\n")[1]; strings.Contains(text, secret) {
		t.Error("show shows a key")
	}
}
