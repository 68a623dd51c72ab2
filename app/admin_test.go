package app

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/control"
	"github.com/legation/legation/store"
	"github.com/legation/legation/xds"
)

const adminToken = "0123456789abcdef-token"

// bodyOf is the name under which call takes a request's body.
const bodyOf = ":body"

// call asks an admin API; headers are pairs, and Host sets the host.
func call(h http.Handler, method, path string, headers ...string) (status int, header http.Header, body string) {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "127.0.0.1:18002"
	for i := 0; i+1 < len(headers); i += 2 {
		switch headers[i] {
		case "Host":
			r.Host = headers[i+1]
		case bodyOf:
			r.Body = io.NopCloser(strings.NewReader(headers[i+1]))
		default:
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	a := w.Result()
	text, _ := io.ReadAll(a.Body)
	return a.StatusCode, a.Header, string(text)
}

// adminOf is the admin API of a process that does not run.
func adminOf(t testing.TB, p *process) http.Handler {
	t.Helper()
	a, err := newAdmin(p)
	must(t, err)
	return a.handler(p.metrics)
}

func TestAdminRoutes(t *testing.T) {
	t.Parallel()
	h := adminOf(t, assemble(t, Options{Dir: policyDir(t, quickstart)}))
	for _, row := range []struct {
		method, path string
		want         int
		kind, says   string
	}{
		{"GET", "/", 200, "text/plain", "/status"},
		{"GET", "/healthz", 200, "text/plain", "ok"},
		{"HEAD", "/healthz", 200, "", ""},
		{"GET", "/readyz", 503, "application/json", `"ready": false`},
		{"GET", "/status", 200, "application/json", `"version": "dev"`},
		{"GET", "/metrics", 200, "text/plain", "legation_control_loads_total"},
		{"GET", "/nothing", 404, "", ""},
		{"GET", "/status/x", 404, "", ""},
		{"POST", "/status", 405, "", ""},
		{"DELETE", "/metrics", 405, "", ""},
		{"PUT", "/healthz", 405, "", ""},
		{"POST", "/readyz", 405, "", ""},
		{"GET", "/debug/pprof/", 404, "", ""},
	} {
		status, header, body := call(h, row.method, row.path)
		if status != row.want || !strings.HasPrefix(header.Get("Content-Type"), row.kind) || !strings.Contains(body, row.says) {
			t.Errorf("%s %s: got %d %s %q, want %d %s %q", row.method, row.path, status, header.Get("Content-Type"), body, row.want, row.kind, row.says)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if header.Get(name) != want {
				t.Errorf("%s %s: %s is %q, want %q", row.method, row.path, name, header.Get(name), want)
			}
		}
	}
}

func TestAdminToken(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "token"), adminToken+"\n")
	h := adminOf(t, assemble(t, Options{Dir: policyDir(t, quickstart), AdminTokenFile: file}))
	for _, row := range []struct {
		path, credentials string
		want              int
	}{
		{"/status", "", 401},
		{"/status", "Bearer " + adminToken, 200},
		{"/status", "bearer " + adminToken, 200},
		{"/status", adminToken, 401},
		{"/status", "Basic " + adminToken, 401},
		{"/status", "Bearer " + adminToken[1:], 401},
		{"/status", "Bearer " + adminToken + "x", 401},
		{"/status", "Bearer  " + adminToken, 401},
		{"/status", "Bearer", 401},
		{"/status", "Bearer ", 401},
		{"/metrics", "", 401},
		{"/", "", 401},
		{"/nothing", "", 401},
		{"/healthz", "", 200},
		{"/readyz", "", 503},
	} {
		status, header, body := call(h, "GET", row.path, "Authorization", row.credentials)
		if status != row.want {
			t.Errorf("%s with %q: got %d, want %d", row.path, row.credentials, status, row.want)
		}
		if status == 401 && (!strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer ") || !strings.Contains(body, `"error"`)) {
			t.Errorf("%s with %q: got %v %q, want a challenge and a JSON error", row.path, row.credentials, header, body)
		}
		if strings.Contains(body, adminToken) {
			t.Errorf("%s shows the token", row.path)
		}
	}
}

