package headers_test

import (
	"fmt"
	"net/http"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/headers"
	"github.com/legation/legation/policy"
)

// tokens stands for a way to tell who calls that sets a header.
type tokens string

func (*tokens) Check(*policy.Check) {}

func (k *tokens) StripHeaders() []string { return []string{string(*k)} }

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", headers.Kind, policy.Define[tokens]("tokens", policy.InAuth, ""))
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}}
routes:
  orders:
    hostnames: [a.test]
    backends: {orders: 1}
    headers:
      request:
        set: {x-set: "100%%%% of %%%%REQ(:PATH)%%%%", x-empty: ""}
        add: {x-add: ours}
        remove: [x-remove]
      response:
        set: {x-powered-by: legation}
        add: {x-add: ours}
        remove: [x-remove]
`

func TestBothSides(t *testing.T) {
	backend := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"x-powered-by", "x-add", "x-remove"} {
			w.Header().Set(name, "theirs")
		}
		golden.Echo(w, r)
	})
	envoy := golden.Serve(t, fmt.Sprintf(live, backend), headers.Kind)
	answer := envoy.Ask(t, "GET", "a.test", "/", "x-set", "theirs", "x-add", "theirs", "x-remove", "theirs")
	request := answer.Received(t).Header
	for _, tt := range []struct {
		name string
		got  []string
		want []string
	}{
		{"set, with percent signs", request.Values("x-set"), []string{"100% of %REQ(:PATH)%"}},
		{"set to nothing", request.Values("x-empty"), []string{""}},
		{"added", request.Values("x-add"), []string{"theirs", "ours"}},
		{"removed", request.Values("x-remove"), nil},
		{"response, set", answer.Header.Values("x-powered-by"), []string{"legation"}},
		{"response, added", answer.Header.Values("x-add"), []string{"theirs", "ours"}},
		{"response, removed", answer.Header.Values("x-remove"), nil},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

const commands = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}}
routes:
  orders:
    hostnames: [a.test]
    backends: {orders: 1}
    headers:
      request:
        set:
          x-client: "%%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%%"
          x-request: "%%REQ(:METHOD)%% %%REQ(:SCHEME)%%://%%REQ(:authority)%%%%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%%"
          x-short: "%%REQ(x-long):4%%"
          x-missing: "%%REQ(x-nowhere)%%"
          x-sni: "%%REQUESTED_SERVER_NAME%%"
          x-half: "[%%REQ(x-nowhere)%%]"
          x-route: "%%ROUTE_NAME%% %%PROTOCOL%% 100%%%%"
          x-time: "%%START_TIME(%%Y-%%m-%%dT%%H:%%M:%%S.%%3fZ)%%"
      response:
        set: {x-served-by: "%%UPSTREAM_CLUSTER%% %%UPSTREAM_HOST%%", x-was: "%%RESPONSE_CODE%% %%RESP(x-from)%%", x-echo: "%%REQ(x-long)%%"}
`

func TestCommands(t *testing.T) {
	backend := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-from", "orders")
		w.WriteHeader(201)
		golden.Echo(w, r)
	})
	envoy := golden.Serve(t, fmt.Sprintf(commands, backend), headers.Kind)
	answer := envoy.Ask(t, "GET", "a.test", "/a?b=%0d%0ac", "x-long", "a%long%REQ(x)%")
	request := answer.Received(t).Header
	for _, tt := range []struct {
		name, want string
		in         http.Header
	}{
		{"x-client", `^127\.0\.0\.1$`, request},
		{"x-request", `^GET http://a\.test/a\?b=%0d%0ac$`, request},
		{"x-short", `^a%lo$`, request},
		{"x-half", `^\[\]$`, request},
		{"x-route", `^orders HTTP/1\.1 100%$`, request},
		{"x-time", `^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, request},
		{"x-served-by", `^orders ` + regexp.QuoteMeta(backend) + `$`, answer.Header},
		{"x-was", `^201 orders$`, answer.Header},
		{"x-echo", `^a%long%REQ\(x\)%$`, answer.Header}, // what a client sends is not read as a command
	} {
		if got := tt.in.Get(tt.name); !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("%s: got %q, want %s", tt.name, got, tt.want)
		}
	}
	for _, name := range []string{"x-missing", "x-sni"} {
		if got := request.Values(name); got != nil {
			t.Errorf("%s: got %q, want no header where there is nothing to tell", name, got)
		}
	}
}
