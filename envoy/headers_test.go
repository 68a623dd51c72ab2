package envoy_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// headersModel is one listener with a route that sets a header which others have removed, one that answers by itself,
// one whose backend is gone, and one for everything else.
func headersModel(t *testing.T) *policy.Model {
	t.Helper()
	s := service("web", upstream(t))
	gone := service("gone", closedPort(t))
	own := route("own", "app.test", "/own", to(s))
	own.Settings = policy.Settings{set(toyKind, &toy{route: envoy.RouteParts{Route: &routev3.Route{
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "server", Value: "ours"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}}})}
	answering := route("answering", "app.test", "/answer")
	answering.Settings = policy.Settings{set(toyKind, &toy{route: envoy.RouteParts{Route: answers(503, "closed on Mondays")}})}
	all := route("all", "app.test", "/", to(s))
	all.Settings = policy.Settings{set(toyKind, &toy{strip: []string{"X-Auth-User"}})}
	return modelOf([]*policy.Listener{httpListener("http")},
		own, answering, route("gone", "app.test", "/gone", to(gone)), all)
}

func answers(status uint32, body string) *routev3.Route {
	return &routev3.Route{Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: status,
		Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: body}},
	}}}
}

// closedPort is bound and not listened at, so that nobody else gets it.
func closedPort(t *testing.T) policy.Endpoint {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Endpoint{Host: "127.0.0.1", Port: uint32(address.(*syscall.SockaddrInet4).Port)}
}

// TestSpoofedHeaders holds what a client sends and no backend may see.
func TestSpoofedHeaders(t *testing.T) {
	address := live(t, headersModel(t))["http"]
	names := []string{
		"x-auth-user", "X-Forwarded-Host", "x-original-url", "x-rewrite-url", "x-http-method-override", "forwarded",
		"x-real-ip", "x-envoy-original-path", "x-envoy-decorator-operation", "x-envoy-peer-metadata",
		"x-envoy-external-address", "x-envoy-retry-on", "x-forwarded-client-cert", "x-forwarded-scheme", "x-forwarded-ssl",
		"x-forwarded-uri", "x-forwarded-path", "x-forwarded-method", "x-forwarded-prefix", "x-forwarded-user", "x-forwarded-email",
		"x-forwarded", "x-original-uri", "x-original-method", "x-http-path-override", "x-host", "front-end-https", "proxy",
		"true-client-ip", "x-client-ip", "x-cluster-client-ip", "cf-connecting-ip", "remote-user", "x-remote-user",
		"X-Legation-Peer", "x-legation-scope",
	}
	var send []string
	for _, n := range names {
		send = append(send, n+": spoofed")
	}
	send = append(send, "x-auth-user: twice", "X-Forwarded-For: 1.2.3.4", "x-forwarded-proto: https", "x-kept: yes")
	got := get(t, address, "app.test", "/", send...).got(t)
	for _, n := range names {
		if strings.Contains(strings.Join(got.Headers.Values(n), ","), "spoofed") {
			t.Errorf("%s reached the backend", n)
		}
	}
	if got, want := got.Headers.Get("X-Envoy-External-Address"), "127.0.0.1"; got != want {
		t.Errorf("client address %q, want %q", got, want)
	}
	// For a peer on loopback Envoy writes this machine's own address.
	if got := got.Headers.Get("X-Forwarded-For"); got == "" || strings.Contains(got, ",") || strings.Contains(got, "1.2.3.4") {
		t.Errorf("forwarded for %q, want one address, not the client's word", got)
	}
	if got.Headers.Get("X-Kept") != "yes" || got.Headers.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("headers: %v", got.Headers)
	}
	if got := got.Headers.Get("X-Request-Id"); len(got) != 36 {
		t.Errorf("request id %q", got)
	}
}

// TestTrustedProxyKeepsItsWord holds what a proxy in front may say: the client and the scheme, and nothing else.
func TestTrustedProxyKeepsItsWord(t *testing.T) {
	l := httpListener("http")
	l.Settings = policy.Settings{set(toyKind, &toy{http: &hcmv3.HttpConnectionManager{XffNumTrustedHops: 1}})}
	address := live(t, modelOf([]*policy.Listener{l}, route("all", "app.test", "/", to(service("web", upstream(t))))))["http"]
	got := get(t, address, "app.test", "/", "x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https", "x-forwarded-host: spoofed",
		"x-forwarded-scheme: spoofed", "x-forwarded-user: spoofed", "x-forwarded-uri: spoofed", "x-original-url: spoofed").got(t)
	if f, p := got.Headers.Get("X-Forwarded-For"), got.Headers.Get("X-Forwarded-Proto"); !strings.HasPrefix(f, "1.2.3.4") || p != "https" {
		t.Errorf("for %q by %q, want the proxy's word", f, p)
	}
	for name, values := range got.Headers {
		if strings.Contains(strings.Join(values, ","), "spoofed") {
			t.Errorf("%s reached the backend", name)
		}
	}
}

