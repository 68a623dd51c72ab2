package feature_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
)

// TestRefusedRequestsStayUnlogged holds that a route without a log has none of what the door refuses either.
func TestRefusedRequestsStayUnlogged(t *testing.T) {
	e := golden.Serve(t, fmt.Sprintf(`
gateways: {edge: {listeners: {http: {port: 10000}}, accessLog: {format: {text: "%%PATH(NQ)%% %%RESPONSE_CODE%%"}}}}
services: {orders: {endpoints: [%q]}}
routes:
  loud: {hostnames: [a.test], match: {path: /loud}, backends: {orders: 1}, access: {deny: [127.0.0.1]}}
  quiet: {hostnames: [a.test], match: {path: /quiet}, backends: {orders: 1}, access: {deny: [127.0.0.1]}, accessLog: off}
  tricky: {hostnames: [a.test], match: {path: /tricky}, backends: {orders: 1}, accessLog: off}
`, golden.Backend(t, golden.Echo)), feature.All()...)
	for _, path := range []string{"/quiet", "/tricky/a;b", "/loud"} {
		if got := e.Ask(t, "GET", "a.test", path).Status; got != 403 && got != 400 {
			t.Errorf("%s: got %d, want it refused", path, got)
		}
	}
	if got, want := strings.TrimSpace(e.Stop()), "/loud 403"; got != want {
		t.Errorf("the log has %q, want %q", got, want)
	}
}
