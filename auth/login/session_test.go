package login

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/auth/login/logintest"
)

func TestSessionSlides(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	for range 11 {
		s.clock.pass(59 * time.Minute)
		if o := v.visit("GET", "/"); o.Claims == nil {
			t.Fatalf("not logged in any more at %s", s.clock.read())
		}
	}
	s.clock.pass(time.Hour)
	if o := v.visit("GET", "/"); o.Claims != nil {
		t.Error("logged in after an hour of idleness")
	}
}

func TestSessionEndsAfterItsLifetime(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	for range 24 {
		if o := v.visit("GET", "/"); o.Claims == nil {
			t.Fatalf("not logged in any more at %s", s.clock.read())
		}
		s.clock.pass(30*time.Minute - time.Second/24)
	}
	v.visit("GET", "/") // a second before
	s.clock.pass(time.Second)
	if o := v.visit("GET", "/"); o.Claims != nil {
		t.Error("logged in after twelve hours")
	}
}

func TestRequestsSpareTheRecords(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	before := s.records.calls
	for range 600 { // in 60 s
		v.visit("GET", "/")
		s.clock.pass(100 * time.Millisecond)
	}
	got := s.records.calls
	if gets := got.get - before.get; gets != 30 {
		t.Errorf("%d gets in a minute, want one each two seconds", gets)
	}
	if extends := got.extend - before.extend; extends != 1 {
		t.Errorf("%d extends in a minute, want 1", extends)
	}
}

func TestLostRecordsAreAnError(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	v.visit("GET", "/")
	s.records.setDown(true)
	s.clock.pass(fresh - time.Millisecond)
	if o, err := v.try(v.request("GET", "/")); err != nil || o.Claims == nil {
		t.Errorf("within the cache's time: got %v", err)
	}
	s.clock.pass(time.Millisecond)
	if o, err := v.try(v.request("GET", "/")); !errors.Is(err, errDown) || o.Claims != nil {
		t.Errorf("after it: got %+v, %v", o, err)
	}
	s.records.setDown(false)
	if o, err := v.try(v.request("GET", "/")); err != nil || o.Claims == nil {
		t.Errorf("records are back: got %v", err)
	}
}

