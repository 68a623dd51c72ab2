package limits_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/limits"
	"github.com/legation/legation/policy"
)

var kinds = []*policy.Kind{limits.Kind}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways:
  edge:
    limits: {connections: 2, requestHeaders: 2KiB}
    listeners:
      two: {port: 1}
      https: {port: 2, protocol: HTTPS, certificates: [{secret: tls/a}, {hostname: b.test, secret: tls/b}]}
      bytes: {port: 3, protocol: TCP}
      slow: {port: 4, limits: {connections: 1000, connectionsPerSecond: 2}}
      small: {port: 5, limits: {connections: 1000, headerCount: 10, requestsPerConnection: 2, concurrentStreams: 7}}
      short: {port: 6, limits: {connections: 1000, headersTimeout: 200ms, requestTimeout: 300ms, idleTimeout: 200ms}}
      brief: {port: 7, limits: {connections: 1000, connectionLifetime: 200ms}}
      idle: {port: 8, protocol: TCP, limits: {idleTimeout: 200ms}}
      mayfly: {port: 9, protocol: TCP, limits: {connectionLifetime: 200ms}}
services: {echo: {endpoints: [%q]}}
routes:
  any: {hostnames: [a.test, b.test], backends: {echo: 1}}
  bytes: {listeners: [bytes, idle, mayfly], backends: {echo: 1}}
-- secrets --
tls/a certificate a.test
tls/b certificate b.test
`

func serve(t *testing.T) *golden.Envoy {
	t.Helper()
	return golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo)), kinds...)
}

const request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"

// dial connects, with time enough for all that is to happen.
func dial(t *testing.T, e *golden.Envoy, listener string) net.Conn {
	t.Helper()
	conn := e.Dial(t, listener)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// ask sends a text and gives the answer, nil where the connection ends instead.
func ask(t *testing.T, conn net.Conn, answers *bufio.Reader, text string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		return nil
	}
	resp, err := http.ReadResponse(answers, nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("neither an answer nor an end")
	}
	if err != nil {
		return nil
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// taken tells whether a new connection is.
func taken(t *testing.T, e *golden.Envoy, listener string) bool {
	t.Helper()
	conn := dial(t, e, listener)
	defer conn.Close()
	return ask(t, conn, bufio.NewReader(conn), request) != nil
}

func TestConnections(t *testing.T) {
	e := serve(t)
	for _, listener := range []string{"two", "bytes"} {
		var open []net.Conn
		for range 2 {
			conn := dial(t, e, listener)
			if ask(t, conn, bufio.NewReader(conn), request) == nil {
				t.Fatalf("%s: a connection within the bound was refused", listener)
			}
			open = append(open, conn)
		}
		if taken(t, e, listener) {
			t.Errorf("%s: a third connection was taken", listener)
		}
		open[0].Close()
		golden.Eventually(t, listener+" takes one again", func() bool { return taken(t, e, listener) })
	}
}

// TestConnectionsOfEachCertificate holds what the documentation says of several.
func TestConnectionsOfEachCertificate(t *testing.T) {
	e := serve(t)
	for _, host := range []string{"a.test", "b.test"} {
		for range 2 {
			if got := e.AskTLS(t, "https", "GET", host, "/").Status; got != 200 {
				t.Errorf("%s: got %d, want 200", host, got)
			}
		}
		if _, err := e.DialTLS(t, "https", e.TLS(t, host)); err == nil {
			t.Errorf("%s: a third connection was taken", host)
		}
	}
}

func TestConnectionsPerSecond(t *testing.T) {
	e := serve(t)
	if !taken(t, e, "slow") {
		t.Error("the first connection was refused")
	}
	golden.Eventually(t, "a connection is refused", func() bool { return !taken(t, e, "slow") })
	golden.Eventually(t, "the next second lets one in", func() bool { return taken(t, e, "slow") })
}

func TestRequests(t *testing.T) {
	e := serve(t)
	headers := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("x-%d", i), "a")
		}
		return all
	}
	rows := []struct {
		listener string
		headers  []string
		want     int
	}{
		{"small", []string{"x-long", strings.Repeat("a", 1500)}, 200},
		{"small", []string{"x-long", strings.Repeat("a", 2100)}, 431},
		{"small", headers(5), 200},
		{"small", headers(12), 431},
		{"short", headers(90), 200},
		{"short", headers(101), 431},
	}
	for i, r := range rows {
		if got := e.AskAt(t, r.listener, "GET", "a.test", "/", r.headers...).Status; got != r.want {
			t.Errorf("row %d: got %d, want %d", i, got, r.want)
		}
	}
}

func TestRequestsPerConnection(t *testing.T) {
	e := serve(t)
	conn := dial(t, e, "small")
	answers := bufio.NewReader(conn)
	for i, last := range []bool{false, true} {
		resp := ask(t, conn, answers, request)
		if resp == nil || resp.Close != last {
			t.Fatalf("request %d: got %v, want an answer that ends the connection: %t", i, resp, last)
		}
	}
	if ask(t, conn, answers, request) != nil {
		t.Error("a third request was answered")
	}
}

func TestConcurrentStreams(t *testing.T) {
	e := serve(t)
	conn := dial(t, e, "small")
	// The preface and an empty SETTINGS frame; Envoy's first frame is its own settings.
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	const settings, maxConcurrentStreams = 4, 3
	var frame [9]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil || frame[3] != settings {
		t.Fatalf("got the frame % x, %v", frame, err)
	}
	body := make([]byte, int(frame[0])<<16|int(frame[1])<<8|int(frame[2]))
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	got := uint32(0)
	for ; len(body) >= 6; body = body[6:] {
		if binary.BigEndian.Uint16(body) == maxConcurrentStreams {
			got = binary.BigEndian.Uint32(body[2:])
		}
	}
	if got != 7 {
		t.Errorf("got %d streams at a time, want 7", got)
	}
}

// TestTimeouts holds what becomes of those that keep a connection waiting.
func TestTimeouts(t *testing.T) {
	e := serve(t)
	for _, r := range []struct {
		what, listener, text string
		want                 int // 0: the end of the connection
	}{
		{"headers that do not end", "short", "GET / HTTP/1.1\r\nHost: a.test\r\n", 408},
		{"a body that does not end", "short", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc", 408},
		{"nothing", "short", "", 0},
		{"half a request in bytes", "idle", "GET /", 0},
	} {
		conn := dial(t, e, r.listener)
		status := 0
		if resp := ask(t, conn, bufio.NewReader(conn), r.text); resp != nil {
			status = resp.StatusCode
		}
		if status != r.want {
			t.Errorf("%s: got %d, want %d", r.what, status, r.want)
		}
	}
}

func TestConnectionLifetime(t *testing.T) {
	e := serve(t)
	for _, listener := range []string{"brief", "mayfly"} {
		conn := dial(t, e, listener)
		answers := bufio.NewReader(conn)
		asked := 0
		golden.Eventually(t, listener+" ends the connection", func() bool {
			resp := ask(t, conn, answers, request)
			asked++
			return resp == nil || resp.Close
		})
		if asked == 1 {
			t.Errorf("%s: not one request was answered without an end", listener)
		}
	}
}
