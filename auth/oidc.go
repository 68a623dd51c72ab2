package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/legation/legation/auth/login"
)

// sessions is the way of an [OIDC]: browsers are sent to the provider, and known by a cookie when they come back.
type sessions struct {
	*provider
	o      Options
	flow   *login.Flow
	secret []byte
	port   string // with its colon; "" = the scheme's
	keys   lazyKeys
	ids    *tokens // judges ID tokens
}

func compileOIDC(c *compiler, p Provider, to *provider) (_ way, err error) {
	l := p.OIDC
	w := &sessions{provider: to, o: c.o, ids: &tokens{provider: to, issuers: []string{l.Issuer}}}
	if w.ids.terms, err = newTerms([]string{l.Client}, 0, 0); err != nil {
		return nil, err
	}
	w.keys.make = c.newRemote
	if l.Port != 0 {
		w.port = fmt.Sprintf(":%d", l.Port)
	}
	if to.reading, err = newReading(l.Reading); err != nil {
		return nil, err
	}
	if c.o.Sessions == nil {
		return nil, errors.New("there is nothing here to keep sessions in")
	}
	if w.secret, err = c.secret(l.Secret); err != nil {
		return nil, err
	}
	w.flow, err = login.New(l.config(p.Name, w.secret), login.Options{Client: c.client, Records: c.o.Sessions, Verify: w.verify, Log: c.log})
	return w, err
}

func (l *OIDC) config(name string, secret []byte) login.Config {
	return login.Config{
		Name: name, Issuer: l.Issuer, ClientID: l.Client, Secret: secret, Scopes: l.Scopes, Parameters: l.Parameters, UserInfo: l.UserInfo,
		Callback: l.Callback, Logout: l.Logout, AfterLogout: l.AfterLogout, Idle: l.Idle, Lifetime: l.Lifetime, Cookie: l.Cookie,
	}
}

func (w *sessions) same(other way) bool {
	o, ok := other.(*sessions)
	return ok && bytes.Equal(w.secret, o.secret)
}

// challenge is empty: browsers are sent on, and others told by the flow.
func (w *sessions) challenge() string { return "" }

// run keeps what the provider tells of itself fresh.
func (w *sessions) run(ctx context.Context) { _ = w.flow.Run(ctx) } // it ends with the context

func (w *sessions) visit(d *decision) login.Request {
	host := d.host
	if w.port != "" && !strings.HasSuffix(host, w.port) {
		host += w.port
	}
	return login.Request{Method: d.method, Scheme: d.scheme, Host: host, Path: d.path, Header: d.byHeader}
}

func (w *sessions) look(d *decision, now time.Time) finding {
	q := w.visit(d)
	o, waits := w.flow.Look(q, now)
	if waits {
		return finding{work: &visiting{w, q}}
	}
	return w.found(o)
}

// greet sends a browser to the provider.
func (w *sessions) greet(d *decision, now time.Time) *response {
	return respond(w.flow.Challenge(w.visit(d), now))
}

// visiting is the work of finding a session, and of the paths that are the login's own.
type visiting struct {
	by      *sessions
	request login.Request
}

func (*visiting) waits() bool { return true }

func (v *visiting) do(ctx context.Context, now time.Time) finding {
	o, err := v.by.flow.Handle(ctx, v.request, now)
	if err != nil {
		return finding{err: denyNoSession}
	}
	if o.Ended != "" {
		v.by.tell(ctx, o.Ended)
	}
	return v.by.found(o)
}

// tell has all processes know of a logout at once. Without it they would go on for as long as they believe a session that
// they have seen, two seconds.
func (w *sessions) tell(ctx context.Context, session string) {
	if w.o.Revoked != nil {
		_ = revoked(ctx, w.o.Revoked, "session:"+session, "logout", time.Now().Add(lasting["session"]))
	}
}

func (w *sessions) found(o login.Outcome) finding {
	switch {
	case o.Answer != nil:
		return finding{answer: respond(*o.Answer)}
	case o.Claims == nil:
		return finding{}
	}
	g, err := w.newGrant(o.Claims, o.Expires)
	if err != nil {
		return finding{err: err}
	}
	g.issued, g.marks = o.Began, append(g.marks, "session:"+o.ID)
	return finding{grant: g}
}

// others are the cookies but for the login's.
func (w *sessions) others(cookies string) string { return w.flow.Others(cookies) }

func respond(a login.Answer) *response {
	r := &response{status: a.Status, body: a.Body}
	for _, h := range a.Headers {
		r.headers = append(r.headers, pair{name: h[0], value: h[1]})
	}
	return r
}

// verify judges an ID token by the same rules as any other.
func (w *sessions) verify(ctx context.Context, raw, jwks string) (map[string]any, error) {
	t, err := parseToken(raw)
	if err != nil {
		return nil, err
	}
	c, err := strictObject(t.payload)
	if err != nil {
		return nil, errMalformed
	}
	u := &unverified{token: t, claims: c}
	err = w.keys.use(ctx, jwks, func(k *keySet) error {
		if k == nil {
			return denyNoKeys
		}
		return k.verify(t)
	})
	if err != nil {
		return nil, err
	}
	j, now := &judging{tokens: w.ids, unverified: u}, time.Now()
	for _, hurdle := range []func(time.Time) error{j.checkIssuer, j.checkAudience, j.checkTimes} {
		if err := hurdle(now); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// lazyKeys are key sets that are asked for when one is needed: logins are few.
type lazyKeys struct {
	make func(origin) *remote

	mu     sync.Mutex // guards what follows, and lets one fetch at a time
	remote *remote
	tried  time.Time
}

const (
	lazyFresh = 5 * time.Minute // a set is believed without asking again
	lazyRetry = time.Second     // between fetches while there is none
)

// use has the key set of a URL used, and once more with a new one where the first lacks the key.
func (l *lazyKeys) use(ctx context.Context, url string, verify func(*keySet) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := checkURL(url); err != nil {
		return denyNoKeys
	}
	if l.remote == nil || l.remote.url != url {
		l.remote, l.tried = l.make(origin{url: url}), time.Time{}
	}
	now := time.Now()
	since, known := now.Sub(l.tried), l.remote.keySet(now) != nil
	if since > lazyFresh || !known && since > lazyRetry {
		l.fetch(ctx)
	}
	err := verify(l.remote.keySet(now))
	if err == error(errKey) && now.Sub(l.tried) > missedEvery {
		l.fetch(ctx)
		err = verify(l.remote.keySet(now))
	}
	return err
}

func (l *lazyKeys) fetch(ctx context.Context) {
	l.tried = time.Now()
	_, _ = l.remote.refresh(ctx) // what is known then tells
}
