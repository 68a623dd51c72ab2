package accesslog_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/accesslog"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// kinds is the key in all its places, and the one that says what a collector speaks.
var kinds = []*policy.Kind{accesslog.Kind, accesslog.RouteKind, golden.Protocol}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}, accessLog: %s}}
services: {orders: {endpoints: [%q]}}
routes: {orders: {hostnames: [a.test], match: {path: /v1}, backends: {orders: 1}}}
`

// varying is the fields that differ from run to run.
var varying = []string{"time", "requestId", "endpoint", "durationMs", "backendMs", "routeVersion"}

// revision is how the lines name the revision of a policy.
func revision(t *testing.T, text string) string {
	t.Helper()
	m, problems := policy.New(kinds...).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return m.Revision[:12]
}

func TestLines(t *testing.T) {
	backend := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		w.Write([]byte("hello"))
	})
	text := fmt.Sprintf(live, "true", backend)
	e := golden.Serve(t, text, kinds...)
	e.Ask(t, "GET", "a.test", "/v1/orders?token=secret", "user-agent", `a"},{"b`)
	e.Ask(t, "GET", "a.test", "/other?token=secret", "user-agent", "b")

	got := lines(t, e.Stop())
	if len(got) != 2 {
		t.Fatalf("%d lines, want 2", len(got))
	}
	for _, field := range varying {
		if got[0][field] == nil {
			t.Errorf("the field %s is missing", field)
		}
	}
	for _, line := range got {
		maps.DeleteFunc(line, func(field string, _ any) bool { return slices.Contains(varying, field) })
	}
	want := []map[string]any{
		{
			"gateway": "edge", "method": "GET", "host": "a.test", "path": "/v1/orders", "protocol": "HTTP/1.1",
			"client": "127.0.0.1", "userAgent": `a"},{"b`, "status": 201.0, "details": "via_upstream", "flags": "-",
			"bytesReceived": 0.0, "bytesSent": 5.0, "route": "orders", "service": "orders", "attempts": 1.0,
			"revision": revision(t, text),
		},
		{
			"gateway": "edge", "method": "GET", "host": "a.test", "path": "/other", "protocol": "HTTP/1.1",
			"client": "127.0.0.1", "userAgent": "b", "status": 404.0, "details": "route_not_found", "flags": "NR",
			"bytesReceived": 0.0, "bytesSent": 22.0, "attempts": 0.0, "revision": revision(t, text),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestFileWithQuery(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	setting := fmt.Sprintf("{path: %q, query: true}", file)
	e := golden.Serve(t, fmt.Sprintf(live, setting, golden.Backend(t, golden.Echo)), kinds...)
	e.Ask(t, "GET", "a.test", "/v1?page=2")
	e.Stop()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(t, string(text)); len(got) != 1 || got[0]["path"] != "/v1?page=2" {
		t.Errorf("got %s", text)
	}
}

const several = `
gateways:
  edge:
    listeners: {http: {port: 10000}}
    accessLog:
      - {path: %[1]s/text, format: text}
      - {path: %[1]s/own, format: {what: "%%REQ(:method)%% %%RESPONSE_CODE%%", took: "%%DURATION%%", none: "%%REQ(x-none)%%", share: 100%%%%}}
      - {path: %[1]s/missed, format: {text: "%%RESPONSE_CODE%% %%PATH(NQ)%%"}, filter: {statuses: [404, 5xx]}}
      - {path: %[1]s/slow, filter: {minDuration: 20ms}}
      - {path: %[1]s/endless, filter: {minDuration: 24h}}
      - {path: %[1]s/half, format: {text: "%%REQ(x-request-id)%%"}, filter: {sampling: 50%%}}
      - {path: %[1]s/same, format: {text: "%%REQ(x-request-id)%%"}, filter: {statuses: [2xx], sampling: 50%%}}
services: {orders: {endpoints: [%[2]q]}, gone: {endpoints: ["127.0.0.1:1"]}}
routes:
  orders: {hostnames: [a.test], match: {path: /v1}, backends: {orders: 1}}
  health: {hostnames: [a.test], match: {path: /health}, backends: {orders: 1}, accessLog: off}
  gone: {hostnames: [a.test], match: {path: /gone}, backends: {gone: 1}}
`

func TestFormatsAndFilters(t *testing.T) {
	backend := golden.Backend(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/slow" {
			time.Sleep(30 * time.Millisecond) // Envoy measures it
		}
	})
	dir := t.TempDir()
	policy := fmt.Sprintf(several, dir, backend)
	e := golden.Serve(t, policy, kinds...)
	e.Ask(t, "GET", "a.test", "/v1/slow?token=secret")
	e.Ask(t, "GET", "a.test", "/other?token=secret")
	e.Ask(t, "GET", "a.test", "/gone")
	e.Ask(t, "GET", "a.test", "/health")
	e.Ask(t, "GET", "b.test", "/health", "user-agent", `"`)
	e.Stop()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	text := strings.Split(read("text"), "\n")
	want := regexp.MustCompile(`^\[[0-9TZ:.-]+\] "GET /v1/slow HTTP/1.1" 200 - 0 0 [0-9]+ "127.0.0.1" "Go-http-client/1.1" "[0-9a-f-]{36}" "a.test" "127.0.0.1:[0-9]+" ` + revision(t, policy) + `$`)
	if len(text) != 5 || !want.MatchString(text[0]) {
		t.Errorf("got the text %q", text)
	}
	own := lines(t, read("own"))
	if took := own[0]["took"]; took == nil || took.(float64) < 30 {
		t.Errorf("the slow one took %v", took)
	}
	delete(own[0], "took")
	if diff := cmp.Diff(map[string]any{"what": "GET 200", "share": "100%"}, own[0]); diff != "" {
		t.Errorf("own fields (-want +got):\n%s", diff)
	}
	if got := read("missed"); got != "404 /other\n503 /gone\n404 /health\n" {
		t.Errorf("missed: %q", got)
	}
	if got := lines(t, read("slow")); len(got) == 0 || got[0]["path"] != "/v1/slow" {
		t.Errorf("slow: %v", got)
	}
	if got := read("endless"); got != "" {
		t.Errorf("endless: %q", got)
	}
}