// Names that a browser was made to resolve to us, and pages of other sites.
func TestAdminRefusesOtherSites(t *testing.T) {
	t.Parallel()
	local := adminOf(t, assemble(t, Options{Dir: policyDir(t, quickstart)}))
	open := &admin{p: assemble(t, Options{Dir: policyDir(t, quickstart)})} // as on 0.0.0.0, where any name may be ours
	for _, row := range []struct {
		host, origin string
		local, open  int
	}{
		{"127.0.0.1:18002", "", 200, 200},
		{"localhost:18002", "", 200, 200},
		{"LocalHost:18002", "", 200, 200},
		{"localhost", "", 200, 200},
		{"[::1]:18002", "", 200, 200},
		{"[::1]", "", 200, 200},
		{"127.5.5.5:1", "", 200, 200},
		{"evil.example:18002", "", 403, 200},
		{"127.0.0.1.evil.example", "", 403, 200},
		{"localhost.evil.example:18002", "", 403, 200},
		{"10.0.0.5:18002", "", 403, 200},
		{"0.0.0.0:18002", "", 403, 200},
		{"", "", 403, 200},
		{"127.0.0.1:18002", "http://127.0.0.1:18002", 200, 200},
		{"127.0.0.1:18002", "https://127.0.0.1:18002", 200, 200},
		{"127.0.0.1:18002", "http://127.0.0.1:3000", 403, 403},
		{"127.0.0.1:18002", "https://evil.example", 403, 403},
		{"127.0.0.1:18002", "null", 403, 403},
		{"evil.example:18002", "http://evil.example:18002", 403, 200},
	} {
		for _, path := range []string{"/status", "/healthz"} {
			var headers []string
			if row.origin != "" {
				headers = []string{"Origin", row.origin}
			}
			headers = append(headers, "Host", row.host)
			if got, _, body := call(local, "GET", path, headers...); got != row.local {
				t.Errorf("%s at %q from %q on loopback: got %d %s, want %d", path, row.host, row.origin, got, body, row.local)
			}
			if got, _, _ := call(open.handler(open.p.metrics), "GET", path, headers...); got != row.open {
				t.Errorf("%s at %q from %q on all addresses: got %d, want %d", path, row.host, row.origin, got, row.open)
			}
		}
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, "routes: [\n")
	p := assemble(t, Options{Dir: dir})
	h := adminOf(t, p)
	want := func(code int, parts ...string) {
		t.Helper()
		status, _, body := call(h, "GET", "/readyz")
		var r readiness
		if err := json.Unmarshal([]byte(body), &r); err != nil || status != code || r.Ready != (code == 200) || r.Degraded == nil {
			t.Errorf("got %d %s %v, want %d", status, body, err, code)
		}
		if len(r.Degraded) != len(parts) && code == 200 {
			t.Errorf("got %q, want %d degraded", r.Degraded, len(parts))
		}
		for _, part := range parts {
			if !strings.Contains(body, part) {
				t.Errorf("got %s, want it to say %q", body, part)
			}
		}
	}
	want(503, "no whole policy")
	p.control.Load()
	want(503, "no whole policy", "policy: 1 problem")
	write(t, filepath.Join(dir, "policy.yaml"), quickstart)
	p.control.Load()
	want(200)
	write(t, filepath.Join(dir, "policy.yaml"), quickstart+"nonsense: {}\nrubbish: {}\n")
	p.control.Load()
	want(200, "policy: 2 problems")
	p.stopping.Store(true)
	want(503, "stopping")
}

