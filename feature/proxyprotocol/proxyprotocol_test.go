package proxyprotocol_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/proxyprotocol"
	"github.com/legation/legation/policy"
)

var kinds = []*policy.Kind{proxyprotocol.Kind}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways:
  edge:
    listeners:
      plain: {port: 1, proxyProtocol: required}
      tls: {port: 2, protocol: HTTPS, certificates: [{secret: tls/a}], proxyProtocol: {from: [127.0.0.0/8]}}
      named: {port: 3, protocol: HTTPS, certificates: [{hostname: a.test, secret: tls/a}, {secret: tls/b}], proxyProtocol: {from: [192.0.2.0/24]}}
      optional: {port: 4, proxyProtocol: {from: [127.0.0.1], optional: true}}
      elsewhere: {port: 5, proxyProtocol: {from: [192.0.2.0/24, "2001:db8::/32"], optional: true}}
      bytes: {port: 6, protocol: TCP, proxyProtocol: {from: [127.0.0.1]}}
      strange: {port: 7, protocol: TCP, proxyProtocol: {from: [192.0.2.0/24]}}
      none: {port: 8}
services: {echo: {endpoints: [%q]}, teapot: {endpoints: [%q]}}
routes:
  any: {hostnames: [a.test], backends: {echo: 1}}
  inside: {hostnames: [a.test], match: {path: /inside, source: [10.0.0.0/8, "2001:db8::/32"]}, backends: {teapot: 1}}
  bytes: {listeners: [bytes, strange], backends: {echo: 1}}