func TestSamplesAreTheSameInAllLogs(t *testing.T) {
	dir := t.TempDir()
	e := golden.Serve(t, fmt.Sprintf(several, dir, golden.Backend(t, golden.Echo)), kinds...)
	for range 60 {
		e.Ask(t, "GET", "a.test", "/v1")
	}
	e.Stop()
	half, err := os.ReadFile(filepath.Join(dir, "half"))
	if err != nil {
		t.Fatal(err)
	}
	same, err := os.ReadFile(filepath.Join(dir, "same"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(half), "\n"); n == 0 || n == 60 {
		t.Errorf("half of 60 are %d", n)
	}
	if diff := cmp.Diff(string(half), string(same)); diff != "" {
		t.Errorf("two samples of the same (-one +other):\n%s", diff)
	}
}

func TestCollectorGetsRecords(t *testing.T) {
	collector := golden.Collect(t)
	text := fmt.Sprintf(`
gateways:
  edge:
    listeners: {http: {port: 10000}}
    accessLog: {openTelemetry: {service: otel, resource: {env: 50%% test}}}
services: {orders: {endpoints: [%q]}, otel: {endpoints: [%q], protocol: grpc}}
routes:
  orders: {hostnames: [a.test], match: {path: /v1}, backends: {orders: 1}}
  health: {hostnames: [a.test], match: {path: /health}, backends: {orders: 1}, accessLog: off}
`, golden.Backend(t, golden.Echo), collector.Address)
	e := golden.Serve(t, text, kinds...)
	e.Ask(t, "GET", "a.test", "/health")
	e.Ask(t, "GET", "a.test", "/v1/orders?token=secret", "user-agent", `a"b`)

	got := collector.Record(t)
	for _, field := range append(varying, "bytesSent") {
		if got.Attributes[field] == "" {
			t.Errorf("the attribute %s is missing", field)
		}
		delete(got.Attributes, field)
	}
	want := golden.Record{
		Body: "GET /v1/orders 200",
		Resource: map[string]string{
			"service.name": "edge", "env": "50% test", "log_name": "edge", "cluster_name": "edge", "node_name": "edge", "zone_name": "",
		},
		Attributes: map[string]string{
			"gateway": "edge", "method": "GET", "host": "a.test", "path": "/v1/orders", "protocol": "HTTP/1.1", "client": "127.0.0.1",
			"userAgent": `a"b`, "status": "200", "details": "via_upstream", "flags": "-", "bytesReceived": "0", "route": "orders",
			"service": "orders", "attempts": "1", "revision": revision(t, text),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestConnections(t *testing.T) {
	dir, port := t.TempDir(), golden.FreePort(t)
	m, problems := policy.New(kinds...).Load(policy.Files{"policy.yaml": []byte(fmt.Sprintf(`
gateways:
  edge:
    listeners: {db: {port: %[1]d, address: 127.0.0.1}}
    accessLog:
      - {path: %[2]s/json}
      - {path: %[2]s/failed, filter: {statuses: [0, 5xx]}}
      - {path: %[2]s/own, format: {text: "%%REQ(x-a)%% %%BYTES_RECEIVED%%"}}
services: {db: {endpoints: [%[3]q]}}
routes: {db: {hostnames: ["*"], backends: {db: 1}}}
`, port, dir, golden.Backend(t, golden.Echo)))})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	m.Gateways[0].Listeners[0].Protocol = policy.TCP
	m.Routes[0].Layer4, m.Routes[0].Listeners = true, []string{"db"}
	t.Run("Envoy", func(t *testing.T) { // ends with it, which writes the lines
		golden.Start(t, m, kinds, "127.0.0.1:1")
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Fatal(err)
		}
	})
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	got := lines(t, read("json"))
	if len(got) != 1 {
		t.Fatalf("%d lines, want 1", len(got))
	}
	for _, field := range []string{"time", "durationMs", "endpoint", "bytesSent"} {
		if got[0][field] == nil {
			t.Errorf("the field %s is missing", field)
		}
		delete(got[0], field)
	}
	want := map[string]any{
		"gateway": "edge", "client": "127.0.0.1", "flags": "-", "bytesReceived": 51.0, "service": "db", "attempts": 1.0,
		"revision": m.Revision[:12],
	}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
	if got := read("own"); got != "- 51\n" {
		t.Errorf("own format: %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "failed")); !os.IsNotExist(err) {
		t.Errorf("a log of statuses is open: %v", err)
	}
}

func lines(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(text) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, fields)
	}
	return all
}
