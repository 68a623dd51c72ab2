package connections_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/feature/connections"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

var kinds = []*policy.Kind{connections.Kind, golden.Protocol}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  plain: {endpoints: [%[1]q]}
  single: {endpoints: [%[1]q], connections: {requestsPerConnection: 1}}
  headers: {endpoints: [%[1]q], connections: {maxResponseHeaders: 2KiB}}
  idle: {endpoints: [%[2]q], connections: {idleTimeout: 100ms}}
  life: {endpoints: [%[2]q], connections: {maxLifetime: 100ms}}
routes:
  plain: {hostnames: [plain.test], backends: {plain: 1}}
  single: {hostnames: [single.test], backends: {single: 1}}
  headers: {hostnames: [headers.test], backends: {headers: 1}}
  idle: {hostnames: [idle.test], backends: {idle: 1}}
  life: {hostnames: [life.test], backends: {life: 1}}
`

func TestConnectionsEndAsTheyShould(t *testing.T) {
	// Tells the connection that a request came on, and answers with as large a header as is asked for.
	teller := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-from", r.RemoteAddr)
		w.Header().Set("x-large", strings.Repeat("a", len(r.URL.Path)*1024))
	})
	closed := make(chan struct{}, 10)
	watched := httptest.NewUnstartedServer(http.HandlerFunc(golden.Echo))
	watched.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	watched.Start()
	defer watched.Close()
	envoy := golden.Serve(t, fmt.Sprintf(live, teller, watched.Listener.Addr().String()), kinds...)

	t.Run("requestsPerConnection", func(t *testing.T) {
		for _, c := range []struct {
			host string
			want int
		}{{"plain.test", 1}, {"single.test", 5}} {
			seen := map[string]bool{}
			for range 5 {
				seen[envoy.Ask(t, "GET", c.host, "/").Header.Get("x-from")] = true
			}
			if len(seen) != c.want {
				t.Errorf("%s: 5 requests came on %d connections, want %d", c.host, len(seen), c.want)
			}
		}
	})
	t.Run("maxResponseHeaders", func(t *testing.T) {
		for path, want := range map[string]int{"/": 200, "/aa": 502} {
			if got := envoy.Ask(t, "GET", "headers.test", path).Status; got != want {
				t.Errorf("headers of %d KiB: got %d, want %d", len(path), got, want)
			}
		}
	})
	for _, host := range []string{"idle.test", "life.test"} {
		t.Run(host, func(t *testing.T) {
			if got := envoy.Ask(t, "GET", host, "/").Status; got != 200 {
				t.Fatalf("got %d, want 200", got)
			}
			select {
			case <-closed:
			case <-time.After(20 * time.Second): // the default is to keep it for 50s
				t.Error("the connection is still open")
			}
		})
	}
}
