package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/legation/legation/xds"
)

// What Envoys report is, to the request, what the client has sent, from the first report of a service on.
func TestLoadReportsAgree(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(backend.Close)
	port := ports(t, 1)[0]
	base := fmt.Sprintf("http://localhost:%d", port)
	p := newPlane(t, policyDir(t, edge(port, strings.TrimPrefix(backend.URL, "http://"))))
	p.serve(t)
	p.envoy(t, "edge")
	answers(t, base+"/")

	// What is sent before Envoy's first period has begun is not counted: so first one request after another until one is.
	var before xds.Traffic
	eventually(t, "a report", func() error {
		mustRequest(t, "GET", base+"/")
		if before = total(t, p); before.Succeeded == 0 {
			return fmt.Errorf("no request to the service was reported")
		}
		return nil
	})
	// A report has all that came before it: what is counted is complete once the failure is in it.
	before = afterFailure(t, p, base, 0)

	const good, bad, workers = 150, 10, 4
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range good + bad {
				path, want := "/", http.StatusOK
				if i%16 == 0 {
					path, want = "/fails", http.StatusServiceUnavailable
				}
				if got, err := request("GET", base+path); err != nil || got.status != want {
					t.Errorf("%s: %d %v", path, got.status, err)
				}
			}
		})
	}
	wg.Wait()
	after := afterFailure(t, p, base, before.Failed+workers*bad)
	want := xds.Traffic{
		Issued:    before.Issued + workers*(good+bad) + 1,
		Succeeded: before.Succeeded + workers*good,
		Failed:    before.Failed + workers*bad + 1,
	}
	if after != want {
		t.Errorf("reported %+v, want %+v", after, want)
	}

	out, _ := legation(t, "status", "--server", "http://"+p.admin)
	if !strings.Contains(out, "\napp ") || !strings.Contains(out, "REQ/S") {
		t.Errorf("status does not show the service:\n%s", out)
	}
	metrics, err := get("http://"+p.admin+"/metrics", "")
	line := fmt.Sprintf(`legation_xds_service_requests_total{group="edge",outcome="failed",service="app"} %d`, after.Failed)
	if err != nil || !strings.Contains(metrics, line) {
		t.Errorf("%v, no metric %s", err, line)
	}
}

// total is what is known of the service app.
func total(t *testing.T, p *plane) xds.Traffic {
	t.Helper()
	for _, l := range p.status(t).Loads {
		if l.Service == "app" {
			return l.Total
		}
		t.Errorf("%s of %s is reported, which is no service of the policy", l.Service, l.Group)
	}
	return xds.Traffic{}
}

// afterFailure has one more request fail, and waits until more than so many failures are reported.
func afterFailure(t *testing.T, p *plane, base string, failed uint64) (now xds.Traffic) {
	t.Helper()
	mustRequest(t, "GET", base+"/fails")
	eventually(t, "the report of a failure", func() error {
		if now = total(t, p); now.Failed <= failed {
			return fmt.Errorf("%d failures are reported, want more than %d", now.Failed, failed)
		}
		return nil
	})
	return now
}
