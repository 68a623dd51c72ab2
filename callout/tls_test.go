package callout

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// certificate makes one for a name, signed by parent or by itself.
func certificate(t testing.TB, name string, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true,
	}
	signer, signed := any(key), template
	if parent != nil {
		signer, signed = parent.PrivateKey, parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signed, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// mutual is the two sides of mutual TLS.
func mutual(t testing.TB) (server, client *tls.Config) {
	ca := certificate(t, "ca", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	server = &tls.Config{
		Certificates: []tls.Certificate{certificate(t, "companion", &ca)},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	client = &tls.Config{
		Certificates: []tls.Certificate{certificate(t, "envoy", &ca)},
		RootCAs:      pool, ServerName: "companion",
	}
	return server, client
}

func TestTLS(t *testing.T) {
	config, client := mutual(t)
	config.ClientAuth = tls.NoClientCert
	client.Certificates = nil
	r := start(t, Options{TLS: config})
	c := dialTo(t, r.addr, client)
	mustCall(t, c, echo, "hello", "hello")
	testHealth(t, c)
	testLargeStream(t, c)
	testHealth(t, dialTo(t, r.addr, client))
	_, err := call(t.Context(), r.dial(t), echo, "in plain text")
	wantCode(t, err, codes.Unavailable, "")
}

// Calls that came in records of their own are known together.
func TestRecordsOfATurn(t *testing.T) {
	config, client := mutual(t)
	client.NextProtos = []string{"h2"}
	method, began, release := held()
	r := start(t, Options{TLS: config, Methods: map[string]Method{echo: method}})
	c, err := tls.Dial("tcp", r.addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := newWire(t, c)
	w.must(io.WriteString(c, http2.ClientPreface))
	w.do(w.WriteSettings())
	w.ask(1, echo, "first")
	<-began
	w.ask(3, echo, "second")
	w.ask(5, echo, "third")
	release <- struct{}{}
	if n := <-began; n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
	close(release)
	w.wantMessage(5, "third")
}

// grpc-go sees who its client is, whichever way the call came.
func TestMutualTLS(t *testing.T) {
	config, client := mutual(t)
	r := start(t, Options{TLS: config})
	for name, first := range map[string]bool{"handed over": true, "forwarded": false} {
		c := dialTo(t, r.addr, client)
		if !first {
			mustCall(t, c, echo, "x", "x")
		}
		got, err := testpb.NewTestServiceClient(c).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		host, _, _ := net.SplitHostPort(got.GetHostname())
		if err != nil || got.GetUsername() != "envoy" || host != "127.0.0.1" || got.GetHostname() == r.addr {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	client.Certificates = nil
	_, err := call(t.Context(), dialTo(t, r.addr, client), echo, "x")
	wantCode(t, err, codes.Unavailable, "")
}

// A client that doesn't say that it speaks HTTP/2 is closed, as grpc-go does.
func TestALPN(t *testing.T) {
	config, client := mutual(t)
	r := start(t, Options{TLS: config})
	c, err := tls.Dial("tcp", r.addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadAll(c); err != nil {
		t.Logf("as it should: %v", err)
	}
	if n := r.counted(t, "legation_callout_refused_total", "alpn"); n != 1 {
		t.Errorf("%v refused", n)
	}
}
