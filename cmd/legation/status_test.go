package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/app"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/control"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/store"
	"github.com/legation/legation/xds"
)

// fine is the status of a process where nothing is wrong.
func fine() app.Status {
	now := time.Now()
	return app.Status{
		Version: "v1", Started: now.Add(-time.Hour), Roles: app.Roles(),
		Policy: control.Outcome{Revision: "abc", Since: now.Add(-time.Minute), Problems: policy.Problems{}},
		Nodes: []xds.NodeStatus{{
			ID: "edge-1", Group: "edge", Version: "1.40.0", Address: "10.0.0.9:4", Protocol: xds.Delta, Connected: now, Revision: "abc",
			Types: []xds.TypeStatus{{Type: "cluster", State: xds.ACK, Acknowledged: "c1"}, {Type: "listener", State: xds.ACK, Acknowledged: "l1"}},
		}},
		Store: &store.Health{OK: true, Kind: "redis"},
		Keys:  []auth.JWKSHealth{{URL: "https://id.example.com/keys", Loaded: true, Keys: 2}},
	}
}

// server answers with a status, and asks for a token where there is one.
func server(t testing.TB, s app.Status, token string) (url string) {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/status":
			http.NotFound(w, r)
		case token != "" && r.Header.Get("Authorization") != "Bearer "+token:
			http.Error(w, "give the token", http.StatusUnauthorized)
		default:
			_ = json.NewEncoder(w).Encode(s)
		}
	}))
	t.Cleanup(h.Close)
	return h.URL
}

