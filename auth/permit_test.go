package auth

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// permitting is a rule that asks more of the callers of staticRule.
func permitting(a ...Authorization) Rule {
	r := staticRule()
	r.Name, r.Authorize = "edge/permit", a
	return r
}

// A policy chooses the status of a refusal, but not whether it counts.
func TestRefusedCallersCountByTheirAddress(t *testing.T) {
	for _, status := range []int{302, 401, 403, 404, 503} {
		rule := permitting(Authorization{Name: "route/a", Scopes: []string{"admin"}, Deny: &Reply{Status: status, Headers: map[string]string{"location": "/"}}})
		rule.Limits = []string{"route/a/0"}
		k := &counter{verdict: Verdict{Allowed: true}}
		c := dial(t, load(t, Options{Counter: k}, Table{Rules: []Rule{rule}}))
		got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil)))).status
		if got != status || k.calls != 2 || k.caller.Identified || k.caller.Consumer != "" { // of Check, and of Answer
			t.Errorf("%d: got %d, counted %d times, last %+v", status, got, k.calls, k.caller)
		}
	}
}

func TestCallersThatAreKnownMayBeRefused(t *testing.T) {
	slow := Metadata{Name: "account", URL: "https://accounts.test/{consumer}"}
	for name, test := range map[string]struct {
		rule   Rule
		claims map[string]any
		status int
	}{
		"scope there":        {permitting(Authorization{Name: "route/a", Scopes: []string{"read"}}), map[string]any{"scope": "read write"}, 200},
		"scope missing":      {permitting(Authorization{Name: "route/a", Scopes: []string{"admin"}}), map[string]any{"scope": "read write"}, 403},
		"two layers":         {permitting(Authorization{Name: "gateway/edge", Scopes: []string{"read"}}, Authorization{Name: "route/a", Scopes: []string{"admin"}}), map[string]any{"scope": "read"}, 403},
		"condition holds":    {permitting(Authorization{Name: "route/a", Rules: []AuthRule{{Expression: "request.method == 'GET' && identity.level > 2"}}}), map[string]any{"level": 3}, 200},
		"condition doesn't":  {permitting(Authorization{Name: "route/a", Rules: []AuthRule{{Expression: "identity.level > 2"}}}), map[string]any{"level": 2}, 403},
		"can't be told":      {permitting(Authorization{Name: "route/a", Rules: []AuthRule{{Expression: "identity.level > 2"}}}), nil, 403},
		"answer of its own":  {permitting(Authorization{Name: "route/a", Scopes: []string{"admin"}, Deny: &Reply{Status: 404}}), nil, 404},
		"metadata":           {permitting(Authorization{Name: "route/a", Metadata: []Metadata{slow}, Rules: []AuthRule{{Expression: "metadata.account.tier == 'gold'"}}}), nil, 200},
		"metadata, not that": {permitting(Authorization{Name: "route/a", Metadata: []Metadata{slow}, Rules: []AuthRule{{Expression: "metadata.account.tier == 'lead'"}}}), nil, 403},
		"metadata, gone":     {permitting(Authorization{Name: "route/a", Metadata: []Metadata{{Name: "account", URL: "https://accounts.test/gone"}}, Rules: []AuthRule{{Expression: "metadata.account.tier == 'gold'"}}}), nil, 503},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Transport: tripper(func(q *http.Request) (*http.Response, error) {
				if q.URL.EscapedPath() != "/idp%2Falice" {
					return nil, io.ErrUnexpectedEOF
				}
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"tier": "gold"}`))}, nil
			})}
			s := load(t, o, Table{Rules: []Rule{test.rule}})
			turn := calls(ask(test.rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(test.claims))))
			s.Answer(turn)
			turn[0].Finish(t.Context())
			if got := flatten(read(t, turn[0])).status; got != test.status {
				t.Errorf("got %d, want %d", got, test.status)
			}
		})
	}
}
