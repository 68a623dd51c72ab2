package app

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth"
)

func TestRevocationsByHTTP(t *testing.T) {
	t.Parallel()
	var log output
	p := assemble(t, Options{Dir: policyDir(t, plansPolicy), Log: slog.New(slog.NewTextHandler(&log, nil))})
	p.control.Load()
	h := adminOf(t, p)
	if got := answered[Revocations](t, h, "/revocations"); len(got.Revocations) != 0 {
		t.Errorf("%+v", got)
	}
	for _, row := range []struct {
		body, name string
		lasts      time.Duration // 0: until it is undone
		noted      bool
	}{
		{`{"name": "subject:idp/a b//c%?#ü/..", "reason": "stolen"}`, "subject:idp/a b//c%?#ü/..", 0, false},
		{`{"name": "jti:idp/7"}`, "jti:idp/7", 30 * 24 * time.Hour, false},
		{`{"name": "session:x", "until": "never"}`, "session:x", 0, false},
		{`{"name": "consumer:acme", "until": "` + time.Now().Add(48*time.Hour).Format(time.RFC3339) + `"}`, "consumer:acme", 48 * time.Hour, false},
		{`{"name": "consumer:acne"}`, "consumer:acne", 0, true},
	} {
		status, _, body := call(h, "POST", "/revocations", "Content-Type", "application/json", bodyOf, row.body)
		var got auth.Revocation
		if err := json.Unmarshal([]byte(body), &got); status != http.StatusOK || err != nil || got.Name != row.name || (got.Note != "") != row.noted {
			t.Errorf("%s: got %d %s", row.body, status, body)
		}
		if left := time.Until(got.Until); row.lasts == 0 != got.Until.IsZero() || row.lasts != 0 && (left > row.lasts || left < row.lasts-time.Minute) {
			t.Errorf("%s: until %s, want %s from now", row.body, got.Until, row.lasts)
		}
		if !slices.ContainsFunc(answered[Revocations](t, h, "/revocations").Revocations, func(r auth.Revocation) bool { return r.Name == row.name }) {
			t.Errorf("%s isn't in the list", row.name)
		}
		if status, _, body := call(h, "DELETE", "/revocations/"+url.PathEscape(row.name)); status != http.StatusOK {
			t.Errorf("undo %s: got %d %s", row.name, status, body)
		}
	}
	if got := answered[Revocations](t, h, "/revocations"); len(got.Revocations) != 0 {
		t.Errorf("all were undone, but for %+v", got)
	}
	for _, line := range []string{`msg=revoked name="subject:idp/a b`, "reason=stolen until=never", `msg="revocation undone" name=jti:idp/7`} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log has not %s:\n%s", line, log.String())
		}
	}
}

func TestRevocationsByHTTPRefuse(t *testing.T) {
	t.Parallel()
	p := assemble(t, Options{Dir: policyDir(t, plansPolicy)})
	limiter := assemble(t, Options{Dir: policyDir(t, plansPolicy), Roles: []Role{RateLimit}})
	asJSON := []string{"Content-Type", "application/json"}
	for _, row := range []struct {
		p                  *process
		method, path, body string
		headers            []string
		status             int
		says               string
	}{
		{p, "POST", "/revocations", `{"name": "session:x"}`, nil, 415, "application/json"},
		{p, "POST", "/revocations", `{"name": "session:x"}`, append([]string{"Origin", "https://evil.example"}, asJSON...), 403, "another site"},
		{p, "POST", "/revocations", `{"name": "alice"}`, asJSON, 400, "want token:HASH"},
		{p, "POST", "/revocations", `{"name": "session:x", "until": "30d"}`, asJSON, 400, `until: want \"never\" or a time`},
		{p, "POST", "/revocations", `{"name": "session:x", "until": "2001-01-01T00:00:00Z"}`, asJSON, 400, "it would have ended"},
		{p, "POST", "/revocations", `{"name": "session:x", "reason": "a\nb"}`, asJSON, 400, "a reason is a line"},
		{p, "POST", "/revocations", `{"name": "session:x", "ttl": 1}`, asJSON, 400, "unknown field"},
		{p, "POST", "/revocations", `{"name": "session:` + strings.Repeat("x", 9000) + `"}`, asJSON, 413, "at most 8192 bytes"},
		{p, "POST", "/revocations?n=1", `{"name": "session:x"}`, asJSON, 400, "there is no parameter"},
		{p, "GET", "/revocations?n=1", "", nil, 400, "there is no parameter"},
		{p, "DELETE", "/revocations/session:x?n=1", "", nil, 400, "there is no parameter"},
		{p, "DELETE", "/revocations/session:x", "", nil, 404, "there is no such revocation"},
		{p, "DELETE", "/revocations", "", nil, 405, "GET, HEAD, POST"},
		{p, "PUT", "/revocations/session:x", "", nil, 405, "DELETE"},
		{limiter, "GET", "/revocations", "", nil, 404, "not the role auth"},
		{limiter, "POST", "/revocations", `{"name": "session:x"}`, asJSON, 404, "not the role auth"},
		{limiter, "DELETE", "/revocations/session:x", "", nil, 404, "not the role auth"},
	} {
		status, _, body := call(adminOf(t, row.p), row.method, row.path, append(slices.Clone(row.headers), bodyOf, row.body)...)
		if status != row.status || !strings.Contains(body, row.says) {
			t.Errorf("%s %s %.60s: got %d %s, want %d and %q", row.method, row.path, row.body, status, body, row.status, row.says)
		}
	}
}

// What was revoked stays so when the process that keeps it itself starts again.
func TestRevocationsAreKept(t *testing.T) {
	t.Parallel()
	o := Options{Dir: policyDir(t, plansPolicy), DataDir: t.TempDir()}
	p, err := newProcess(anywhere(o))
	must(t, err)
	if _, err := p.auth.Revoke(t.Context(), auth.Revocation{Name: "session:x", Reason: "lost"}); err != nil {
		t.Error(err)
	}
	must(t, p.close())
	if got := answered[Revocations](t, adminOf(t, assemble(t, o)), "/revocations").Revocations; len(got) != 1 || got[0].Reason != "lost" {
		t.Errorf("%+v", got)
	}
}
