package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// A key that the command line makes is good at once, through Envoy, and survives the process; one that is revoked is not good
// again, whatever is started anew.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir, port := example(t, "plans")
	p := newPlane(t, dir)
	begin := func() {
		p.child = start(t, binary, p.args("run", "--log-level", "info")...)
		p.says(0, "ready:")
	}
	begin()
	call := func(key string) int {
		t.Helper()
		return mustRequest(t, "GET", fmt.Sprintf("http://127.0.0.1:%d/v1", port), "Host", "api.example.com", "X-Api-Key", key).status
	}
	verb := func(args ...string) string {
		t.Helper()
		out, status := legation(t, append(append([]string{"key"}, args...), "--server", "http://"+p.admin)...)
		if status != 0 {
			t.Fatalf("%v: %s", args, out)
		}
		return out
	}
	made := func(args ...string) (id, key string) {
		t.Helper()
		for word := range strings.FieldsSeq(verb(args...)) {
			if strings.HasPrefix(word, "lgn_") {
				return word[4:14], word
			}
		}
		t.Fatalf("%v shows no key", args)
		return "", ""
	}
	want := func(what, key string, want int) {
		t.Helper()
		if got := call(key); got != want {
			t.Errorf("%s: got %d, want %d", what, got, want)
		}
	}
	id, key := made("create", "--consumer", "acme", "--expires", "1d")
	want("made", key, http.StatusOK)
	if list := verb("list"); !strings.Contains(list, id) || strings.Contains(list, key) {
		t.Errorf("the list is\n%s", list)
	}
	nextID, next := made("rotate", id)
	want("rotated", key, http.StatusOK)
	want("new", next, http.StatusOK)
	verb("revoke", id)
	want("revoked", key, http.StatusUnauthorized)

	log := p.out.String()
	p.signal(syscall.SIGTERM)
	p.wait()
	begin()
	want("revoked before the start", key, http.StatusUnauthorized)
	want("made before the start", next, http.StatusOK)
	verb("revoke", nextID)
	want("revoked after the start", next, http.StatusUnauthorized)
	if log += p.out.String(); strings.Contains(log, key) || strings.Contains(log, next) || strings.Count(log, "api key revoked") != 2 {
		t.Errorf("the log has a key, or not what was done:\n%s", log)
	}
}