// Of an Envoy that isn't there it says nothing of the others.
func TestStatusOfNoSuchNode(t *testing.T) {
	t.Parallel()
	s := fine()
	s.Nodes = nil
	if status, out, _ := legation("status", "--server", server(t, s, ""), "--node", "edge-9"); status != 0 || !strings.Contains(out, "envoys: none of the name edge-9 is connected\n") {
		t.Errorf("got %d %s", status, out)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	change := func(f func(*app.Status)) func() app.Status { // made when its turn comes: what is shown are ages
		return func() app.Status { s := fine(); f(&s); return s }
	}
	for _, row := range []struct {
		name   string
		s      func() app.Status
		status int
		says   []string
	}{
		{"fine", fine, 0, []string{
			"legation v1, up 1h0m", "roles xds, ratelimit, auth", "revision abc, served for 1m", "store: redis, ok",
			"keys: https://id.example.com/keys: 2 keys", "NODE", "edge-1", "1.40.0", "10.0.0.9:4", "delta", "cluster", "ACK", "l1",
		}},
		{"a revision as long as they are", change(func(s *app.Status) { s.Nodes[0].Revision = "57a188af83b03538af5a1a64d247c391" }), 0, []string{"  57a188af83b0  "}},
		{"no Envoy", change(func(s *app.Status) { s.Nodes = nil }), 0, []string{"envoys: none connected"}},
		{"an Envoy that has asked for nothing", change(func(s *app.Status) { s.Nodes[0].Types, s.Nodes[0].Version = nil, "" }), 0, []string{"edge-1  edge   -"}},
		{"nothing served", change(func(s *app.Status) { s.Policy = control.Outcome{} }), 1, []string{"none served yet"}},
		{"an error", change(func(s *app.Status) { s.Policy.Error = "policy directory: gone" }), 1, []string{"error: policy directory: gone"}},
		{"a problem", change(func(s *app.Status) {
			s.Policy.Problems = policy.Problems{{Pos: policy.Pos{File: "a.yaml", Line: 2, Col: 3}, Message: "bad", Hint: "mend it"}}
		}), 1, []string{"a.yaml:2:3: bad", "hint: mend it"}},
		{"a warning", change(func(s *app.Status) {
			s.Policy.Problems = policy.Problems{{Pos: policy.Pos{File: "a.yaml"}, Message: "odd", Warning: true}}
		}), 0, []string{"a.yaml: odd"}},
		{"a NACK", change(func(s *app.Status) {
			s.Nodes[0].Types[1] = xds.TypeStatus{Type: "listener", State: xds.NACK, Error: "cannot bind", Blamed: []xds.Blame{{Resource: "http", Origin: "a.yaml:4:7"}}}
		}), 1, []string{"NACK: edge-1 refused listener: cannot bind", "a.yaml:4:7: listener http"}},
		{"an Envoy of no gateway", change(func(s *app.Status) { s.Nodes[0].Held = true }), 1, []string{`held: edge-1 asks for the gateway "edge", which the policy`}},
		{"an Envoy that does not answer", change(func(s *app.Status) {
			s.Nodes[0].Types[0] = xds.TypeStatus{Type: "cluster", State: xds.Sent, Time: new(time.Now().Add(-9 * time.Second))}
		}), 0, []string{"waiting: edge-1 has not acknowledged its clusters for 9s", "(healthCheck)"}},
		{"a store that is down", change(func(s *app.Status) { *s.Store = store.Health{Kind: "redis", Reason: "refused"} }), 0, []string{"redis, degraded: refused"}},
		{"a store to be looked after", change(func(s *app.Status) { s.Store.Warning = "redis evicts keys" }), 0, []string{"store: redis, ok\n  warning: redis evicts keys\n"}},
		{"keys that can't be had", change(func(s *app.Status) { s.Keys[0].Error = "timeout" }), 0, []string{"2 keys, last fetch: timeout"}},
		{"on its way", change(func(s *app.Status) {
			since := time.Now().Add(-12 * time.Second)
			s.Policy.Staged = []control.Staged{
				{Group: "edge", Revision: "2222222222222", From: "1111111111111", Hold: 30, Of: 12, Canaries: []control.Canary{
					{Node: "edge-1", Connected: since, Since: since},
					{Node: "edge-2", Connected: since},
					{Node: "edge-3"},
					{Node: "edge-4", Connected: since, Since: since, Held: true},
				}},
				{Group: "inner", Revision: "2222222222222", From: "1111111111111", Hold: 60, Canaries: []control.Canary{}},
				{Group: "back", Revision: "2222222222222", From: "1111111111111", Hold: 60, Canaries: []control.Canary{{Node: "back-1"}}},
			}
		}), 0, []string{
			"goes to 1 of 1 Envoys of back first",
			"STAGED: revision 222222222222 goes to 4 of 12 Envoys of edge first, others have 111111111111; it goes on when these have held it for 30s\n",
			"  edge-1: holds it for 12s of 30s\n", "  edge-2: has not taken all of it yet\n", "  edge-3: is not connected\n",
			"  edge-4: has held it for 30s\n", "STAGED: revision 222222222222 waits for an Envoy of inner to go to first; until then 111111111111 is served\n",
		}},
		{"gone back", change(func(s *app.Status) {
			s.Policy.Parked = []control.Parked{{Group: "edge", Revision: "2222222222222", To: "1111111111111", Refused: 1, Of: 2, Canaries: true, Reasons: []control.Reason{
				{Node: "edge-1", Origin: "a.yaml:4:5", Error: "left 4s after it took it, and did not come back"},
				{Node: "edge-2", Type: "listener", Resource: "http", Origin: "a.yaml:2:7", Error: "no"},
			}}}
		}), 1, []string{
			"ROLLED BACK: gateway edge is served revision 111111111111: 1 of 2 Envoys that had 222222222222 first did not keep it, at ",
			"  a.yaml:4:5: edge-1 left 4s after it took it, and did not come back\n", "  a.yaml:2:7: listener http refused by edge-2: no\n",
		}},
		{"secrets", change(func(s *app.Status) {
			day := 24 * time.Hour
			s.Policy.Secrets = []control.Secret{
				{ID: "authority/tls/ca", Names: []string{"CN=a", "CN=b", "CN=c", "CN=d", "CN=e"}, Expires: time.Now().Add(900*day + time.Hour)},
				{ID: "certificate/tls/a", Names: []string{"a.test"}, Expires: time.Now().Add(13*day + time.Hour)},
				{ID: "certificate/tls/b", Names: []string{"b.test"}, Expires: time.Now().Add(day + time.Hour)},
				{ID: "certificate/tls/c", Names: []string{"c.test"}, Expires: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)},
				{ID: "secret/word"},
			}
		}), 0, []string{
			"secret: authority/tls/ca: CN=a, CN=b, CN=c and 2 more, expires on ", ", in 900 days\n",
			"secret: certificate/tls/a: a.test, EXPIRES on ", ", in 13 days\n", ", in 1 day\n",
			"secret: certificate/tls/c: c.test, EXPIRED on 2020-01-02\n", "secret: secret/word\n",
		}},
		{"resources of an Envoy", change(func(s *app.Status) {
			s.Nodes[0].Seen = time.Now().Add(-2 * time.Second)
			s.Nodes[0].Types[0].Resources = []xds.ResourceStatus{
				{Name: "app", State: xds.ACK, Sent: "v7", Acknowledged: "v7", Since: new(time.Now().Add(-time.Hour)), Origin: "a.yaml:9:3"},
				{Name: "bad", State: xds.NACK, Sent: "v9", Acknowledged: "v8", Origin: "a.yaml:9:3"},
				{Name: "other", State: xds.Absent},
			}
		}), 0, []string{
			"edge-1 was last heard 2s ago, and has:", "cluster  bad       NACK    v8       -       a.yaml:9:3\n", "cluster  app       ACK     v7       1h0m0s  a.yaml:9:3\n", "cluster  other     absent  -        -       -\n",
		}},
		{"an Envoy that left", change(func(s *app.Status) {
			s.Left = []xds.NodeStatus{{ID: "edge-2", Group: "edge", Left: new(time.Now().Add(-time.Minute)), Types: []xds.TypeStatus{{Type: "cluster", State: xds.NACK}}}}
		}), 0, []string{"left: edge-2 (edge) went 1m", "s ago and is not back"}},
		{"an old Envoy", change(func(s *app.Status) {
			s.Nodes[0].Lacks = []xds.Lack{{Type: "envoy.extensions.x.v3.X", Origin: "a.yaml:7:1"}}
		}), 0, []string{"can't: edge-1 (Envoy 1.40.0) has no envoy.extensions.x.v3.X\n  a.yaml:7:1: needs it"}},
		{"services in use", change(func(s *app.Status) {
			busy := func(service string, issued, failed uint64) xds.ServiceLoad {
				return xds.ServiceLoad{Group: "edge", Service: service, Load: xds.Load{
					InProgress: 3,
					Recent:     xds.Window{Traffic: xds.Traffic{Issued: issued / 6}, PerSecond: float64(issued) / 60},
					Minute:     xds.Window{Traffic: xds.Traffic{Issued: issued, Failed: failed}, PerSecond: float64(issued) / 60, ErrorShare: 0.25},
					Total:      xds.Traffic{Issued: 2 * issued},
				}}
			}
			for i := range 21 {
				s.Loads = append(s.Loads, busy(fmt.Sprint("few-", i), 1, 0))
			}
			s.Loads = append(s.Loads, busy("many", 600, 150), xds.ServiceLoad{Group: "edge", Service: "quiet"})
		}), 0, []string{"ERRORS 1M  IN PROGRESS\nmany     edge   10.0       10.0      25.0%      3\nfew-0    edge   0.0 ", "and 2 more: -o json shows all"}},
		{"xds alone", change(func(s *app.Status) { s.Store, s.Keys, s.Roles = nil, nil, []app.Role{app.XDS} }), 0, []string{"roles xds\n"}},
	} {
		s := row.s()
		url := server(t, s, "")
		status, out, errs := legation("status", "--server", url)
		if status != row.status || errs != "" {
			t.Errorf("%s: got %d %q, want %d", row.name, status, errs, row.status)
		}
		for _, part := range row.says {
			if !strings.Contains(out, part) {
				t.Errorf("%s: got %s\nwant %q in it", row.name, out, part)
			}
		}
		var got app.Status
		asked(t, row.status, &got, "status", "--server", url, "-o", "json")
		first, err := json.Marshal(s)
		must(t, err)
		second, err := json.Marshal(got)
		must(t, err)
		if diff := cmp.Diff(string(first), string(second)); diff != "" {
			t.Errorf("%s (-answered +shown):\n%s", row.name, diff)
		}
	}
}

