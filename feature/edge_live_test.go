package feature_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
)

const edgePolicy = `
gateways: {edge: {listeners: {http: {port: PORT, address: 127.0.0.1}}}}
auth:
  demo: {jwt: {issuer: ISSUER, audiences: [AUDIENCE], jwks: {file: keys.json}}}
services: {echo: {endpoints: ["UPSTREAM"]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  socket: {hostnames: [a.test], match: {path: /socket}, auth: [demo], rateLimit: {rate: 2/day}, upgrades: [websocket], backends: {echo: 1}}
  closed-socket: {hostnames: [a.test], match: {path: /closed}, auth: [demo], access: {deny: [127.0.0.1]}, upgrades: [websocket], backends: {echo: 1}}
  upload: {hostnames: [a.test], match: {path: /upload}, auth: [demo], requestBody: {max: 1KiB}, backends: {echo: 1}}
  collect: {hostnames: [a.test], match: {path: /collect}, auth: [demo], requestBody: {max: 1KiB, buffer: true}, backends: {echo: 1}}
  inside:
    hostnames: [a.test]
    match: {path: /inside}
    auth: [demo]
    access: {allow: [10.0.0.0/8]}
    cors: {allowOrigins: ["https://app.test"]}
    backends: {echo: 1}
  page:
    hostnames: [a.test]
    match: {path: /page}
    auth: [demo]
    cors: {allowOrigins: ["https://app.test"], exposeHeaders: [grpc-status]}
    compression: {minLength: 1B}
    sessionPersistence: {cookie: session}
    backends: {echo: 1}
`

// upgrading answers 101 to whoever asks for an upgrade, and else reads the body.
func upgrading(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "a page")
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	conn.Close()
}

// TestNothingPassesTheDoor shows that what opens connections, bodies and origins stays behind access, auth and limits.
func TestNothingPassesTheDoor(t *testing.T) {
	port := golden.FreePort(t)
	m := loadText(t, edgePolicy, port, golden.Backend(t, upgrading))
	_, address := companions(t, m)
	golden.Start(t, m, feature.All(), address)
	client{t, "http://127.0.0.1:" + strconv.Itoa(port)}.waitReady()
	token := "Authorization: " + bearer(t, "alice")
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	const chunked = "Transfer-Encoding: chunked\r\n"
	const preflight = "Origin: https://app.test\r\nAccess-Control-Request-Method: GET\r\n"
	long := fmt.Sprintf("\r\n801\r\n%s\r\n0\r\n", strings.Repeat("x", 0x801))
	for _, tt := range []struct {
		name, line, headers, body string
		status                    int
	}{
		{"a socket without a token", "GET /socket", upgrade, "", 401},
		{"a socket with one", "GET /socket", upgrade + token, "", 101},
		{"a second one", "GET /socket", upgrade + token, "", 101},
		{"a third one, past the limit", "GET /socket", upgrade + token, "", 429},
		{"a socket from a denied address", "GET /closed", upgrade + token, "", 403},
		{"a long body without a token", "POST /upload", "Content-Length: 4096", "", 401},
		{"a long body with one", "POST /upload", "Content-Length: 4096\r\n" + token, "", 413},
		{"a long chunked body without a token", "POST /upload", chunked, long, 401},
		{"a long chunked body with one", "POST /upload", chunked + token, long, 413},
		{"a long collected body without a token", "POST /collect", chunked, long, 401},
		{"a long collected body with one", "POST /collect", chunked + token, long, 413},
		{"a request from outside", "GET /inside", token, "", 403},
		{"a preflight from outside", "OPTIONS /inside", preflight, "", 403},
		{"a preflight", "OPTIONS /page", preflight, "", 200},
		{"a page without a token", "GET /page", "Accept-Encoding: gzip", "", 401},
	} {
		got := raw(t, port, tt.line+" HTTP/1.1\r\nHost: a.test\r\n"+strings.TrimSuffix(tt.headers, "\r\n")+"\r\n"+tt.body+"\r\n")
		if got.StatusCode != tt.status {
			t.Errorf("%s: got %d, want %d", tt.name, got.StatusCode, tt.status)
		}
	}
	page := raw(t, port, "GET /page HTTP/1.1\r\nHost: a.test\r\nOrigin: https://app.test\r\nAccept-Encoding: gzip\r\n"+token+"\r\n\r\n")
	got := []string{page.Status, page.Header.Get("Content-Encoding"), page.Header.Get("Access-Control-Allow-Origin"), page.Header.Get("Set-Cookie")[:8]}
	if diff := cmp.Diff([]string{"200 OK", "gzip", "https://app.test", "session="}, got); diff != "" {
		t.Errorf("all together (-want +got):\n%s", diff)
	}
}

// raw sends the bytes of a request and reads the head of the answer.
func raw(t *testing.T, port int, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	return resp
}