// TestRefusedRequests holds the requests that no backend gets.
func TestRefusedRequests(t *testing.T) {
	address := live(t, headersModel(t))["http"]
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("x-%d: y", i)
	}
	rows := []struct {
		name, request string
		code          int
	}{
		{"underscore", "GET / HTTP/1.1\r\nHost: app.test\r\nx_auth_user: root\r\n\r\n", 400},
		{"40 KiB header", "GET / HTTP/1.1\r\nHost: app.test\r\nx: " + strings.Repeat("y", 40<<10) + "\r\n\r\n", 431},
		{"40 KiB path", "GET /" + strings.Repeat("y", 40<<10) + " HTTP/1.1\r\nHost: app.test\r\n\r\n", 431},
		{"101 headers", "GET / HTTP/1.1\r\nHost: app.test\r\n" + strings.Join(many, "\r\n") + "\r\n\r\n", 431},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: app.test\r\n\r\n", 405},
		{"TRACE elsewhere", "TRACE / HTTP/1.1\r\nHost: other.test\r\n\r\n", 404},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"lower case", "get / HTTP/1.1\r\nHost: app.test\r\n\r\n", 400},
		{"CONNECT", "CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n", 404},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n", 404},
		{"websocket", "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 403},
		{"two hosts", "GET / HTTP/1.1\r\nHost: app.test\r\nHost: app.test\r\n\r\n", 400},
		{"length and chunks", "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two lengths", "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: app.test\r\n\r\n", 426},
	}
	for _, r := range rows {
		if got := raw(t, address, r.request); got.code != r.code {
			t.Errorf("%s: %d %s, want %d", r.name, got.code, got.body, r.code)
		}
	}
}

// TestBackendHeadersAreHidden holds what clients don't get to see of backends and of Envoy itself.
func TestBackendHeadersAreHidden(t *testing.T) {
	address := live(t, headersModel(t))["http"]
	for path, server := range map[string]string{"/": "", "/own": "ours", "/gone": ""} {
		got := get(t, address, "app.test", path)
		if got.header.Get("Server") != server {
			t.Errorf("%s: server %q, want %q", path, got.header.Get("Server"), server)
		}
		for name := range got.header {
			if strings.HasPrefix(name, "X-Envoy-") || name == "X-Powered-By" {
				t.Errorf("%s: %s reached the client", path, name)
			}
		}
	}
}

// TestLocalReplies holds what clients read when Envoy answers: small JSON, nothing about what stands behind; what the
// policy says itself stays as it is.
func TestLocalReplies(t *testing.T) {
	address := live(t, headersModel(t))["http"]
	rows := []struct {
		host, path string
		code       int
		body       string
		kind       string
	}{
		{"other.test", "/", 404, `{"error":"not found"}`, "application/json"},
		{"app.test", "/gone", 503, `{"error":"service unavailable"}`, "application/json"},
		{"app.test", "/a;b", 400, `{"error":"bad request"}`, "application/json"},
		{"app.test", "/a%2fb", 400, `{"error":"bad request"}`, "application/json"},
		{"app.test", "/admin", 403, `{"error":"forbidden"}`, "application/json"},
		{"app.test", "/answer", 503, "closed on Mondays", "text/plain"},
	}
	for _, r := range rows {
		got := get(t, address, r.host, r.path)
		if got.code != r.code || strings.TrimSpace(got.body) != r.body || got.header.Get("Content-Type") != r.kind {
			t.Errorf("%s%s: %d %q %s, want %d %q %s",
				r.host, r.path, got.code, got.body, got.header.Get("Content-Type"), r.code, r.body, r.kind)
		}
	}
	trace := raw(t, address, "TRACE / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
	if got, want := trace.body, `{"error":"method not allowed"}`; got != want || trace.header.Get("Content-Type") != "application/json" {
		t.Errorf("TRACE: %q %s", got, trace.header.Get("Content-Type"))
	}
}
