package explain

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

const overTLS = `
gateways:
  edge:
    listeners:
      http: {port: 80, httpsRedirect: true}
      https:
        port: 443
        protocol: HTTPS
        certificates: [{hostname: "*.a.test", secret: tls/a}, {hostname: b.test, secret: tls/b}]
routes:
  a: {hostnames: ["*.a.test"], headers: {response: {set: {x-route: a}}}, directResponse: {status: 200}}
  b: {hostnames: [b.test, c.test], headers: {response: {set: {x-route: b}}}, directResponse: {status: 200}}
  plain: {hostnames: [b.test], listeners: [http], match: {path: /plain}, headers: {response: {set: {x-route: plain}}}, directResponse: {status: 200}}
`

// Which certificate there is, and whether the host is the one that the connection was made for, is settled before any route.
func TestAgreesWithEnvoyOverTLS(t *testing.T) {
	edge := golden.Serve(t, overTLS+"-- secrets --\ntls/a certificate *.a.test\ntls/b certificate b.test\n", feature.All()...)
	p := served(t, policy.Files{"policy.yaml": []byte(overTLS)})
	for _, row := range []struct{ name, host, method, path string }{
		{"x.a.test", "x.a.test", "GET", "/"},
		{"x.y.a.test", "x.y.a.test", "GET", "/"},
		{"x.a.test", "y.a.test", "GET", "/"},
		{"x.a.test", "X.A.test", "GET", "/"},
		{"x.a.test", "X.A.test.:443", "GET", "/"},
		{"b.test", "b.test", "GET", "/"},
		{"b.test", "c.test", "GET", "/"},
		{"c.test", "c.test", "GET", "/"},
		{"a.test", "a.test", "GET", "/"},
		{"b.test", "nowhere.test", "GET", "/"},
		{"b.test", "b.test", "TRACE", "/"},
		{"", "b.test", "GET", "/"},
		{"", "b.test", "POST", "/"},
		{"", "nowhere.test", "GET", "/"},
		{"", "nowhere.test", "GET", "/a;b"},
		{"", "b.test", "GET", "/plain"},
		{"", "b.test", "TRACE", "/plain"},
	} {
		q := Question{Method: row.method, URL: "https://" + row.name + row.path, Headers: []Header{{"host", row.host}}}
		if row.name == "" {
			q.URL, q.Listener = "http://"+row.host+row.path, "http"
		}
		e, err := p.Explain(q)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint("status ", e.Answer.Status)
		if e.Answer.By == Itself {
			want = "route " + e.Route.Name
		}
		if got := overTheWire(t, edge, row.name, row.host, row.method, row.path); got != want {
			t.Errorf("%+v: Envoy: %s, explain: %s (%s)", row, got, want, e.Answer.Why)
		}
	}
}

// overTheWire is what Envoy does; status 0 is no connection.
func overTheWire(t *testing.T, edge *golden.Envoy, serverName, host, method, path string) string {
	t.Helper()
	if serverName == "" {
		answer := edge.AskAt(t, "http", method, host, path)
		return describe(&http.Response{StatusCode: answer.Status, Header: answer.Header})
	}
	config := edge.TLS(t, serverName)
	config.InsecureSkipVerify = true
	conn, err := edge.DialTLS(t, "https", config)
	if err != nil {
		return "status 0"
	}
	conn.Close()
	answer := edge.AskWith(t, edge.Client(t, "https", config), method, host, path)
	return describe(&http.Response{StatusCode: answer.Status, Header: answer.Header})
}
