package directresponse_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/directresponse"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", directresponse.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
routes:
  none: {hostnames: [none.test], directResponse: {}}
  text: {hostnames: [text.test], directResponse: {body: "100%% of %%REQ(:PATH)%%\n"}}
  json: {hostnames: [json.test], directResponse: {status: 418, body: '{"a":1}', contentType: application/json}}
  own: {hostnames: [own.test], directResponse: {status: 503, body: "back at noon", headers: {Retry-After: 3600, server: ours, x-literal: "5%%"}}}
  bare: {hostnames: [bare.test], directResponse: {status: 503}}
  gone: {hostnames: [gone.test], directResponse: {status: 410}}
  nothing: {hostnames: [nothing.test], directResponse: {status: 204}}
  large: {hostnames: [large.test], directResponse: {body: %s}}
`

func TestAnswers(t *testing.T) {
	large := strings.Repeat("x", 64<<10)
	envoy := golden.Serve(t, fmt.Sprintf(live, large), directresponse.Kind)
	const plain = "text/plain; charset=utf-8"
	for _, tt := range []struct {
		method, host string
		status       int
		contentType  string
		body         string
	}{
		{"GET", "none.test", 200, "", ""},
		{"GET", "text.test", 200, plain, "100% of %REQ(:PATH)%\n"},
		{"POST", "text.test", 200, plain, "100% of %REQ(:PATH)%\n"},
		{"HEAD", "text.test", 200, plain, ""},
		{"TRACE", "text.test", 405, "application/json", `{"error":"method not allowed"}`},
		{"GET", "json.test", 418, "application/json", `{"a":1}`},
		{"GET", "own.test", 503, plain, "back at noon"},
		{"GET", "bare.test", 503, "", ""},
		{"GET", "gone.test", 410, "", ""},
		{"GET", "nothing.test", 204, "", ""},
		{"GET", "large.test", 200, plain, large},
	} {
		got := envoy.Ask(t, tt.method, tt.host, "/any/where?a=b")
		if typ := got.Header.Get("content-type"); got.Status != tt.status || typ != tt.contentType || got.Body != tt.body {
			t.Errorf("%s %s: %d %q %.80q, want %d %q %.80q", tt.method, tt.host, got.Status, typ, got.Body, tt.status, tt.contentType, tt.body)
		}
	}
}

func TestHeadersOfTheAnswer(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, "x"), directresponse.Kind)
	header := envoy.Ask(t, "GET", "own.test", "/").Header
	for name, want := range map[string][]string{"retry-after": {"3600"}, "server": {"ours"}, "x-literal": {"5%"}} {
		if diff := cmp.Diff(want, header.Values(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestBodiesHaveABound(t *testing.T) {
	for _, tt := range []struct {
		bytes int
		good  bool
	}{{64 << 10, true}, {64<<10 + 1, false}} {
		content := strings.Repeat("x", tt.bytes)
		for _, setting := range []string{"{body: " + content + "}", "{file: page.txt}"} {
			_, problems := policy.New(directresponse.Kind).Load(policy.Files{
				"page.txt": []byte(content),
				"policy.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 10000}}}}
routes: {page: {hostnames: [a.test], directResponse: ` + setting + `}}
`),
			})
			if problems.HasErrors() == tt.good {
				t.Errorf("%d bytes, %.20s: %v, want good %t", tt.bytes, setting, problems.Err(), tt.good)
			}
		}
	}
}

// A gRPC client reads the status in its own words.
func TestAnswersGRPC(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, "x"), directresponse.Kind)
	got := envoy.Ask(t, "POST", "own.test", "/shop.Orders/List", "content-type", "application/grpc")
	status, message := got.Header.Get("grpc-status"), got.Header.Get("grpc-message")
	typ := got.Header.Get("content-type")
	if got.Status != 200 || status != "14" || message != "back at noon" || got.Body != "" || typ != "application/grpc" {
		t.Errorf("%d %q %q %q %q, want 200 with grpc-status 14", got.Status, status, message, got.Body, typ)
	}
}
