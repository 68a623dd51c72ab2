package tracing_test

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/tracing"
	"github.com/legation/legation/policy"
)

// kinds is the key in all its places, and the one that says what a collector speaks.
var kinds = []*policy.Kind{golden.Protocol, tracing.Kind, tracing.RouteKind}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways:
  edge:
    listeners: {http: {port: 10000}}
    tracing: {openTelemetry: {service: otel, resource: {env: test}}, %s, attributes: {team: 50%% platform, tenant: {header: x-tenant}}}
services: {orders: {endpoints: [%q]}, otel: {endpoints: [%q], protocol: grpc}}
routes:
  orders: {hostnames: [a.test], match: {path: /orders}, backends: {orders: 1}}
  quiet: {hostnames: [a.test], match: {path: /quiet}, backends: {orders: 1}, tracing: off}
  loud: {hostnames: [a.test], match: {path: /loud}, backends: {orders: 1}, tracing: {sampling: 100%%, attributes: {tier: public}}}
`

// parent is a trace that a client goes on with; 01 behind it says that it is recorded, 00 that it isn't.
const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"

// flush sends requests until Envoy has the five spans that it sends at once; fewer it keeps for 5 s.
func flush(t *testing.T, e *golden.Envoy, path string) {
	t.Helper()
	for range 3 {
		e.Ask(t, "GET", "a.test", path)
	}
}

// pair waits for the spans of one request: that of the gateway, and that of the try below it.
func pair(t *testing.T, c *golden.Collector) (server, client golden.Span) {
	t.Helper()
	client, server = c.Span(t), c.Span(t)
	if client.Parent != server.ID || client.Trace != server.Trace || server.Kind != 2 || client.Kind != 3 {
		t.Fatalf("no client below a server: %+v, %+v", client, server)
	}
	return server, client
}

// traceparent is the header that tells of a span.
func traceparent(s golden.Span) string {
	return "00-" + hex.EncodeToString([]byte(s.Trace)) + "-" + hex.EncodeToString([]byte(s.ID)) + "-01"
}

func TestSpans(t *testing.T) {
	collector := golden.Collect(t)
	backend := golden.Backend(t, golden.Echo)
	e := golden.Serve(t, fmt.Sprintf(live, "sampling: 100%", backend, collector.Address), kinds...)
	got := e.Ask(t, "GET", "a.test", "/orders/1?token=secret", "x-tenant", "acme", "traceparent", parent+"01", "tracestate", "a=b").Received(t)
	flush(t, e, "/orders")
	server, client := pair(t, collector)
	if want := traceparent(client); got.Header.Get("traceparent") != want || server.Parent != "" {
		t.Errorf("the backend got %q below %x, want %q below nothing", got.Header.Get("traceparent"), server.Parent, want)
	}
	if state := got.Header.Get("tracestate"); state != "" {
		t.Errorf("the backend got the client's tracestate %q", state)
	}
	if server.Name != "orders" || client.Name != "orders" {
		t.Errorf("got the names %q and %q", server.Name, client.Name)
	}
	for _, s := range []golden.Span{server, client} {
		if s.Resource["service.name"] != "edge" || s.Resource["env"] != "test" {
			t.Errorf("got the resource %v", s.Resource)
		}
		want := map[string]string{
			"http.url": "http://a.test/orders/1", "http.status_code": "200", "legation.route": "orders", "legation.consumer": "",
			"team": "50% platform", "tenant": "acme",
		}
		for name, value := range want {
			if s.Attributes[name] != value {
				t.Errorf("the attribute %s is %q, want %q", name, s.Attributes[name], value)
			}
		}
		if all := fmt.Sprint(s); strings.Contains(all, "secret") {
			t.Errorf("the query is in %s", all)
		}
	}
}

func TestUnrouted(t *testing.T) {
	collector := golden.Collect(t)
	e := golden.Serve(t, fmt.Sprintf(live, "sampling: 100%", golden.Backend(t, golden.Echo), collector.Address), kinds...)
	e.Ask(t, "GET", "a.test", "/other?token=secret")
	flush(t, e, "/orders")
	got := collector.Span(t)
	if got.Name != "ingress" || got.Attributes["http.url"] != "http://a.test/other" || got.Attributes["http.status_code"] != "404" {
		t.Errorf("got %+v", got)
	}
	if all := fmt.Sprint(got); strings.Contains(all, "secret") {
		t.Errorf("the query is in %s", all)
	}
}

// TestClientsDoNotChoose lets clients ask for traces by all the headers that Envoy knows.
func TestClientsDoNotChoose(t *testing.T) {
	collector := golden.Collect(t)
	e := golden.Serve(t, fmt.Sprintf(live, "sampling: 0%", golden.Backend(t, golden.Echo), collector.Address), kinds...)
	asks := [][]string{
		{"traceparent", parent + "01"},
		{"x-client-trace-id", "a", "x-request-id", "b"},
		{"x-envoy-force-trace", "true"},
		{"x-request-id", "00000000-0000-9000-8000-000000000000"}, // 9: forced
	}
	for _, headers := range asks {
		for _, path := range []string{"/orders", "/quiet"} {
			got := e.Ask(t, "GET", "a.test", path, headers...).Received(t).Header.Get("traceparent")
			if !strings.HasSuffix(got, "-00") || strings.HasPrefix(got, parent[:35]) {
				t.Errorf("%s with %v: the backend got %q", path, headers, got)
			}
		}
	}
	e.Ask(t, "GET", "a.test", "/loud", "traceparent", parent+"00")
	flush(t, e, "/loud")
	if server, _ := pair(t, collector); server.Name != "loud" || server.Attributes["tier"] != "public" || server.Attributes["team"] == "" {
		t.Errorf("the first span is %+v, want loud", server)
	}
}

func TestOffInARoute(t *testing.T) {
	collector := golden.Collect(t)
	e := golden.Serve(t, fmt.Sprintf(live, "sampling: 100%", golden.Backend(t, golden.Echo), collector.Address), kinds...)
	got := e.Ask(t, "GET", "a.test", "/quiet").Received(t).Header.Get("traceparent")
	if !strings.HasSuffix(got, "-00") {
		t.Errorf("the backend got %q", got)
	}
	flush(t, e, "/orders")
	if server, _ := pair(t, collector); server.Name != "orders" {
		t.Errorf("the first span is %+v, want orders", server)
	}
}

func TestTrustedParents(t *testing.T) {
	collector := golden.Collect(t)
	e := golden.Serve(t, fmt.Sprintf(live, "trustParent: true", golden.Backend(t, golden.Echo), collector.Address), kinds...)
	got := e.Ask(t, "GET", "a.test", "/orders", "traceparent", parent+"00", "tracestate", "a=b").Received(t).Header
	if p := got.Get("traceparent"); !strings.HasPrefix(p, parent[:36]) || !strings.HasSuffix(p, "-00") || got.Get("tracestate") != "a=b" {
		t.Errorf("the backend got %q, %q", p, got.Get("tracestate"))
	}
	got = e.Ask(t, "GET", "a.test", "/orders", "traceparent", parent+"01").Received(t).Header
	flush(t, e, "/orders")
	server, client := pair(t, collector)
	if p := got.Get("traceparent"); p != traceparent(client) || !strings.HasPrefix(p, parent[:36]) {
		t.Errorf("the backend got %q", p)
	}
	if hex.EncodeToString([]byte(server.Parent)) != "b7ad6b7169203331" {
		t.Errorf("the span stands below %x", server.Parent)
	}
}

func TestDeadCollector(t *testing.T) {
	e := golden.Serve(t, fmt.Sprintf(live, "sampling: 100%", golden.Backend(t, golden.Echo), golden.Dead(t)), kinds...)
	var got []int
	for range 3 {
		got = append(got, e.Ask(t, "GET", "a.test", "/orders").Status)
	}
	if diff := cmp.Diff([]int{http.StatusOK, http.StatusOK, http.StatusOK}, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}
