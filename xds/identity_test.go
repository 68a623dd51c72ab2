package xds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pool.AddCert(a.cert)
	return a
}

// sign fills in the template; without an authority yet, it signs itself.
func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: "edge"} // never counts
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) leaf(dns []string, uris ...string) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{DNSNames: dns, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	cert, key := a.sign(template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// startTLS serves on loopback, because the certificates of a peer come from a real handshake.
func startTLS(t *testing.T, a *authority, check tls.ClientAuthType) (*Server, string) {
	t.Helper()
	s := New(Options{})
	g := grpc.NewServer(append(ServerOptions(), grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{a.leaf([]string{"plane.test"})},
		ClientCAs:    a.pool,
		ClientAuth:   check,
	})))...)
	s.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return s, l.Addr().String()
}

// first asks for all clusters and returns the names of the first answer.
func first(t *testing.T, a *authority, address string, client []tls.Certificate, group string) ([]string, error) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: a.pool, ServerName: "plane.test", Certificates: client,
	})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: "e", Cluster: group}, TypeUrl: cds,
		ResourceNamesSubscribe: []string{"*"},
	})
	r, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, x := range r.GetResources() {
		names = append(names, x.GetName())
	}
	return names, nil
}

func TestGroupComesFromTheCertificate(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s, address := startTLS(t, a, tls.VerifyClientCertIfGiven)
	s.Publish(map[string]*Snapshot{
		"edge":  snapshot(t, "1", cluster("of-edge", "1"))["edge"],
		"inner": snapshot(t, "1", cluster("of-inner", "1"))["edge"],
	})
	for name, test := range map[string]struct {
		cert  []tls.Certificate
		group string
		want  string // cluster
	}{
		"DNS name":           {[]tls.Certificate{a.leaf([]string{"edge"})}, "edge", "of-edge"},
		"URI":                {[]tls.Certificate{a.leaf(nil, "spiffe://example.com/gateway/inner")}, "inner", "of-inner"},
		"one of two":         {[]tls.Certificate{a.leaf([]string{"edge", "inner"})}, "inner", "of-inner"},
		"another's":          {[]tls.Certificate{a.leaf([]string{"edge"})}, "inner", ""},
		"part of a name":     {[]tls.Certificate{a.leaf([]string{"edge.example.com"})}, "edge", ""},
		"wildcard":           {[]tls.Certificate{a.leaf([]string{"*"})}, "edge", ""},
		"workload of a mesh": {[]tls.Certificate{a.leaf(nil, "spiffe://example.com/ns/shop/sa/edge")}, "edge", ""},
		"one gateway of two": {[]tls.Certificate{a.leaf(nil, "spiffe://a.test/gateway/edge", "spiffe://b.test/gateway/inner")}, "inner", "of-inner"},
		"common name only":   {[]tls.Certificate{a.leaf(nil)}, "edge", ""},
		"none":               {nil, "edge", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := first(t, a, address, test.cert, test.group)
			if test.want == "" {
				if status.Code(err) != codes.PermissionDenied || got != nil {
					t.Errorf("got %v, %v; want PermissionDenied", got, err)
				}
				return
			}
			if err != nil || len(got) != 1 || got[0] != test.want {
				t.Errorf("got %v, %v; want %s", got, err, test.want)
			}
		})
	}
}

func TestURIsThatNameAGroup(t *testing.T) {
	for raw, want := range map[string]string{
		"spiffe://example.com/gateway/edge":        "edge",
		"spiffe://other.example/gateway/edge-1.eu": "edge-1.eu",
		"spiffe://example.com/ns/shop/sa/edge":     "",
		"spiffe://example.com/edge":                "",
		"spiffe://example.com/edge/x":              "",
		"spiffe://example.com/ns/x/gateway/edge":   "",
		"spiffe://example.com/gateway/edge/x":      "",
		"spiffe://example.com/gateway/edge/":       "",
		"spiffe://example.com/gateway/":            "",
		"spiffe://example.com/gateway":             "",
		"spiffe://example.com//gateway/edge":       "",
		"spiffe://example.com/gateway/ed%67e":      "",
		"spiffe://example.com/gateway/x%2Fedge":    "",
		"spiffe://example.com/gateway/edge?x":      "",
		"spiffe://example.com/gateway/edge#x":      "",
		"spiffe://u@example.com/gateway/edge":      "",
		"spiffe://example.com:80/gateway/edge":     "",
		"spiffe:///gateway/edge":                   "",
		"spiffe:/gateway/edge":                     "",
		"https://example.com/gateway/edge":         "",
		"urn:gateway:edge":                         "",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := groupOf(u); got != want {
			t.Errorf("%s names the group %q, want %q", raw, got, want)
		}
	}
}

func TestUncheckedCertificateNamesNoGroup(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	s, address := startTLS(t, a, tls.RequireAnyClientCert)
	s.Publish(usual(t, "1"))
	got, err := first(t, a, address, []tls.Certificate{other.leaf([]string{"edge"})}, "edge")
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, %v; want PermissionDenied", got, err)
	}
}
