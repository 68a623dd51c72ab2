package login

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/legation/legation/auth/login/logintest"
)

// newRefreshing is a site whose provider's tokens last for 10 minutes, and somebody who is logged in.
func newRefreshing(t *testing.T) (*site, *visitor) {
	t.Helper()
	s := newSite(t, nil)
	s.provider.Set(func(p *logintest.Settings) { p.Refresh, p.Lasts = true, 10*time.Minute })
	v := s.visitor()
	v.logIn("/")
	v.visit("GET", "/")
	return s, v
}

func TestTokensAreRefreshedBeforeTheirEnd(t *testing.T) {
	s, v := newRefreshing(t)
	s.provider.Set(func(p *logintest.Settings) { p.Claims = func(m map[string]any) { m["name"] = "Countess" } })
	s.clock.pass(9*time.Minute - time.Second)
	if o := v.visit("GET", "/"); o.Claims["name"] != "Ada Lovelace" {
		t.Errorf("early: got %v", o.Claims)
	}
	s.clock.pass(time.Second)
	if o := v.visit("GET", "/"); o.Claims["name"] != "Countess" {
		t.Errorf("due: got %v", o.Claims)
	}
	for range 5 {
		s.clock.pass(9 * time.Minute)
		if o := v.visit("GET", "/"); o.Claims == nil {
			t.Fatal("not logged in any more")
		}
	}
	if got := s.provider.Asked("/token"); got != 7 {
		t.Errorf("the provider was asked %d times, want 1 for the code and 6 to refresh", got)
	}
}

// A refresh token is good once: two requests that use it would end the session.
func TestOneRequestRefreshes(t *testing.T) {
	for _, passed := range []time.Duration{9*time.Minute + time.Second, 11 * time.Minute} {
		s, v := newRefreshing(t)
		flows := []*Flow{s.flow, s.replica(nil)}
		s.clock.pass(passed)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				w := *v
				w.flow = flows[i%2]
				if o, err := w.try(w.request("GET", "/")); err != nil || o.Claims == nil {
					t.Errorf("after %s: got %+v, %v", passed, o.Answer, err)
				}
			})
		}
		wg.Wait()
		if got := s.provider.Asked("/token"); got != 2 {
			t.Errorf("after %s the provider was asked %d times, want 2", passed, got)
		}
	}
}

func TestAnotherReplicaHasRefreshed(t *testing.T) {
	s, v := newRefreshing(t)
	other := *v
	other.flow = s.replica(nil)
	s.clock.pass(9*time.Minute - time.Second)
	v.visit("GET", "/")
	s.clock.pass(time.Second)
	other.visit("GET", "/")
	if o := v.visit("GET", "/"); o.Claims == nil || s.provider.Asked("/token") != 2 {
		t.Errorf("got %+v, the provider was asked %d times", o, s.provider.Asked("/token"))
	}
}

func TestTokensThatEndAtOnceAreKeptTenSeconds(t *testing.T) {
	s := newSite(t, nil)
	s.provider.Set(func(p *logintest.Settings) {
		p.Refresh = true
		p.Token = func(m map[string]any) { m["expires_in"] = "1" }
	})
	v := s.visitor()
	v.logIn("/")
	for range 7 {
		s.clock.pass(time.Second)
		v.visit("GET", "/")
	}
	if got := s.provider.Asked("/token"); got != 1 {
		t.Errorf("the provider was asked %d times in seven seconds", got)
	}
	s.clock.pass(time.Second)
	if o := v.visit("GET", "/"); o.Claims == nil || s.provider.Asked("/token") != 2 {
		t.Errorf("got %+v, the provider was asked %d times", o, s.provider.Asked("/token"))
	}
}

func TestRefusedRefreshEndsTheSession(t *testing.T) {
	s, v := newRefreshing(t)
	s.provider.Revoke()
	s.clock.pass(9*time.Minute + time.Second)
	if o := v.visit("GET", "/"); o.Claims != nil || len(s.records.kept) != 0 {
		t.Errorf("got %+v, %d records", o, len(s.records.kept))
	}
}

func TestRefreshForAnotherEndsTheSession(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"another subject": func(m map[string]any) { m["sub"] = "root" },
		"another login":   func(m map[string]any) { m["nonce"] = "x" },
	} {
		s, v := newRefreshing(t)
		s.provider.Set(func(p *logintest.Settings) { p.Claims = change })
		s.clock.pass(9*time.Minute + time.Second)
		if o := v.visit("GET", "/"); o.Claims != nil || len(s.records.kept) != 0 {
			t.Errorf("%s: got %+v", name, o)
		}
	}
}

