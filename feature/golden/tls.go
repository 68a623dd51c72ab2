package golden

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
)

// TLS is how a client connects that trusts the authority which signs what names no other, and asks for a server name; ""
// is for none, with a certificate that is not looked at. It may be changed: another authority, a certificate of the
// client's own (Secrets.Certificate(…).TLS(t)), other protocols.
func (e *Envoy) TLS(t testing.TB, serverName string) *tls.Config {
	t.Helper()
	return &tls.Config{
		ServerName:         serverName,
		RootCAs:            e.Secrets.Authority(t, root).Pool(),
		NextProtos:         []string{"h2", "http/1.1"},
		InsecureSkipVerify: serverName == "",
	}
}

// Dial connects to a listener; the connection is closed with the test.
func (e *Envoy) Dial(t testing.TB, listener string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", e.Address(t, listener))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// DialTLS connects to a listener of TLS; the error is that of the handshake. In TLS 1.3 a client learns with its first
// read only that its own certificate was refused.
func (e *Envoy) DialTLS(t testing.TB, listener string, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	conn := tls.Client(e.Dial(t, listener), config)
	return conn, conn.HandshakeContext(t.Context())
}

// Client sends requests to a listener of HTTPS, whatever host they are for, over connections of the given kind. It follows
// no redirects.
func (e *Envoy) Client(t testing.TB, listener string, config *tls.Config) *http.Client {
	t.Helper()
	address := e.Address(t, listener)
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
		},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// AskTLS is [Envoy.Ask] at a listener of HTTPS: the client asks for the host as the server name, and trusts the authority
// which signs what names no other.
func (e *Envoy) AskTLS(t *testing.T, listener, method, host, path string, headers ...string) Answer {
	t.Helper()
	return e.AskWith(t, e.Client(t, listener, e.TLS(t, host)), method, host, path, headers...)
}

// AskWith is [Envoy.AskTLS] by a client of one's own choice, see [Envoy.Client].
func (e *Envoy) AskWith(t *testing.T, c *http.Client, method, host, path string, headers ...string) Answer {
	t.Helper()
	return ask(t, c.Transport, "https://"+host, method, host, path, headers)
}
