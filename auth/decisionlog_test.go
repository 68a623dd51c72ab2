package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/legation/legation/callout"
)

// page is a log that tests read.
type page struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// logged runs what is asked of a service with a decision log, and gives its lines.
func logged(t testing.TB, o Options, table Table, asks func(*Service)) (lines []map[string]any) {
	t.Helper()
	p := new(page)
	o.Log = slog.New(slog.NewJSONHandler(p, &slog.HandlerOptions{Level: slog.LevelError})) // the decision log is wanted all the same
	s := load(t, o, table)
	asks(s)
	for len(s.decisions.lines) > 0 {
		if err := s.decisions.handler.Handle(t.Context(), <-s.decisions.lines); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(p.text.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, one)
	}
	return lines
}

func TestDecisionLog(t *testing.T) {
	rule := staticRule()
	rule.Limits = []string{"l"}
	k := &perAsk{verdict: func(a *Ask) Verdict {
		return Verdict{Allowed: a.Caller.Consumer != "idp/eager", Limit: map[bool]string{true: "edge/l"}[a.Caller.Consumer == "idp/eager"]}
	}}
	table := Table{Rules: []Rule{rule}, Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/alice"}}}}
	token := func(sub string) string { return "Bearer " + rsaPair().sign(t, goodClaims(map[string]any{"sub": sub})) }
	asks := func(s *Service) {
		q := ask(rule.ID(), token("alice"), "x-request-id", "7f6f1a2e-0f52-4d0b-9b0b-1d2f6f7f2a11",
			"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-envoy-external-address", "198.51.100.9")
		q.Attributes.Request.Http.Path = "/v1;s=7/orders;jsessionid=8?q=1"
		turn := calls(q, ask(rule.ID(), token("eager")), ask(rule.ID(), "Bearer x"), ask("", ""))
		s.Answer(append(turn, &callout.Call{Message: []byte{0xff}}))
		for _, c := range turn {
			clear(c.Message)
		}
	}
	allow := map[string]any{
		"decision": "allow", "rule": "edge/orders", "entry": "idp", "consumer": "acme", "method": "GET", "host": "api.example.com",
		"path": "/v1/orders", "client": "198.51.100.9", "request": "7f6f1a2e-0f52-4d0b-9b0b-1d2f6f7f2a11", "trace": "0af7651916cd43dd8448eb211c80319c",
	}
	deny := func(reason string, more map[string]any) map[string]any {
		line := map[string]any{"decision": "deny", "reason": reason, "method": "GET", "host": "api.example.com", "path": "/v1/orders", "client": "192.0.2.7"}
		for name, value := range more {
			line[name] = value
		}
		return line
	}
	denied := []map[string]any{
		deny("limited", map[string]any{"rule": "edge/orders", "entry": "idp", "consumer": "idp/eager", "limit": "edge/l"}),
		deny("token_malformed", map[string]any{"rule": "edge/orders", "entry": "idp"}),
		deny("no_rule", nil),
	}
	for which, want := range map[DecisionLog][]map[string]any{LogAll: append([]map[string]any{allow}, denied...), LogDenied: denied} {
		lines := logged(t, Options{Counter: k, Decisions: which}, table, asks)
		for _, line := range lines {
			if line["msg"] != "decision" || line["level"] != "INFO" || line["time"] == "" || line["seconds"].(float64) <= 0 {
				t.Errorf("%v", line)
			}
			for _, name := range []string{"msg", "level", "time", "seconds"} {
				delete(line, name)
			}
		}
		if d := cmp.Diff(want, lines); d != "" {
			t.Errorf("%s (-want +got):\n%s", which, d)
		}
	}
}

// Of too many decisions the first of each second are told, and how many were left out.
func TestDecisionLogIsBounded(t *testing.T) {
	rule := staticRule()
	r := prometheus.NewRegistry()
	var left []any
	synctest.Test(t, func(t *testing.T) {
		lines := logged(t, Options{Decisions: LogDenied, DecisionRate: 3, Metrics: r}, Table{Rules: []Rule{rule}}, func(s *Service) {
			for range 10 {
				s.Answer(calls(ask(rule.ID(), "")))
			}
			time.Sleep(time.Second)
			s.Answer(calls(ask(rule.ID(), ""), ask(rule.ID(), "")))
		})
		for _, line := range lines {
			left = append(left, line["left_out"])
		}
	})
	if d := cmp.Diff([]any{nil, nil, nil, 7.0, nil}, left); d != "" {
		t.Error(d)
	}
	if got := counted(t, r, "legation_auth_decisions_unlogged_total"); got != 7 {
		t.Errorf("the metric tells %g, want 7", got)
	}
}

// counted is the sum of a counter.
func counted(t testing.TB, r *prometheus.Registry, name string, labels ...string) (sum float64) {
	t.Helper()
	for _, family := range must(r.Gather()) {
		for _, m := range family.Metric {
			text := m.String()
			if family.GetName() != name || len(labels) > 0 && !strings.Contains(text, labels[0]) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// A log that takes nothing holds up no request.
func TestStuckDecisionLog(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{Log: slog.New(slog.DiscardHandler), Decisions: LogAll, DecisionRate: 10_000}, Table{Rules: []Rule{rule}})
	for range decisionsHeld + 10 {
		s.Answer(calls(ask(rule.ID(), "")))
	}
	if s.decisions.left != 10 {
		t.Errorf("%d lines were left out, want 10", s.decisions.left)
	}
}

func TestShownPath(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "*": "*", "": "", "/a?b": "/a", "/a#b": "/a", "/a%3Fb=c/d": "/a", "/a%3fb": "/a", "/a;b/c;d;e/f": "/a/c/f",
		"http://user:secret@host/": "", "?q": "", "/" + strings.Repeat("x", 5000): "/" + strings.Repeat("x", maxShownPath-1),
	} {
		if got := shownPath(path); got != want {
			t.Errorf("%.40s: got %.40s, want %.40s", path, got, want)
		}
	}
}

// FuzzDecisionLog plants a secret wherever credentials stand, in requests of every outcome.
func FuzzDecisionLog(f *testing.F) {
	rule := staticRule()
	for n := range uint8(12) {
		f.Add("s3cr3t-of-the-caller-0123456789", "GET", "api.example.com", "/v1/orders", n)
	}
	f.Add("0123456789abcdef0123456789abcdef", "get it", "api.example.com:80", "/a;b", uint8(3))
	f.Fuzz(func(t *testing.T, secret, method, host, path string, where uint8) {
		if len(secret) < 16 || strings.Contains(method+host+path+rule.Name, secret) {
			return
		}
		q := ask(rule.ID(), "")
		h := q.Attributes.Request.Http
		h.Method, h.Host, h.Path = method, host, path
		switch where % 12 {
		case 0:
			h.Headers["authorization"] = "Bearer " + secret
		case 1:
			h.Headers["authorization"] = secret
		case 2:
			h.Headers["cookie"] = "session=" + secret
		case 3:
			h.Path += "?token=" + secret
		case 4:
			h.Headers["x-api-key"] = secret
		case 5:
			h.Headers["authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+secret))
		case 6:
			h.Headers["authorization"] = "Bearer " + rsaPair().sign(t, goodClaims(map[string]any{"password": secret}))
		case 7:
			h.Host = "user:" + secret + "@" + host
		case 8:
			h.Path = "http://user:" + secret + "@" + host + path
		case 9:
			h.Headers["authorization"] = "Bearer a." + b64(secret) + ".c, Bearer " + secret
		case 10:
			h.Path = "/a;jsessionid=" + secret
		case 11:
			h.Headers["traceparent"], h.Headers["x-request-id"] = "00-"+secret+"!", "!"+secret
		}
		lines := logged(t, Options{Decisions: LogAll}, Table{Rules: []Rule{rule}}, func(s *Service) {
			if _, err := s.Check(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		})
		if len(lines) != 1 {
			t.Fatalf("%d lines", len(lines))
		}
		text := string(must(json.Marshal(lines[0])))
		for _, form := range []string{secret, b64(secret), base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)), url.QueryEscape(secret)} {
			if strings.Contains(text, form) {
				t.Fatalf("%q stands in %s", form, text)
			}
		}
	})
}

func TestMetricsOfTokens(t *testing.T) {
	rule := staticRule()
	r := prometheus.NewRegistry()
	board := &slate{unknown: true}
	s := load(t, Options{Metrics: r, Revoked: board}, Table{Rules: []Rule{rule}})
	q := ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil)))
	for _, known := range []float64{0, 1} {
		board.unknown = known == 0
		if got := counted(t, r, "legation_auth_revocations_known"); got != known {
			t.Errorf("known: %g, want %g", got, known)
		}
		s.Answer(calls(q, q, ask(rule.ID(), "Bearer x"), ask(rule.ID(), "")))
	}
	got := map[string]float64{
		"hit":     counted(t, r, "legation_auth_tokens_total", `"hit"`),
		"miss":    counted(t, r, "legation_auth_tokens_total", `"miss"`),
		"unknown": counted(t, r, "legation_auth_decisions_total", `"revocations_unknown"`),
		"allow":   counted(t, r, "legation_auth_decisions_total", `"allow"`),
		"entry":   counted(t, r, "legation_auth_decisions_total", `"jwt"`),
		"all":     counted(t, r, "legation_auth_decisions_total"),
	}
	// The token is new to both calls of the first turn, and cached for both of the second; the malformed one is always new.
	if d := cmp.Diff(map[string]float64{"hit": 2, "miss": 4, "unknown": 2, "allow": 2, "entry": 6, "all": 8}, got); d != "" {
		t.Error(d)
	}
}
