package headers_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/headers"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", headers.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}}
routes:
  orders:
    hostnames: [a.test]
    backends: {orders: 1}
    headers:
      request:
        set: {x-set: "100%% of %%REQ(:PATH)%%", x-empty: ""}
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
		{"set, literally", request.Values("x-set"), []string{"100% of %REQ(:PATH)%"}},
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
