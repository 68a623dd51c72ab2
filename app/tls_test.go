package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/auth/tokentest"
	"github.com/legation/legation/envoy/certtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// fleet is a control plane with mutual TLS, and its files.
type fleet struct {
	*process
	t   *testing.T
	ca  *certtest.Authority
	dir string
	log *output
}

// newFleet serves the quickstart; change alters its options.
func newFleet(t *testing.T, change func(f *fleet, o *Options)) *fleet {
	t.Helper()
	f := &fleet{t: t, ca: certtest.NewAuthority(t, "ca"), dir: t.TempDir(), log: &output{}}
	own := f.ca.Issue(t, "plane.test", "127.0.0.1")
	o := Options{
		Dir: policyDir(t, quickstart), Log: slog.New(slog.NewTextHandler(f.log, nil)),
		TLSCert: f.write("tls.crt", string(own.Chain)), TLSKey: f.write("tls.key", string(own.Key)), TLSCA: f.write("ca.crt", string(f.ca.PEM())),
	}
	if change != nil {
		change(f, &o)
	}
	f.process, _ = running(t, o)
	return f
}

// write puts a file in place at once.
func (f *fleet) write(name, text string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	must(f.t, os.WriteFile(path+".next", []byte(text), 0o600))
	must(f.t, os.Rename(path+".next", path))
	return path
}

// config is a client's, which shows what is given.
func (f *fleet) config(shown ...certtest.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: f.ca.Pool(), ServerName: "plane.test", NextProtos: []string{"h2"}}
	for _, s := range shown {
		c.Certificates = append(c.Certificates, s.TLS(f.t))
	}
	return c
}

// raw shakes hands with a port and reads what it says; got is the bytes that came.
func (f *fleet) raw(port string, config *tls.Config) (got int, err error) {
	f.t.Helper()
	d := tls.Dialer{Config: config}
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", f.address(port))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return 0, err
	}
	return c.Read(make([]byte, 1024))
}

// ask opens a stream and asks for the clusters of a group; the stream goes on until the test ends.
func (f *fleet) ask(config *tls.Config, group string, headers ...string) (discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, error) {
	f.t.Helper()
	conn, err := grpc.NewClient(f.address("xDS"), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(f.t, err)
	f.t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), headers...), patience)
	f.t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "e", Cluster: group}, TypeUrl: resource.ClusterType})
	_, err = stream.Recv()
	return stream, err
}

// open opens a stream of any service, and gives the error that it ends with.
func (f *fleet) open(config *tls.Config, method string) error {
	f.t.Helper()
	conn, err := grpc.NewClient(f.address("xDS"), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(f.t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+method)
	if err != nil {
		return err
	}
	return stream.RecvMsg(new(discoveryv3.DeltaDiscoveryResponse))
}

// Whoever has no good certificate is refused in the handshake, on both ports: no byte of an answer comes.
func TestHandshakeRefusesStrangers(t *testing.T) {
	t.Parallel()
	stranger := certtest.NewAuthority(t, "ca") // of the same name
	var revoked certtest.Certificate
	f := newFleet(t, func(f *fleet, _ *Options) {
		revoked = f.ca.Issue(t, "edge")
		f.write("ca.crt", string(f.ca.PEM())+string(f.ca.Revoke(t, revoked)))
	})
	odd := func(change func(c *x509.Certificate)) certtest.Certificate { return f.ca.IssueOdd(t, change, "edge") }
	// Go's client keeps a certificate to itself that its server can't believe; others show it.
	insist := func(c certtest.Certificate) *tls.Config {
		config, pair := f.config(), c.TLS(t)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		return config
	}
	old := insist(f.ca.Issue(t, "edge"))
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	good12 := insist(f.ca.Issue(t, "edge"))
	good12.MaxVersion = tls.VersionTLS12
	for _, row := range []struct {
		name   string
		config *tls.Config
		ok     bool
	}{
		{"a good one", insist(f.ca.Issue(t, "edge")), true},
		{"a good one, TLS 1.2", good12, true},
		{"none", f.config(), false},
		{"of another authority", insist(stranger.Issue(t, "edge")), false},
		{"expired", insist(odd(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Second)
		})), false},
		{"not yet valid", insist(odd(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })), false},
		{"for servers", insist(odd(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), false},
		{"for code", insist(odd(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })), false},
		{"revoked", insist(revoked), false},
		{"over TLS 1.1", old, false},
	} {
		for _, port := range []string{"xDS", "companion"} {
			got, err := f.raw(port, row.config)
			if (err == nil) != row.ok || (got > 0) != row.ok {
				t.Errorf("%s, %s: got %d bytes, %v, want it let in: %t", port, row.name, got, err, row.ok)
			}
		}
	}
	if !strings.Contains(f.log.String(), "handshake refused") {
		t.Errorf("the log does not tell: %s", f.log)
	}
	if c, err := net.Dial("tcp", f.address("xDS")); err != nil {
		t.Error(err)
	} else {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		answer, _ := io.ReadAll(c)
		if len(answer) > 7 { // an alert of TLS: a record of 2 bytes
			t.Errorf("in plain text: got %q", answer)
		}
	}
}

