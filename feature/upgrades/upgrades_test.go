package upgrades_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/upgrades"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", upgrades.Kind, golden.Protocol, golden.UpstreamTLS)
}

// quick stands for the timeouts of a route: 1 s for the request, 2 s of silence.
type quick bool

var quickKind = policy.Define[quick]("quick", policy.InRoute, "")

func (*quick) Check(*policy.Check) {}

func (*quick) Route(envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{Timeout: durationpb.New(time.Second), IdleTimeout: durationpb.New(2 * time.Second)}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {chat: {endpoints: [%q]}}
routes:
  chat: {hostnames: [a.test], match: {path: /chat}, backends: {chat: 1}, upgrades: [websocket, x-bytes/2]}
  quick: {hostnames: [a.test], match: {path: /quick}, backends: {chat: 1}, upgrades: [websocket], quick: true}
  plain: {hostnames: [a.test], match: {path: /plain}, backends: {chat: 1}}
`

// serve runs an Envoy in front of a backend.
func serve(t *testing.T, h http.HandlerFunc) *golden.Envoy {
	t.Helper()
	return golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, h)), upgrades.Kind, quickKind)
}

// handshake asks for an upgrade, with whatever follows in the same packet, and reads the head of the answer.
func handshake(t *testing.T, edge *golden.Envoy, path, upgrade, behind string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn := dial(t, edge)
	request := "GET " + path + " HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + "\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n\r\n"
	if _, err := io.WriteString(conn, request+behind); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, r, resp
}

func dial(t *testing.T, edge *golden.Envoy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", edge.Address(t, "http"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

func TestWebSocket(t *testing.T) {
	edge := serve(t, chat)
	conn, r, resp := handshake(t, edge, "/chat", "websocket", "")
	if resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != sampleAccept {
		t.Fatalf("got %d %v, want 101 with the backend's accept", resp.StatusCode, resp.Header)
	}
	for _, want := range []string{"hello", "", strings.Repeat("x", 60_000)} {
		if err := writeFrame(conn, text, want, true); err != nil {
			t.Fatal(err)
		}
		got, err := readFrame(r)
		if err != nil || got != (frame{text, want}) {
			t.Fatalf("got %.80q, %v, want the %d bytes sent", got, err, len(want))
		}
	}
	if err := writeFrame(conn, closing, "", true); err != nil {
		t.Fatal(err)
	}
	if got, err := readFrame(r); err != nil || got.kind != closing {
		t.Errorf("got %v, %v, want the backend to close too", got, err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v behind the close, want the end", rest, err)
	}
}

func TestOtherProtocolsCarryBytes(t *testing.T) {
	edge := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, buf := hijack(w, "x-bytes/2", "")
		defer conn.Close()
		io.Copy(conn, buf)
	})
	conn, r, resp := handshake(t, edge, "/chat", "X-Bytes/2", "")
	if resp.StatusCode != 101 {
		t.Fatalf("got %d, want 101", resp.StatusCode)
	}
	io.WriteString(conn, "\x00\r\n\r\nbytes")
	got := make([]byte, 10)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "\x00\r\n\r\nbytes" {
		t.Errorf("got %q, %v", got, err)
	}
}

// The request timeout is over while frames still pass; the idle timeout ends the silence behind them.
func TestIdleTimeoutCountsAndRequestTimeoutDoesNot(t *testing.T) {
	edge := serve(t, chat)
	began := time.Now()
	conn, r, resp := handshake(t, edge, "/quick", "websocket", "")
	if resp.StatusCode != 101 {
		t.Fatalf("got %d, want 101", resp.StatusCode)
	}
	if err := writeFrame(conn, text, "hello", true); err != nil {
		t.Fatal(err)
	}
	got, err := readFrame(r)
	if err != nil || got.text != "hello" {
		t.Fatalf("got %v, %v", got, err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v, want the end of the connection", rest, err)
	}
	if lived := time.Since(began); lived < 2*time.Second {
		t.Errorf("lived %v, want the idle timeout of 2s to end it and not the request timeout of 1s", lived)
	}
}

func TestRequestTimeoutBoundsTheHandshake(t *testing.T) {
	silent := make(chan struct{})
	edge := serve(t, func(http.ResponseWriter, *http.Request) { <-silent })
	defer close(silent)
	if _, _, resp := handshake(t, edge, "/quick", "websocket", ""); resp.StatusCode != 504 {
		t.Errorf("got %d, want 504", resp.StatusCode)
	}
}

func TestOtherUpgradesAreRefused(t *testing.T) {
	edge := serve(t, chat)
	for _, tt := range []struct {
		path, upgrade string
		status        int
	}{
		{"/chat", "WEBSOCKET", 101},
		{"/chat", "x-bytes", 403},
		{"/chat", "x-bytes/3", 403},
		{"/chat", "CONNECT", 403},
		{"/chat", "websocket, h2c", 403},
		{"/chat", "h2c, websocket", 403},
		{"/chat", "websocket\r\nUpgrade: websocket", 403},
		{"/chat", "h2c", 426}, // Envoy drops the header, and the backend asks for an upgrade
		{"/plain", "websocket", 403},
		{"/nowhere", "websocket", 404},
	} {
		_, _, resp := handshake(t, edge, tt.path, tt.upgrade, "")
		if resp.StatusCode != tt.status {
			t.Errorf("%s to %q: got %d, want %d", tt.path, tt.upgrade, resp.StatusCode, tt.status)
		}
	}
}

// A backend that knows nothing of upgrades would read what a client sends behind the handshake as further requests,
// which nobody has authorized: it must not get any of it.
func TestNothingReachesABackendThatRefuses(t *testing.T) {
	for _, upgrade := range []string{"websocket", "x-bytes/2"} {
		seen := make(chan string, 1)
		edge := serve(t, func(w http.ResponseWriter, r *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n")
			rest, _ := io.ReadAll(buf)
			seen <- string(rest)
		})
		_, r, resp := handshake(t, edge, "/chat", upgrade, "GET /plain HTTP/1.1\r\nHost: a.test\r\n\r\n")
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 404 || string(body) != "no\n" || !resp.Close {
			t.Errorf("%s: got %d %q, close %t, want the backend's 404 and the end", upgrade, resp.StatusCode, body, resp.Close)
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			t.Errorf("%s: the client got %q behind the answer", upgrade, rest)
		}
		if got := <-seen; got != "" {
			t.Errorf("%s: the backend got %q", upgrade, got)
		}
	}
}

// WebSocket over HTTP/2 (RFC 8441) is not offered; who tries it anyway has the connection closed.
func TestExtendedConnectIsNotOffered(t *testing.T) {
	asked := make(chan string, 1)
	edge := serve(t, func(_ http.ResponseWriter, r *http.Request) { asked <- r.Method })
	common := []string{":scheme", "http", ":path", "/chat", ":authority", "a.test"}
	if offered, answered := askH2(t, edge, append(common, ":method", "GET")...); offered || !answered {
		t.Errorf("GET: extended CONNECT offered %t, answered %t, want an answer and no offer", offered, answered)
	}
	if got := <-asked; got != "GET" {
		t.Errorf("the backend got %s", got)
	}
	if _, answered := askH2(t, edge, append(common, ":method", "CONNECT", ":protocol", "websocket")...); answered {
		t.Error("extended CONNECT was answered")
	}
	if len(asked) > 0 {
		t.Errorf("the backend got %s", <-asked)
	}
}

// askH2 sends the head of a request over HTTP/2, and tells whether the settings offer extended CONNECT and whether the
// head of an answer came before the end of the connection.
func askH2(t *testing.T, edge *golden.Envoy, fields ...string) (offered, answered bool) {
	t.Helper()
	const headers, settings, goAway, enableConnect = 1, 4, 7, 8
	const endOfStream, endOfHeaders = 1, 4
	flags := byte(endOfHeaders)
	if slices.Contains(fields, "GET") {
		flags |= endOfStream
	}
	conn := dial(t, edge)
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+h2Frame(settings, 0, 0, "")+
		h2Frame(headers, flags, 1, literals(fields...)))
	for {
		kind, payload, err := readH2Frame(conn)
		if err != nil || kind == goAway || kind == headers {
			return offered, kind == headers
		}
		for ; kind == settings && len(payload) >= 6; payload = payload[6:] {
			offered = offered || payload[1] == enableConnect && payload[5] != 0
		}
	}
}
