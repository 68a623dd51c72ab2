package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestListenTellsWhatIsTaken(t *testing.T) {
	t.Parallel()
	l, err := listen("admin", "--admin-address", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	address := l.Addr().String()
	_, err = listen("xDS", "--xds-address", address)
	for _, part := range []string{"xDS", address, "taken", "--xds-address"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want it to say %q", err, part)
		}
	}
	if _, err := listen("xDS", "--xds-address", "203.0.113.1:1"); err == nil || strings.Contains(err.Error(), "taken") {
		t.Errorf("an address that is not ours: got %v", err)
	}
	if free(address) {
		t.Errorf("%s is free while it is listened on", address)
	}
	must(t, l.Close())
	if !free(address) {
		t.Errorf("%s is not free", address)
	}
}

// authority signs certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB, name string) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	a.cert = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func (a authority) sign(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

// pair is a certificate for a name and its key, in PEM.
func (a authority) pair(t testing.TB, name string) (cert, key string) {
	t.Helper()
	k := newKey(t)
	c := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, k)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return encode("CERTIFICATE", c.Raw), encode("PRIVATE KEY", der)
}

func (a authority) pem() string { return encode("CERTIFICATE", a.cert.Raw) }

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// certificates is the three files of a server, and what a client needs to reach it.
type certificates struct {
	t             testing.TB
	ca            authority
	dir           string
	cert, key, as string // file names; as is the CA's
}

func newCertificates(t testing.TB) *certificates {
	t.Helper()
	c := &certificates{t: t, ca: newAuthority(t, "ca"), dir: t.TempDir()}
	c.cert, c.key, c.as = filepath.Join(c.dir, "tls.crt"), filepath.Join(c.dir, "tls.key"), filepath.Join(c.dir, "ca.crt")
	write(t, c.as, c.ca.pem())
	c.issue("first")
	return c
}

// issue writes a new certificate for a name.
func (c *certificates) issue(name string) {
	c.t.Helper()
	cert, key := c.ca.pair(c.t, name)
	write(c.t, c.cert, cert)
	write(c.t, c.key, key)
}

// client is a client's configuration with a certificate of an authority; nil gives it none.
func (c *certificates) client(name string, by *authority) *tls.Config {
	c.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	config := &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"h2"}}
	if by != nil {
		pair, err := tls.X509KeyPair(pairBytes(by.pair(c.t, "envoy")))
		must(c.t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

func pairBytes(cert, key string) ([]byte, []byte) { return []byte(cert), []byte(key) }

// greet shakes hands over a pipe, and returns the name that the server's certificate has.
func greet(t testing.TB, server *tls.Config, client *tls.Config) (name string, err error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.HandshakeContext(ctx)
		served <- err
		_ = a.Close()
	}()
	c := tls.Client(b, client)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = b.Close()
		<-served
		return "", err
	}
	go func() { _, _ = c.Read(make([]byte, 1)) }() // with TLS 1.3 the server may still have something to say
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, <-served
}

func TestMutualTLSAsksForACertificate(t *testing.T) {
	t.Parallel()
	c := newCertificates(t)
	m, err := newPortTLS(c.cert, c.key, c.as, nil)
	must(t, err)
	stranger := newAuthority(t, "ca") // the same name, another key
	old := c.client("first", &c.ca)
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	for _, row := range []struct {
		name   string
		client *tls.Config
		ok     bool
	}{
		{"ours", c.client("first", &c.ca), true},
		{"none", c.client("first", nil), false},
		{"another authority's", c.client("first", &stranger), false},
		{"an old version", old, false},
	} {
		if _, err := greet(t, m.server(never), row.client); (err == nil) != row.ok {
			t.Errorf("%s: got %v, want it accepted: %t", row.name, err, row.ok)
		}
	}
}

func TestCertificatesRotate(t *testing.T) {
	t.Parallel()
	c := newCertificates(t)
	var log output
	m, err := newPortTLS(c.cert, c.key, c.as, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	want := func(name string) {
		t.Helper()
		if got, err := greet(t, m.server(never), c.client(name, &c.ca)); err != nil || got != name {
			t.Errorf("got the certificate of %q, %v, want that of %s", got, err, name)
		}
	}
	want("first")
	c.issue("second")
	want("second")

	// A set that is put in place may be older than the one before.
	c.issue("older")
	for _, path := range []string{c.cert, c.key, c.as} {
		must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-24*time.Hour)))
	}
	want("older")

	// As mounted secrets do it, by another file of the same age.
	cert, key := c.ca.pair(t, "moved")
	for path, text := range map[string]string{c.cert: cert, c.key: key} {
		info, err := os.Stat(path)
		must(t, err)
		write(t, path+".next", text)
		must(t, os.Chtimes(path+".next", time.Time{}, info.ModTime()))
		must(t, os.Rename(path+".next", path))
	}
	want("moved")

	// Each broken set leaves the last good one in use, and is told once.
	for name, harm := range map[string]func(){
		"half rotated":   func() { cert, _ := c.ca.pair(t, "half"); write(t, c.cert, cert) },
		"garbage":        func() { write(t, c.key, "garbage") },
		"no certificate": func() { must(t, os.Remove(c.cert)) },
		"empty ca":       func() { write(t, c.as, "") },
	} {
		before := strings.Count(log.String(), "level=ERROR")
		harm()
		want("moved")
		want("moved")
		if got := strings.Count(log.String(), "level=ERROR") - before; got != 1 {
			t.Errorf("%s: told %d times, want once: %s", name, got, log.String())
		}
	}
	write(t, c.as, c.ca.pem())
	c.issue("healed")
	want("healed")
	if strings.Contains(log.String(), "PRIVATE") {
		t.Errorf("the log holds a key: %s", log.String())
	}
}

// Another authority in the CA's file decides from then on.
func TestAuthorityRotates(t *testing.T) {
	t.Parallel()
	c := newCertificates(t)
	m, err := newPortTLS(c.cert, c.key, c.as, nil)
	must(t, err)
	next := newAuthority(t, "next")
	write(t, c.as, next.pem())
	if _, err := greet(t, m.server(never), c.client("first", &next)); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}
	if _, err := greet(t, m.server(never), c.client("first", &c.ca)); err == nil {
		t.Error("a client of the old authority is let in")
	}
}

func TestMutualTLSNeedsGoodFiles(t *testing.T) {
	t.Parallel()
	c := newCertificates(t)
	_, otherKey := c.ca.pair(t, "other")
	other, garbage := write(t, filepath.Join(c.dir, "other.key"), otherKey), write(t, filepath.Join(c.dir, "garbage"), "x")
	for _, row := range []struct{ cert, key, ca, want string }{
		{"missing", c.key, c.as, "--tls-cert"},
		{c.cert, "missing", c.as, "--tls-key"},
		{c.cert, other, c.as, "match"},
		{c.cert, c.key, "missing", "--tls-ca"},
		{c.cert, c.key, garbage, "no certificate"},
	} {
		if _, err := newPortTLS(row.cert, row.key, row.ca, nil); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("got %v, want it to say %q", err, row.want)
		}
	}
}