// A certificate that names another group has a handshake, and nothing of the group.
func TestWrongNameGetsNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	if _, err := f.ask(f.config(f.ca.Issue(t, "edge")), "edge"); err != nil {
		t.Errorf("its own group: %v", err)
	}
	if _, err := f.ask(f.config(f.ca.Issue(t, "inner")), "edge"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another group: got %v", err)
	}
}

// A change of the CA's file ends the streams of those who are trusted no longer, without a session that goes on by what
// was good before; the others keep theirs.
func TestRevocationEndsStreams(t *testing.T) {
	t.Parallel()
	next := certtest.NewAuthority(t, "next")
	for name, change := range map[string]func(f *fleet, gone certtest.Certificate) string{
		"revoked": func(f *fleet, gone certtest.Certificate) string {
			return string(f.ca.PEM()) + string(f.ca.Revoke(t, gone))
		},
		"authority gone":  func(*fleet, certtest.Certificate) string { return string(next.PEM()) },
		"authority added": func(f *fleet, _ certtest.Certificate) string { return string(f.ca.PEM()) + string(next.PEM()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, nil)
			gone, kept := f.ca.Issue(t, "edge"), f.ca.Issue(t, "edge")
			sessions := f.config(gone)
			sessions.ClientSessionCache = tls.NewLRUClientSessionCache(10)
			goner, err := f.ask(sessions, "edge")
			must(t, err)
			keeper, err := f.ask(f.config(kept), "edge")
			must(t, err)
			f.write("ca.crt", change(f, gone))
			if name == "authority added" {
				until(t, "the new files", func() bool { return strings.Contains(f.log.String(), "read again") })
				must(t, goner.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ListenerType}))
				if _, err := goner.Recv(); err != nil {
					t.Errorf("a stream that may go on has ended: %v", err)
				}
				return
			}
			if _, err := goner.Recv(); err == nil {
				t.Error("the stream goes on")
			}
			if _, err := f.ask(sessions, "edge"); err == nil {
				t.Error("a new connection is let in")
			}
			if name == "revoked" {
				must(t, keeper.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ListenerType}))
				if _, err := keeper.Recv(); err != nil {
					t.Errorf("the other stream has ended: %v", err)
				}
			}
			if !strings.Contains(f.log.String(), "connection ended: its certificate is good no longer") {
				t.Errorf("nothing is told: %s", f.log)
			}
		})
	}
}

