package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// Callers are held to their plan: what is left goes along when they get a larger one.
func TestPlans(t *testing.T) {
	t.Parallel()
	dir, port := example(t, "plans")
	p := newPlane(t, dir)
	p.child = start(t, binary, p.args("run")...)
	p.says(0, "ready:")
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	call := func(token string) int {
		t.Helper()
		return mustRequest(t, "GET", base+"/v1", "Host", "api.example.com", "Authorization", "Bearer "+token).status
	}

	if got := mustRequest(t, "GET", base+"/v1", "Host", "api.example.com").status; got != http.StatusUnauthorized {
		t.Errorf("without a token: got %d, want 401", got)
	}
	for _, claims := range [][]string{nil, {"--claim", "plan=unknown"}} {
		if got := call(token(t, "bob", claims...)); got != http.StatusForbidden {
			t.Errorf("without a plan, %v: got %d, want 403", claims, got)
		}
	}
	free := token(t, "bob", "--claim", "plan=free")
	passed, last := 0, 0
	for range 21 { // of the month's 20, fewer where the burst of 10 is used up first
		if last = call(free); last == http.StatusOK {
			passed++
		}
	}
	if last != http.StatusTooManyRequests || passed < 10 || passed > 20 {
		t.Errorf("got %d of 21 through and %d at last, want 10 to 20 and 429", passed, last)
	}
	if got := call(token(t, "bob", "--claim", "plan=gold")); got != http.StatusOK {
		t.Errorf("with a larger plan: got %d, want 200", got)
	}
	if got := call(token(t, "acme-web")); got != http.StatusOK {
		t.Errorf("with the consumer's plan: got %d, want 200", got)
	}
	for key, want := range map[string]int{
		"lgn_eeecgx4e52_zb73bccxeceygwxws4kl5mzddkhnltu2vhzhf4y": http.StatusOK,
		"lgn_eeecgx4e52_zb73bccxeceygwxws4kl5mzddkhnltu2vhzhf4x": http.StatusUnauthorized,
	} {
		if got := mustRequest(t, "GET", base+"/v1", "Host", "api.example.com", "X-Api-Key", key).status; got != want {
			t.Errorf("with the key %s: got %d, want %d", key, got, want)
		}
	}
	for i := range 6 {
		want := http.StatusOK
		if i == 5 {
			want = http.StatusTooManyRequests
		}
		if got := mustRequest(t, "POST", base+"/login", "Host", "www.example.com").status; got != want {
			t.Errorf("login %d: got %d, want %d", i+1, got, want)
		}
	}
}
