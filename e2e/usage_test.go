package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/app"
)

// used is what `legation usage` tells of the one limit, after a change when further has one.
func used(t *testing.T, p *plane, consumer, limit string, further ...string) int64 {
	t.Helper()
	out, status := legation(t, append([]string{"usage", consumer, "--limit", limit, "--server", p.admin, "-o", "json"}, further...)...)
	var u app.ConsumerUsage
	if err := json.Unmarshal([]byte(out), &u); status != 0 || err != nil || len(u.Limits) != 1 {
		t.Fatalf("usage %s: %d %v %s", consumer, status, err, out)
	}
	return u.Limits[0].Used
}

// What was counted before a kill is there after it, but for what was not yet on disk.
func TestCountsOutlastAKill(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.serve(t)
	p.envoy(t, "edge")
	url := fmt.Sprintf("http://localhost:%d/private", port)
	const limit = "route/private/0"
	ask := func() int {
		return mustRequest(t, "GET", url, "Authorization", "Bearer "+token(t, "alice")).status
	}
	eventually(t, "the route", func() error {
		if got := mustRequest(t, "GET", url).status; got != http.StatusUnauthorized {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
	for range 7 {
		if got := ask(); got != http.StatusOK {
			t.Fatalf("got %d", got)
		}
	}
	if got := used(t, p, "demo/alice", limit, "--add", "90"); got != 97 {
		t.Errorf("before the kill: %d used, want 97", got)
	}
	// Counts are on disk at the latest when another one is that began after a third was.
	for _, marker := range []string{"first", "second"} {
		used(t, p, "demo/"+marker, limit, "--add", "1")
		eventually(t, "counts on disk", func() error {
			text, err := os.ReadFile(filepath.Join(p.data, "counts"))
			if err == nil && !strings.Contains(string(text), "demo/"+marker) {
				err = fmt.Errorf("%d bytes without %s", len(text), marker)
			}
			return err
		})
	}
	p.kill()
	p.serve(t)
	if got := used(t, p, "demo/alice", limit); got != 97 {
		t.Errorf("after the kill: %d used, want 97", got)
	}
	passed := 0
	eventually(t, "the rest of the limit", func() error { // Envoy comes back in its own time, and answers 503 before
		switch got := ask(); got {
		case http.StatusTooManyRequests:
			return nil
		case http.StatusOK:
			passed++
			fallthrough
		default:
			return fmt.Errorf("got %d", got)
		}
	})
	if passed != 3 {
		t.Errorf("%d more passed, want 3 of the 100", passed)
	}
}

// Two processes on one Redis tell the same of a consumer, and correct the same count.
func TestUsageAgreesOnReplicas(t *testing.T) {
	t.Parallel()
	url, _ := redis(t)
	dir := policyDir(t, edge(ports(t, 1)[0], upstream(t, "app")))
	planes := []*plane{newPlane(t, dir), newPlane(t, dir)}
	for _, p := range planes {
		p.serve(t, "--redis", url, "--redis-timeout", "100ms")
	}
	const limit, consumer = "route/private/0", "demo/al/ice %?ü"
	want := int64(0)
	for i, change := range []struct {
		flag string
		by   int64
	}{{"--add", 40}, {"--give-back", 15}, {"--add", 100}, {"--give-back", 25}} {
		want += change.by
		if change.flag == "--give-back" {
			want -= 2 * change.by
		}
		if got := used(t, planes[i%2], consumer, limit, change.flag, fmt.Sprint(change.by)); got != want {
			t.Errorf("%s %d: got %d used, want %d", change.flag, change.by, got, want)
		}
		for n, p := range planes {
			if got := used(t, p, consumer, limit); got != want {
				t.Errorf("%s %d: the process %d tells %d used, want %d", change.flag, change.by, n, got, want)
			}
		}
	}
	out, status := legation(t, "limits", "report", "--server", planes[0].admin, "--server", planes[1].admin)
	if status != 0 || !strings.HasPrefix(out, "nothing to report: ") {
		t.Errorf("a report of both: got %d %s", status, out)
	}
}
