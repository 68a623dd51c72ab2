package accesslog_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/accesslog"
	"github.com/legation/legation/feature/golden"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", accesslog.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}, accessLog: %s}}
services: {orders: {endpoints: [%q]}}
routes: {orders: {hostnames: [a.test], match: {path: /v1}, backends: {orders: 1}}}
`

// varying is the fields that differ from run to run.
var varying = []string{"time", "requestId", "revision", "endpoint", "durationMs", "backendMs"}

func TestLines(t *testing.T) {
	backend := golden.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		w.Write([]byte("hello"))
	})
	envoy := golden.Serve(t, fmt.Sprintf(live, "{}", backend), accesslog.Kind)
	envoy.Ask(t, "GET", "a.test", "/v1/orders?token=secret", "user-agent", `a"},{"b`)
	envoy.Ask(t, "GET", "a.test", "/other?token=secret", "user-agent", "b")

	got := lines(t, envoy.Stop())
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
		},
		{
			"gateway": "edge", "method": "GET", "host": "a.test", "path": "/other", "protocol": "HTTP/1.1",
			"client": "127.0.0.1", "userAgent": "b", "status": 404.0, "details": "route_not_found", "flags": "NR",
			"bytesReceived": 0.0, "bytesSent": 22.0, "attempts": 0.0,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestFileWithQuery(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	setting := fmt.Sprintf("{path: %q, query: true}", file)
	envoy := golden.Serve(t, fmt.Sprintf(live, setting, golden.Backend(t, golden.Echo)), accesslog.Kind)
	envoy.Ask(t, "GET", "a.test", "/v1?page=2")
	envoy.Stop()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(t, string(text)); len(got) != 1 || got[0]["path"] != "/v1?page=2" {
		t.Errorf("got %s", text)
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