func TestStatusAsks(t *testing.T) {
	t.Parallel()
	url := server(t, fine(), "secret-token-of-16")
	file := filepath.Join(policyDir(t, "token", "secret-token-of-16\n"), "token")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	t.Cleanup(other.Close)
	for _, row := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--server", url, "--token-file", file}, 0, "legation v1"},
		{[]string{"--server", url + "/", "--token-file", file}, 0, "legation v1"},
		{[]string{"--server", strings.TrimPrefix(url, "http://"), "--token-file", file}, 0, "legation v1"},
		{[]string{"--server", url}, 1, "401"},
		{[]string{"--server", url + "/elsewhere", "--token-file", file}, 1, "404"},
		{[]string{"--server", other.URL}, 1, "not what legation answers"},
		{[]string{"--server", "ftp://127.0.0.1"}, 1, "ftp"},
	} {
		status, out, errs := legation(append([]string{"status"}, row.args...)...)
		if status != row.status || !strings.Contains(out+errs, row.says) {
			t.Errorf("%v: got %d %q %q, want %d and %q", row.args, status, out, errs, row.status, row.says)
		}
		if strings.Contains(out+errs, "secret-token") {
			t.Errorf("%v: the token is shown", row.args)
		}
	}
}

// Where the process is, and its token, may also stand in the environment.
func TestStatusSettings(t *testing.T) {
	url := server(t, fine(), "secret-token-of-16")
	t.Chdir(t.TempDir())
	t.Setenv("LEGATION_SERVER", url)
	t.Setenv("LEGATION_TOKEN_FILE", filepath.Join(policyDir(t, "token", "secret-token-of-16"), "token"))
	if status, out, errs := legation("status"); status != 0 {
		t.Errorf("got %d %q %q", status, out, errs)
	}
}
