package requestbody_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/requestbody"
	"github.com/legation/legation/policy"
)

// upgrades stands for the key of that name.
type upgrades []string

var upgradesKind = policy.Define[upgrades]("upgrades", policy.Layers, "")

func (*upgrades) Check(*policy.Check) {}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", requestbody.Kind, upgradesKind) }

// again stands for retries: one after a 5xx.
type again bool

var againKind = policy.Define[again]("again", policy.InRoute, "")

func (*again) Check(*policy.Check) {}

func (*again) Route(envoy.RouteContext) envoy.RouteParts {
	action := &routev3.RouteAction{RetryPolicy: &routev3.RetryPolicy{RetryOn: "5xx"}}
	return envoy.RouteParts{Route: &routev3.Route{Action: &routev3.Route_Route{Route: action}}}
}

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {orders: {endpoints: [%q]}}
routes:
  small: {hostnames: [a.test], match: {path: /small}, backends: {orders: 1}, requestBody: {max: 1KiB}}
  small-buffered: {hostnames: [a.test], match: {path: /buffered/small}, backends: {orders: 1}, requestBody: {max: 1KiB, buffer: true}}
  large: {hostnames: [a.test], match: {path: /large}, backends: {orders: 1}, requestBody: {max: 1MiB}}
  large-buffered: {hostnames: [a.test], match: {path: /buffered/large}, backends: {orders: 1}, requestBody: {max: 1MiB, buffer: true}, again: true}
  any: {hostnames: [a.test], match: {path: /any}, backends: {orders: 1}, again: true}
`

// upload sends a body whose length the client tells, or does not know.
func upload(t *testing.T, c *http.Client, url string, length int, told bool) (status int, body string) {
	t.Helper()
	content := io.Reader(strings.NewReader(strings.Repeat("x", length)))
	if !told {
		content = io.MultiReader(content)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, content)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "a.test"
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// clients speak HTTP/1.1 and HTTP/2.
func clients(t *testing.T) map[string]*http.Client {
	all := map[string]*http.Client{}
	for name, set := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2":   func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		protocols := new(http.Protocols)
		set(protocols)
		c := &http.Client{Transport: &http.Transport{Protocols: protocols}}
		t.Cleanup(c.CloseIdleConnections)
		all[name] = c
	}
	return all
}

func TestLimitIsExactHoweverTheBodyComes(t *testing.T) {
	backend := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // broken off
		}
		if strings.HasPrefix(r.URL.Path, "/buffered") && r.ContentLength < 0 {
			t.Errorf("%s: got no content-length", r.URL)
		}
		fmt.Fprint(w, len(body))
	})
	edge := golden.Serve(t, fmt.Sprintf(live, backend), requestbody.Kind, againKind)
	for version, c := range clients(t) {
		for _, tt := range []struct {
			path string
			max  int
		}{
			{"/small", 1 << 10},
			{"/buffered/small", 1 << 10},
			{"/large", 1 << 20},
			{"/buffered/large", 1 << 20},
		} {
			for _, length := range []int{0, 1, tt.max, tt.max + 1, 16 << 10, 100_000, 3 << 20} {
				for _, told := range []bool{false, true} {
					url := "http://" + edge.Address(t, "http") + tt.path
					status, body := upload(t, c, url, length, told)
					wantStatus, wantBody := 200, fmt.Sprint(length)
					if length > tt.max {
						wantStatus, wantBody = 413, `{"error":"payload too large"}`+"\n"
					}
					if status != wantStatus || body != wantBody {
						t.Errorf("%s %s, %d bytes, length told %t: got %d %q, want %d %q",
							version, tt.path, length, told, status, body, wantStatus, wantBody)
					}
				}
			}
		}
	}
}

// Without buffer Envoy keeps no more than 32 KiB to send again.
func TestBufferedBodiesCanBeSentAgain(t *testing.T) {
	tries := make(chan int, 4)
	backend := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if tries <- int(n); len(tries) == 1 {
			w.WriteHeader(503)
		}
	})
	edge := golden.Serve(t, fmt.Sprintf(live, backend), requestbody.Kind, againKind)
	for path, want := range map[string]int{"/buffered/large": 200, "/any": 503} {
		if status, _ := upload(t, http.DefaultClient, "http://"+edge.Address(t, "http")+path, 100_000, true); status != want {
			t.Errorf("%s: got %d, want %d", path, status, want)
		}
		for len(tries) > 0 {
			if got := <-tries; got != 100_000 {
				t.Errorf("%s: a try had %d bytes", path, got)
			}
		}
	}
}