// A stream ends with its certificate.
func TestExpiryEndsStreams(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	short := f.ca.IssueOdd(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(3 * time.Second) }, "edge")
	stream, err := f.ask(f.config(short), "edge")
	must(t, err)
	if _, err := stream.Recv(); err == nil || status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("got %v, want the stream to end", err)
	}
	until(t, "the end of the connection", func() bool {
		f.tls.mu.Lock()
		defer f.tls.mu.Unlock()
		for _, g := range f.tls.open {
			if len(g.chain) > 0 {
				return false
			}
		}
		return true
	})
}

// A broken file of the CA changes nothing, above all not who is let in.
func TestBrokenAuthoritiesChangeNothing(t *testing.T) {
	t.Parallel()
	stranger := certtest.NewAuthority(t, "ca")
	f := newFleet(t, nil)
	for name, text := range map[string]string{
		"empty": "", "garbage": "x", "a key": string(f.ca.Issue(t, "x").Key), "cut": string(f.ca.PEM())[:100],
		"one and a half":                         string(f.ca.PEM()) + string(stranger.PEM())[:100],
		"with the list of another":               string(f.ca.PEM()) + string(stranger.Revoke(t)),
		"a list that can't be read":              string(f.ca.PEM()) + "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
		"a list alone":                           string(f.ca.Revoke(t)),
		"an authority's key beside its own name": string(f.ca.PEM()) + string(f.ca.Issue(t, "x").Key),
	} {
		f.write("ca.crt", text)
		if got, err := f.raw("xDS", f.config(f.ca.Issue(t, "edge"))); err != nil || got == 0 {
			t.Errorf("%s: got %d bytes, %v", name, got, err)
		}
		if _, err := f.raw("xDS", f.config(stranger.Issue(t, "edge"))); err == nil {
			t.Errorf("%s: a stranger is let in", name)
		}
	}
}

const tokensOnly = `
tokens:
  issuer: ` + tokentest.Issuer + `
  audiences: [` + tokentest.Audience + `]
  jwks: {file: keys.json}
`

func groupToken(group any, change ...any) string {
	claims := map[string]any{"group": group}
	for i := 0; i+1 < len(change); i += 2 {
		claims[change[i].(string)] = change[i+1]
	}
	return "Bearer " + tokentest.Claiming(claims)
}

// With tokens, no certificate is needed, and one that is shown has to be good.
func TestTokensInPlaceOfCertificates(t *testing.T) {
	t.Parallel()
	stranger := certtest.NewAuthority(t, "ca")
	for name, change := range map[string]func(*Options){"with a CA": func(*Options) {}, "without": func(o *Options) { o.TLSCA = "" }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, func(f *fleet, o *Options) {
				f.write("keys.json", string(tokentest.JWKS()))
				o.Nodes = f.write("nodes.yaml", tokensOnly)
				change(o)
			})
			for _, row := range []struct {
				name, group string
				headers     []string
				want        codes.Code
			}{
				{"good", "edge", []string{"authorization", groupToken("edge")}, codes.OK},
				{"of another group", "edge", []string{"authorization", groupToken("inner")}, codes.PermissionDenied},
				{"none", "edge", nil, codes.Unauthenticated},
				{"a stranger's", "edge", []string{"authorization", "Bearer " + tokentest.Strangers()}, codes.Unauthenticated},
				{"expired", "edge", []string{"authorization", groupToken("edge", "exp", time.Now().Add(-time.Hour).Unix())}, codes.Unauthenticated},
				{"for another audience", "edge", []string{"authorization", groupToken("edge", "aud", "other")}, codes.Unauthenticated},
			} {
				if _, err := f.ask(f.config(), row.group, row.headers...); status.Code(err) != row.want {
					t.Errorf("%s: got %v, want %s", row.name, err, row.want)
				}
			}
			for method, code := range map[string]codes.Code{
				"envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats":        codes.Unauthenticated,
				"envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets":             codes.Unauthenticated,
				"grpc.reflection.v1.ServerReflection/ServerReflectionInfo":                codes.Unauthenticated,
				"envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus": codes.Unimplemented,
			} {
				if err := f.open(f.config(), method); status.Code(err) != code {
					t.Errorf("%s without a token: got %v, want %s", method, err, code)
				}
			}
			if f.o.TLSCA == "" {
				return
			}
			if _, err := f.ask(f.config(f.ca.Issue(t, "edge")), "edge"); err != nil {
				t.Errorf("a certificate alone: %v", err)
			}
			pair, config := stranger.Issue(t, "edge").TLS(t), f.config()
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			if _, err := f.ask(config, "edge", "authorization", groupToken("edge")); status.Code(err) != codes.Unavailable {
				t.Errorf("a stranger's certificate beside a good token: got %v, want no handshake", err)
			}
			if _, err := f.raw("companion", f.config()); err == nil {
				t.Error("the companion answers without a certificate")
			}
		})
	}
}

