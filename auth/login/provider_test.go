package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// transport answers requests without a network.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func reply(status int, kind string, body []byte) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(bytes.NewReader(body))}
}

func newFlow(t testing.TB, over transport) *Flow {
	t.Helper()
	c := Config{Name: "staff", Issuer: "https://id.example/realm", ClientID: "shop", Secret: []byte("0123456789abcdef")}
	verify := func(context.Context, string, string) (map[string]any, error) { return nil, errors.New("never") }
	f, err := New(c, Options{Client: &http.Client{Transport: over}, Records: &records{}, Verify: verify})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDiscovery(t *testing.T) {
	good := map[string]any{
		"issuer":                 "https://id.example/realm",
		"authorization_endpoint": "https://id.example/authorize?tenant=1",
		"token_endpoint":         "https://id.example/token",
		"jwks_uri":               "https://keys.example/jwks",
	}
	for _, row := range []struct {
		name string
		add  map[string]any
		want string
	}{
		{"the least", nil, ""},
		{"another issuer", map[string]any{"issuer": "https://id.example/realm/"}, "of another issuer"},
		{"no issuer", map[string]any{"issuer": nil}, "of another issuer"},
		{"no token endpoint", map[string]any{"token_endpoint": ""}, "lack an endpoint"},
		{"keys over http", map[string]any{"jwks_uri": "http://keys.example/jwks"}, "has to be https"},
		{"a script for a page", map[string]any{"authorization_endpoint": "javascript:alert(1)"}, "no URL of a provider"},
		{"a logout over http", map[string]any{"end_session_endpoint": "http://id.example/logout"}, "has to be https"},
		{"a line end", map[string]any{"authorization_endpoint": "https://id.example/\r\nset-cookie: a=b"}, "no URL of a provider"},
		{"plain PKCE", map[string]any{"code_challenge_methods_supported": []string{"plain"}}, "doesn't take PKCE"},
		{"key authentication", map[string]any{"token_endpoint_auth_methods_supported": []string{"private_key_jwt"}}, "takes no client secret"},
		{"basic authentication", map[string]any{"token_endpoint_auth_methods_supported": []string{"client_secret_basic"}}, ""},
		{"too long", map[string]any{"x": strings.Repeat("x", maxAnswer)}, "too long"},
	} {
		m := maps.Clone(good)
		maps.Copy(m, row.add)
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		f := newFlow(t, func(r *http.Request) (*http.Response, error) {
			if r.URL.String() != "https://id.example/realm/.well-known/openid-configuration" {
				t.Errorf("%s: asked %s", row.name, r.URL)
			}
			return reply(200, "application/json;charset=utf-8", body), nil
		})
		p, err := f.discover(t.Context())
		switch {
		case row.want == "" && (err != nil || p.Authorization != good["authorization_endpoint"]):
			t.Errorf("%s: got %+v, %v", row.name, p, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
}

func TestDiscoveryReadsNothingElse(t *testing.T) {
	redirect := reply(302, "application/json", nil)
	redirect.Header.Set("Location", "https://evil.example/")
	for name, res := range map[string]*http.Response{
		"a redirect": redirect,
		"a failure":  reply(500, "application/json", []byte(`{}`)),
		"a page":     reply(200, "text/html", []byte(`{"issuer":"https://id.example/realm"}`)),
		"two values": reply(200, "application/json", []byte(`{} {}`)),
		"a list":     reply(200, "application/json", []byte(`[]`)),
		"null":       reply(200, "application/json", []byte(`null`)),
	} {
		asked := 0
		f := newFlow(t, func(*http.Request) (*http.Response, error) { asked++; return res, nil })
		if _, err := f.discover(t.Context()); err == nil || asked != 1 {
			t.Errorf("%s: asked %d times, got %v", name, asked, err)
		}
	}
}

func TestRunRefreshesHourlyAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const metadata = `{"issuer":"https://id.example/realm","authorization_endpoint":"https://id.example/a",
			"token_endpoint":"https://id.example/t","jwks_uri":"https://id.example/k"}`
		began := time.Now()
		var mu sync.Mutex
		var asked []time.Duration
		var down atomic.Bool
		down.Store(true)
		f := newFlow(t, func(*http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, time.Since(began))
			if down.Load() {
				return nil, errors.New("no route")
			}
			return reply(200, "application/json", []byte(metadata)), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		time.Sleep(15 * time.Second)
		if f.metadata(time.Now()) != nil {
			t.Error("metadata of a provider that is down")
		}
		down.Store(false)
		time.Sleep(10 * time.Second)
		if f.metadata(time.Now()) == nil {
			t.Error("no metadata of a provider that is back")
		}
		down.Store(true)
		time.Sleep(time.Hour + 30*time.Second)
		mu.Lock()
		want := []time.Duration{0, 10 * time.Second, 20 * time.Second, time.Hour + 20*time.Second}
		if !slices.Equal(asked, want) {
			t.Errorf("asked at %s, want %s", asked, want)
		}
		mu.Unlock()
		time.Sleep(22 * time.Hour)
		if f.metadata(time.Now()) == nil {
			t.Error("what is known is forgotten within a day")
		}
		time.Sleep(2 * time.Hour)
		if f.metadata(time.Now()) != nil {
			t.Error("what is known is believed after a day")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
