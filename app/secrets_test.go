package app

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secured is a policy whose listener has a certificate.
const secured = `gateways: {edge: {listeners: {https: {port: 10443, address: 127.0.0.1, protocol: HTTPS, certificates: [{secret: tls/edge}]}}}}
services: {app: {endpoints: ["127.0.0.1:9001"]}}
routes: {app: {hostnames: [a.test], backends: {app: 1}}}
`

// A whole process serves a certificate, takes up its successor, and shows of both what may be shown.
func TestProcessRotatesSecrets(t *testing.T) {
	t.Parallel()
	c, secrets := newCertificates(t), t.TempDir()
	var keys []string
	issue := func(name string) {
		cert, key := c.ca.pair(t, name)
		keys = append(keys, key)
		for ending, text := range map[string]string{".crt": cert, ".key": key} {
			path := filepath.Join(secrets, "tls/edge"+ending)
			must(t, os.Rename(write(t, path+".tmp", text), path))
		}
	}
	issue("first.test")
	var log, out output
	p, _ := running(t, Options{
		Dir: policyDir(t, secured), SecretsDir: secrets, DataDir: t.TempDir(), Out: &out,
		Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	h := adminOf(t, p)
	revision := p.control.Outcome().Revision
	var shown strings.Builder
	look := func() (status string) {
		for _, path := range []string{"/status", "/metrics", "/readyz"} {
			_, _, body := call(h, "GET", path)
			shown.WriteString(body)
			if path == "/status" {
				status = body
			}
		}
		return status
	}
	if status := look(); !strings.Contains(status, `"first.test"`) || !strings.Contains(status, `"certificate/tls/edge"`) {
		t.Errorf("the status is without the certificate: %s", status)
	}
	issue("second.test")
	until(t, "the second certificate", func() bool { return strings.Contains(look(), `"second.test"`) })
	if got := p.control.Outcome().Revision; got != revision {
		t.Errorf("got the revision %s, want %s still", got, revision)
	}
	until(t, "the log", func() bool { return strings.Contains(log.String(), "secret rotated") })
	if !strings.Contains(shown.String(), `legation_control_certificate_expiry_timestamp_seconds{secret="certificate/tls/edge"}`) {
		t.Error("no metric tells when the certificate expires")
	}
	all := shown.String() + log.String() + out.String()
	for i, key := range keys {
		block, _ := pem.Decode([]byte(key))
		part := block.Bytes[len(block.Bytes)/2:][:15] // whole groups of base64
		line := strings.Split(key, "\n")[1]
		for _, trace := range []string{line, hex.EncodeToString(part), base64.StdEncoding.EncodeToString(part), string(part)} {
			if strings.Contains(all, trace) {
				t.Errorf("key %d is shown: %.10q", i, trace)
			}
		}
	}
}

// Without its secret a process is not ready, says so, and comes by itself.
func TestProcessWaitsForSecrets(t *testing.T) {
	t.Parallel()
	dir, secrets := policyDir(t, secured), t.TempDir()
	p := assemble(t, Options{Dir: dir, SecretsDir: secrets})
	h := adminOf(t, p)
	p.control.Load()
	if status, _, body := call(h, "GET", "/readyz"); status != 503 || !strings.Contains(body, "1 problem") {
		t.Errorf("without: got %d %s", status, body)
	}
	if _, _, body := call(h, "GET", "/status"); !strings.Contains(body, "there is no secret tls/edge") {
		t.Errorf("without: got %s", body)
	}
	cert, key := newCertificates(t).ca.pair(t, "a.test")
	write(t, filepath.Join(secrets, "tls/edge.crt"), cert)
	write(t, filepath.Join(secrets, "tls/edge.key"), key)
	p.control.Load()
	if status, _, body := call(h, "GET", "/readyz"); status != 200 {
		t.Errorf("with: got %d %s", status, body)
	}
}