// A stream ends with its token, skew included.
func TestTokenEndsStream(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(f *fleet, o *Options) {
		f.write("keys.json", string(tokentest.JWKS()))
		o.Nodes = f.write("nodes.yaml", tokensOnly)
	})
	stream, err := f.ask(f.config(), "edge", "authorization", groupToken("edge", "exp", time.Now().Add(-27*time.Second).Unix()))
	must(t, err)
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want the stream to end with its token", err)
	}
}

// A change of the nodes file ends the streams of those who may no longer have their group.
func TestNodesFileEndsStreams(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(f *fleet, o *Options) {
		o.Nodes = f.write("nodes.yaml", "nodes: {edge: {certificates: [{dns: \"*.edge.test\"}, {dns: other.test}]}}\n")
	})
	if _, err := f.ask(f.config(f.ca.Issue(t, "edge")), "edge"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a name that only counts without the file: got %v", err)
	}
	goner, err := f.ask(f.config(f.ca.Issue(t, "a.edge.test")), "edge")
	must(t, err)
	keeper, err := f.ask(f.config(f.ca.Issue(t, "other.test")), "edge")
	must(t, err)
	f.write("nodes.yaml", "nodes: {edge: {certificates: [{dns: other.test}]}}\n")
	if _, err := goner.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want the stream to end", err)
	}
	must(t, keeper.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ListenerType}))
	if _, err := keeper.Recv(); err != nil {
		t.Errorf("the other stream has ended: %v", err)
	}
}

// What is wrong with the files as they are shows where people look, and whom the ports answer stands in the log.
func TestAccessIsTold(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(f *fleet, o *Options) {
		f.write("keys.json", string(tokentest.JWKS()))
		o.Nodes = f.write("nodes.yaml", tokensOnly)
	})
	f.announce()
	for _, part := range []string{"answers=\"Envoys with a certificate or a token\"", "answers=\"Envoys with a certificate\""} {
		if !strings.Contains(f.log.String(), part) {
			t.Errorf("the log does not say %s: %s", part, f.log)
		}
	}
	if got := f.readiness(); !got.Ready || len(got.Degraded) > 0 {
		t.Errorf("got %v", got)
	}
	f.write("nodes.yaml", "nodes: nonsense\n")
	f.write("ca.crt", "")
	until(t, "both to be told", func() bool {
		got := strings.Join(f.readiness().Degraded, "\n")
		return f.readiness().Ready && strings.Contains(got, "nodes: the last good file is in use") && strings.Contains(got, "tls: the last good certificates are in use")
	})
	f.write("nodes.yaml", tokensOnly)
	f.write("ca.crt", string(f.ca.PEM()))
	until(t, "nothing to be wrong", func() bool { return len(f.readiness().Degraded) == 0 })
}

// Streams end at their age, so that Envoys spread over replicas.
func TestConnectionsEndAtTheirAge(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(_ *fleet, o *Options) { o.MaxConnectionAge = time.Second })
	stream, err := f.ask(f.config(f.ca.Issue(t, "edge")), "edge")
	must(t, err)
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want the connection to end", err)
	}
}