func TestExtendingFindsTheEnd(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	v.visit("GET", "/")
	s.clock.pass(extendEvery)
	q := v.request("GET", "/")
	l, err := s.flow.load(t.Context(), v.session().Value, s.clock.read())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.records.Delete(t.Context(), s.flow.record(l.id)); err != nil {
		t.Fatal(err)
	}
	if o, err := v.try(q); err != nil || o.Claims != nil {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestLogoutAsksBefore(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	if a := v.visit("GET", "/oauth2/logout").Answer; a.Reason != "logout" || a.Status != 200 {
		t.Errorf("logged out already: got %+v", a)
	}
	v.logIn("/")
	a := v.visit("GET", "/oauth2/logout").Answer
	if a.Reason != "logout_confirm" || a.Status != 200 {
		t.Errorf("got %+v", a)
	}
	for _, row := range []struct{ method, header, value, reason string }{
		{"POST", "sec-fetch-site", "cross-site", "logout_foreign"},
		{"POST", "sec-fetch-site", "same-site", "logout_foreign"},
		{"PUT", "", "", "login_method"},
		{"HEAD", "", "", "login_method"},
	} {
		v.extra = map[string]string{row.header: row.value}
		if a := v.visit(row.method, "/oauth2/logout").Answer; a.Reason != row.reason {
			t.Errorf("%s %s: got %s, want %s", row.method, row.value, a.Reason, row.reason)
		}
	}
	v.extra = map[string]string{"sec-fetch-site": "", "origin": "https://evil.example"}
	if a := v.visit("POST", "/oauth2/logout").Answer; a.Status != 403 {
		t.Errorf("an old browser and another site: got %+v", a)
	}
	v.extra = nil
	if o := v.visit("GET", "/"); o.Claims == nil {
		t.Error("logged out by asking")
	}
}

func TestLogoutEndsTheSession(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	other := *v
	other.flow = s.replica(nil)
	id := v.visit("GET", "/").ID
	if o := other.visit("GET", "/"); o.ID != id {
		t.Fatalf("another replica gets %+v", o)
	}
	cookies := other.cookies
	o := v.visit("POST", "/oauth2/logout?")
	if o.Ended != id || o.Answer.Status != 303 || v.session() != nil || len(s.records.kept) != 0 {
		t.Errorf("got %+v, ended %q, %d records", o.Answer, o.Ended, len(s.records.kept))
	}
	res, err := v.outside.Get(o.Answer.header("location"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 303 || res.Header.Get("Location") != shop+"/" {
		t.Errorf("the provider answers %d, %q", res.StatusCode, res.Header.Get("Location"))
	}

	v.cookies = cookies
	if o := v.visit("GET", "/"); o.Claims != nil {
		t.Error("the cookie is good at the replica that ended it")
	}
	s.clock.pass(fresh)
	if o := other.visit("GET", "/"); o.Claims != nil {
		t.Error("the cookie is good at another replica after two seconds")
	}
}

func TestRevocationEndsAtOnce(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	id := v.visit("GET", "/").ID
	revoked := ""
	s.flow.options.Revoked = func(subject, session string, began time.Time) bool {
		return session == revoked && subject == "user/1815" && began.Equal(s.clock.read())
	}
	if o := v.visit("GET", "/"); o.Claims == nil {
		t.Error("revoked by nothing")
	}
	revoked = id
	if o := v.visit("GET", "/"); o.Claims != nil || len(s.records.kept) != 0 {
		t.Errorf("got %+v, %d records", o, len(s.records.kept))
	}
}

func TestEndByID(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	id := v.visit("GET", "/").ID
	if err := s.flow.End(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if o := v.visit("GET", "/"); o.Claims != nil {
		t.Error("still logged in")
	}
	for _, id := range []string{"", "x", id[1:], id + "/refresh"} {
		if err := s.flow.End(t.Context(), id); err == nil {
			t.Errorf("%q is taken for an ID", id)
		}
	}
}

func TestLogoutWithoutRecordsIsNone(t *testing.T) {
	s := newSite(t, nil)
	v := s.visitor()
	v.logIn("/")
	s.records.setDown(true)
	a := v.visit("POST", "/oauth2/logout").Answer
	if a.Status != 503 || a.Reason != "logout_records" || v.session() == nil {
		t.Fatalf("got %+v", a)
	}
	s.records.setDown(false)
	if o := v.visit("POST", "/oauth2/logout"); o.Ended == "" || len(s.records.kept) != 0 {
		t.Errorf("the second try: got %+v", o)
	}
}

func TestLongHintIsLeftOut(t *testing.T) {
	for _, length := range []int{100, maxHint} {
		s := newSite(t, nil)
		s.provider.Set(func(p *logintest.Settings) {
			p.Claims = func(m map[string]any) { m["groups"] = strings.Repeat("g", length) }
		})
		v := s.visitor()
		v.logIn("/")
		to := v.visit("POST", "/oauth2/logout").Answer.header("location")
		if got, want := strings.Contains(to, "id_token_hint="), length < maxHint; got != want {
			t.Errorf("an ID token with %d bytes of groups: hint %t in %s", length, got, to)
		}
	}
}

func TestWhereALogoutLeads(t *testing.T) {
	for _, row := range []struct {
		name, after, mode string
		ends              bool // the provider, too
		status            int
		location          string
	}{
		{name: "a page", status: 200},
		{name: "a path", after: "/bye", status: 303, location: shop + "/bye"},
		{name: "a script", mode: "cors", ends: true, status: 204},
	} {
		s := newSite(t, func(c *Config) { c.AfterLogout = row.after })
		if !row.ends {
			s.flow.provider.Load().EndSession = ""
		}
		v := s.visitor()
		v.logIn("/")
		v.extra = map[string]string{"sec-fetch-mode": row.mode}
		a := v.visit("POST", "/oauth2/logout").Answer
		if a.Status != row.status || a.header("location") != row.location || v.session() != nil {
			t.Errorf("%s: got %+v", row.name, a)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	now := time.Now()
	var first *live
	for i := range 3 * cacheWays {
		l := &live{session: &session{}, read: now.Add(time.Duration(i))}
		l.sum[5] = byte(i) // all in one set
		c.put(l)
		if i == 0 {
			first = l
		}
	}
	if c.get(first.sum) != nil {
		t.Error("the one read longest ago is kept")
	}
	last := first.sum
	last[5] = 3*cacheWays - 1
	if c.get(last) == nil {
		t.Error("the last one isn't kept")
	}
	c.end(last)
	if l := c.put(&live{sum: last, session: &session{}, read: now}); l.session != nil || c.get(last).session != nil {
		t.Error("what was read before the end undoes it")
	}
}