-- secrets --
tls/a certificate a.test
tls/b certificate b.test
`

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// v2 is a binary header for a connection of TCP, whose client is at an address.
func v2(client string) string {
	source := netip.MustParseAddrPort(client)
	target := map[bool]string{true: "203.0.113.1", false: "2001:db8:1::1"}[source.Addr().Is4()]
	family := map[bool]byte{true: 0x11, false: 0x21}[source.Addr().Is4()]
	addresses := append(source.Addr().AsSlice(), netip.MustParseAddr(target).AsSlice()...)
	addresses = binary.BigEndian.AppendUint16(addresses, source.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, 443)
	header := append([]byte(signature), 0x21, family)
	return string(append(binary.BigEndian.AppendUint16(header, uint16(len(addresses))), addresses...))
}

const (
	fromInside = "PROXY TCP4 10.1.1.1 203.0.113.1 50000 443\r\n"
	local      = signature + "\x20\x00\x00\x00"
)

// exchange sends a header and a request over it, in TLS where a configuration is given, and gives the answer to /inside
// and the address that the backend was told; empty when there is no answer.
func exchange(t *testing.T, e *golden.Envoy, listener, header string, config *tls.Config) (status int, client string) {
	t.Helper()
	conn := e.Dial(t, listener)
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, header); err != nil {
		return 0, ""
	}
	if config != nil {
		conn = tls.Client(conn, config)
	}
	answers := bufio.NewReader(conn)
	ask := func(path string) (*http.Response, []byte) {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.2.2.2\r\n\r\n", path); err != nil {
			return nil, nil
		}
		resp, err := http.ReadResponse(answers, nil)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("%s: %q: neither an answer nor an end", listener, header)
		}
		if err != nil {
			return nil, nil
		}
		body, _ := io.ReadAll(resp.Body)
		return resp, body
	}
	resp, body := ask("/")
	if resp == nil {
		return 0, ""
	}
	client = golden.Answer{Status: resp.StatusCode, Body: string(body)}.Received(t).Header.Get("X-Forwarded-For")
	if resp, _ = ask("/inside"); resp != nil {
		status = resp.StatusCode
	}
	return status, client
}

// TestHeaders holds whose address counts, and who is not let in.
func TestHeaders(t *testing.T) {
	teapot := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })
	e := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo), teapot), kinds...)
	secure := e.TLS(t, "a.test")
	secure.NextProtos = []string{"http/1.1"}
	const unspoiled = "itself" // the peer: the test, or the address that Envoy writes in place of loopback
	rows := []struct {
		what, listener, header string
		config                 *tls.Config
		status                 int // 418 for clients of 10.0.0.0/8 and 2001:db8::/32; 0: closed
		client                 string
	}{
		{"version 1", "plain", fromInside, nil, 418, "10.1.1.1"},
		{"version 1, IPv6", "plain", "PROXY TCP6 2001:db8::1 2001:db8:1::1 50000 443\r\n", nil, 418, "2001:db8::1"},
		{"version 1, outside", "plain", "PROXY TCP4 192.0.2.9 203.0.113.1 50000 443\r\n", nil, 200, "192.0.2.9"},
		{"version 1, no client", "plain", "PROXY UNKNOWN\r\n", nil, 200, unspoiled},
		{"version 2", "plain", v2("10.1.1.1:50000"), nil, 418, "10.1.1.1"},
		{"version 2, IPv6", "plain", v2("[2001:db8::1]:50000"), nil, 418, "2001:db8::1"},
		{"version 2, no client", "plain", local, nil, 200, unspoiled},
		{"no header", "plain", "", nil, 0, ""},
		{"garbage", "plain", "PROXY TCP4 nobody nowhere 1 2\r\n", nil, 0, ""},
		{"a cut off name", "plain", "PROX", nil, 0, ""},
		{"version 3", "plain", signature + "\x31\x11\x00\x00", nil, 0, ""},
		{"a line without an end", "plain", "PROXY TCP4 " + strings.Repeat("1", 200), nil, 0, ""},
		{"two headers", "plain", fromInside + fromInside, nil, 0, ""},
		{"in front of TLS", "tls", fromInside, secure, 418, "10.1.1.1"},
		{"version 2 in front of TLS", "tls", v2("192.0.2.9:50000"), secure, 200, "192.0.2.9"},
		{"TLS without a header", "tls", "", secure, 0, ""},
		{"TLS from a stranger", "named", fromInside, secure, 0, ""},
		{"a stranger who claims to be a proxy", "named", "PROXY TCP4 192.0.2.9 203.0.113.1 50000 443\r\n", secure, 0, ""},
		{"a proxy with a header", "optional", fromInside, nil, 418, "10.1.1.1"},
		{"a proxy without one", "optional", "", nil, 200, unspoiled},
		{"a stranger with a header", "elsewhere", fromInside, nil, 0, ""},
		{"a stranger without one", "elsewhere", "", nil, 0, ""},
		{"nobody asks for a header", "none", "", nil, 200, unspoiled},
	}
	for _, r := range rows {
		status, client := exchange(t, e, r.listener, r.header, r.config)
		if r.client == unspoiled && client != "" && !strings.HasPrefix(client, "10.") {
			client = unspoiled
		}
		if status != r.status || client != r.client {
			t.Errorf("%s: got %d for %q, want %d for %q", r.what, status, client, r.status, r.client)
		}
	}
	conn := e.Dial(t, "none")
	if _, err := io.WriteString(conn, fromInside+"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 400 {
		t.Errorf("a header that nobody asks for: got %v, %v, want 400", resp, err)
	}
}

// TestConnectionsOfTCP holds that strangers see nothing of a server that speaks first.
func TestConnectionsOfTCP(t *testing.T) {
	server := golden.Accept(t, func(conn net.Conn) { io.WriteString(conn, "220 ready") })
	e := golden.Serve(t, fmt.Sprintf(live, server, server), kinds...)
	for _, r := range []struct{ listener, header, want string }{
		{"bytes", fromInside, "220 ready"},
		{"bytes", "HELO a.test\r\n", ""},
		{"strange", fromInside, ""},
	} {
		conn := e.Dial(t, r.listener)
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, r.header); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if timeout, ok := err.(net.Error); string(got) != r.want || ok && timeout.Timeout() {
			t.Errorf("%s: %q: got %q, %v, want %q", r.listener, r.header, got, err, r.want)
		}
	}
}
