package timeouts_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/timeouts"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", timeouts.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {silent: {endpoints: [%q]}}
routes:
  request: {hostnames: [request.test], backends: {silent: 1}, timeouts: {request: 100ms}}
  try: {hostnames: [try.test], backends: {silent: 1}, timeouts: {request: 1m, backendRequest: 100ms}}
  idle: {hostnames: [idle.test], backends: {silent: 1}, timeouts: {request: 0s, idle: 100ms}}
  stream: {hostnames: [stream.test], backends: {silent: 1}, timeouts: {stream: 100ms}}
  both: {hostnames: [both.test], backends: {silent: 1}, timeouts: {stream: 1m, backendRequest: 100ms}}
  gone: {hostnames: [gone.test], backends: {silent: 1}, timeouts: {stream: 0s, request: 100ms}}
`

func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func TestSilentBackendGets504(t *testing.T) {
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, silent)), timeouts.Kind)
	for _, host := range []string{"request.test", "try.test", "idle.test", "stream.test", "both.test", "gone.test"} {
		if got := envoy.Ask(t, "GET", host, "/").Status; got != 504 {
			t.Errorf("%s: status %d, want 504", host, got)
		}
	}
}

const busy = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {busy: {endpoints: [%q]}}
routes:
  stream: {hostnames: [stream.test], backends: {busy: 1}, timeouts: {stream: 200ms, idle: 1m}}
  request: {hostnames: [request.test], backends: {busy: 1}, timeouts: {request: 200ms, idle: 1m}}
`

// Neither an answer that goes on nor a request that does is silent; request begins to count when the request is whole.
func TestStreamEndsWhateverGoesOn(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for r.Context().Err() == nil {
			io.WriteString(w, "more\n")
			w.(http.Flusher).Flush()
			<-tick.C
		}
	}
	envoy := golden.Serve(t, fmt.Sprintf(busy, golden.Backend(t, endless)), timeouts.Kind)
	for _, host := range []string{"stream.test", "request.test"} {
		got := envoy.Raw(t, "GET / HTTP/1.1\r\nhost: "+host+"\r\n\r\n")
		if got.Status != 200 || !strings.HasPrefix(got.Body, "more\n") {
			t.Errorf("%s: status %d, body %.20q; want the beginning of an answer", host, got.Status, got.Body)
		}
	}
	if got := envoy.Raw(t, "POST / HTTP/1.1\r\nhost: stream.test\r\ncontent-length: 10\r\n\r\nhalf").Status; got != 408 {
		t.Errorf("a request that never ends: status %d, want 408", got)
	}
}

const connection = `
gateways: {edge: {listeners: {raw: {port: 10000, protocol: TCP}}}}
services: {backend: {endpoints: [%q]}}
routes: {raw: {listeners: [raw], backends: {backend: 1}, timeouts: %s}}
`

// The backend begins an answer that ends with the connection, and is silent from then on, or is not.
func TestConnectionEnds(t *testing.T) {
	for path, bounds := range map[string]string{"/silent": "{idle: 100ms}", "/busy": "{stream: 100ms, idle: 1m}"} {
		backend := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nbegun")
			if r.URL.Path == "/busy" {
				go keepWriting(conn)
			}
			io.Copy(io.Discard, conn)
		})
		envoy := golden.Serve(t, fmt.Sprintf(connection, backend, bounds), timeouts.Kind)
		ended := make(chan string)
		go func() { ended <- envoy.Ask(t, "GET", "any.test", path).Body }()
		select {
		case got := <-ended:
			if !strings.HasPrefix(got, "begun") {
				t.Errorf("%s: body %q, want what the backend said", bounds, got)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: after 20 s the connection stands", bounds)
		}
	}
}

func keepWriting(w io.Writer) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(w, "."); err != nil {
			return
		}
		<-tick.C
	}
}