func TestRefreshMayLeaveTheIDTokenOut(t *testing.T) {
	s, v := newRefreshing(t)
	s.provider.Set(func(p *logintest.Settings) {
		p.Token = func(m map[string]any) { delete(m, "id_token"); delete(m, "refresh_token") }
	})
	s.clock.pass(9 * time.Minute)
	if o := v.visit("GET", "/"); o.Claims["name"] != "Ada Lovelace" {
		t.Errorf("got %v", o.Claims)
	}
}

func TestSessionOutlastsAProviderThatIsDown(t *testing.T) {
	s, v := newRefreshing(t)
	down := func(down bool) { s.provider.Set(func(p *logintest.Settings) { p.Down = down }) }
	down(true)
	s.clock.pass(9*time.Minute + time.Second)
	asked := s.provider.Asked("/token")
	for range 10 {
		if o, err := v.try(v.request("GET", "/")); err != nil || o.Claims == nil {
			t.Errorf("before the tokens' end: got %v", err)
		}
	}
	if _, waits := s.flow.Look(v.request("GET", "/"), s.clock.read()); waits {
		t.Error("a request waits although the provider was asked just now")
	}
	if got := s.provider.Asked("/token") - asked; got != 1 {
		t.Errorf("a provider that is down was asked %d times within ten seconds, want 1", got)
	}
	s.clock.pass(time.Minute)
	for range 3 {
		if o, err := v.try(v.request("GET", "/")); !errors.Is(err, errUnreachable) || o.Claims != nil {
			t.Errorf("after the tokens' end: got %+v, %v", o, err)
		}
	}
	if got := s.provider.Asked("/token") - asked; got != 2 {
		t.Errorf("the provider was asked %d times, want 2", got)
	}
	down(false)
	s.clock.pass(retryRefresh)
	if o, err := v.try(v.request("GET", "/")); err != nil || o.Claims == nil {
		t.Errorf("the provider is back: got %v", err)
	}
}

func TestLateRefreshDoesNotUndoALogout(t *testing.T) {
	s, v := newRefreshing(t)
	other := *v
	other.flow = s.replica(nil)
	s.clock.pass(9*time.Minute - time.Second)
	v.visit("GET", "/")
	s.clock.pass(time.Second)
	s.records.beforeReplace = func() {
		s.records.beforeReplace = nil
		if o := other.visit("POST", "/oauth2/logout"); o.Ended == "" {
			t.Errorf("got %+v", o)
		}
	}
	if o := v.visit("GET", "/"); o.Claims != nil {
		t.Error("the request goes through")
	}
	for name := range s.records.kept {
		t.Errorf("record %q is back", name)
	}
}

func TestOthersGoOnDuringARefresh(t *testing.T) {
	s, v := newRefreshing(t)
	s.clock.pass(9*time.Minute - time.Second)
	v.visit("GET", "/")
	s.clock.pass(time.Second)
	during := 0
	s.records.beforeReplace = func() {
		during++
		if o, waits := s.flow.Look(v.request("GET", "/"), s.clock.read()); waits || o.Claims == nil {
			t.Errorf("another request waits: %t, and gets %+v", waits, o)
		}
	}
	if o := v.visit("GET", "/"); o.Claims == nil || during != 1 {
		t.Errorf("%d refreshes, got %+v", during, o)
	}
}

func TestRefreshWaitsForAnotherReplica(t *testing.T) {
	s, v := newRefreshing(t)
	lock := s.flow.record(idOf(v.session().Value)) + "/refresh"
	s.clock.pass(9*time.Minute + time.Second)
	if _, err := s.records.Add(t.Context(), lock, []byte{1}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if o := v.visit("GET", "/"); o.Claims == nil {
		t.Error("before the tokens' end, the request doesn't go on")
	}
	s.clock.pass(time.Minute)
	looks := 0
	s.records.beforeGet = func(name string) {
		if looks += strings.Count(name, "/refresh"); looks == 3 {
			_ = s.records.Delete(t.Context(), lock) // the other replica gives up: its provider is down
		}
	}
	if o, err := v.try(v.request("GET", "/")); !errors.Is(err, errUnreachable) || o.Claims != nil || looks != 3 {
		t.Errorf("after %d looks: got %+v, %v", looks, o, err)
	}
}

func TestPanickingVerifierIsAnError(t *testing.T) {
	s, v := newRefreshing(t)
	s.flow.options.Verify = nil
	s.clock.pass(11 * time.Minute)
	if o, err := v.try(v.request("GET", "/")); err == nil || o.Claims != nil {
		t.Errorf("got %+v, %v", o, err)
	}
}