// What is degraded is named, and does not make the process unready.
func TestDegraded(t *testing.T) {
	t.Parallel()
	unused, err := listen("", "", "127.0.0.1:0")
	must(t, err)
	address := unused.Addr().String()
	must(t, unused.Close())
	policy := strings.Replace(quickstart, "jwks: {file: keys.json}", `jwks: "http://`+address+`/keys.json"`, 1)
	p, _ := running(t, Options{Dir: policyDir(t, policy), Redis: "redis://user:hunter2@" + address})
	until(t, "stores and keys to be degraded", func() bool { return len(p.readiness().Degraded) == 4 })
	status, _, body := call(adminOf(t, p), "GET", "/readyz")
	if status != 200 || !strings.Contains(body, "\"store: ") || !strings.Contains(body, "shared store: ") || !strings.Contains(body, "revocations: not known yet") || !strings.Contains(body, "keys: http://"+address) {
		t.Errorf("got %d %s", status, body)
	}
	_, _, all := call(adminOf(t, p), "GET", "/status")
	if strings.Contains(body+all, "hunter2") {
		t.Errorf("the password is shown: %s %s", body, all)
	}
}

// What should be looked after stands in the status and in the log; nothing is degraded.
func TestWarningsAreNotDegraded(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	must(t, os.Mkdir(filepath.Join(data, "counts.lock"), 0o700)) // so that counts can't be kept
	var log output
	p, _ := running(t, Options{Dir: policyDir(t, quickstart), DataDir: data, Log: slog.New(slog.NewTextHandler(&log, nil))})
	h := adminOf(t, p)
	if _, _, body := call(h, "GET", "/status"); !strings.Contains(body, `"warning": "counts are not kept on disk`) || !strings.Contains(body, `"ok": true`) {
		t.Errorf("status: got %s", body)
	}
	if status, _, body := call(h, "GET", "/readyz"); status != 200 || !strings.Contains(body, `"degraded": []`) {
		t.Errorf("readiness: got %d %s", status, body)
	}
	if !strings.Contains(log.String(), "counts not kept on disk") {
		t.Errorf("the log tells nothing: %s", &log)
	}
	must(t, os.Remove(filepath.Join(data, "counts.lock"))) // else the end tells of it, too
}

// What GET /status answers is an [Status] again for whoever asks.
func TestStatusRoundTrips(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, quickstart)
	p := assemble(t, Options{Dir: dir, Version: "v1.2.3"})
	p.control.Load()
	write(t, filepath.Join(dir, "policy.yaml"), quickstart+"nonsense: {}\n")
	p.control.Load()
	_, _, body := call(adminOf(t, p), "GET", "/status")
	var s Status
	must(t, json.Unmarshal([]byte(body), &s))
	again, err := json.MarshalIndent(s, "", "  ")
	must(t, err)
	if diff := cmp.Diff(strings.TrimSpace(body), string(again)); diff != "" {
		t.Errorf("(-answered +read again):\n%s", diff)
	}
	if s.Version != "v1.2.3" || len(s.Roles) != 3 || s.Policy.Revision == "" || len(s.Policy.Problems) != 1 || s.Store == nil ||
		s.Store.Kind != "embedded" || s.Nodes == nil {
		t.Errorf("got %+v", s)
	}
	if strings.Contains(body, "null") {
		t.Errorf("a list is null: %s", body)
	}
}

// A role that a process does not have is absent from its status.
func TestStatusOfOneRole(t *testing.T) {
	t.Parallel()
	p := assemble(t, Options{Dir: policyDir(t, quickstart), Roles: []Role{XDS}})
	s := p.status(xds.Detail{})
	if s.Store != nil || s.Keys != nil || s.Nodes == nil || p.address("companion") != "" || p.address("xDS") == "" {
		t.Errorf("xds alone: got %+v", s)
	}
	p = assemble(t, Options{Dir: policyDir(t, quickstart), Roles: []Role{RateLimit}})
	if s = p.status(xds.Detail{}); s.Store == nil || s.Keys != nil || p.auth != nil || p.xds != nil {
		t.Errorf("ratelimit alone: got %+v", s)
	}
	if !cmp.Equal(s.Policy.Problems, control.Outcome{}.Problems) && len(s.Policy.Problems) > 0 {
		t.Errorf("problems before the first load: %v", s.Policy.Problems)
	}
	if *s.Store != (store.Health{OK: true, Kind: "embedded"}) {
		t.Errorf("store: got %+v", *s.Store)
	}
}
