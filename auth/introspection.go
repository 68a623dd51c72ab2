package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How issuers are asked about tokens.
const (
	// introspectWait is how long a request waits for the answer: Envoy gives up at 200 ms. The answer that comes later
	// serves the next request.
	introspectWait = 150 * time.Millisecond
	introspectEnd  = 2 * time.Second  // when an answer comes too late for anyone
	introspectMost = 64               // questions of a provider that are under way at once
	maxIntrospect  = 64 << 10         // bytes of an answer
	cacheDefault   = time.Minute      // of a good token
	cacheMax       = time.Hour        // the most that may be asked for
	cacheRefused   = 10 * time.Second // of a bad one, at most
)

var (
	errInactive       = newRefusal("token_inactive", "the token is not active")
	denyNotIntrospect = newDenial(503, denyNoKeys.code, "no_introspection", "the issuer could not be asked about the token", resultUnavailable)
)

// introspection is the way of an [Introspection].
type introspection struct {
	*provider
	terms
	url, issuer    string
	client, secret string
	places         places
	drop           bool // the backend isn't shown the token
	keep           time.Duration
	http           *http.Client
	log            *slog.Logger
	cache          *cache
	failing        atomic.Bool // the last question had no answer

	mu    sync.Mutex // guards asked
	asked map[[sha256.Size]byte]*question
}

// question is one that is under way: all requests with the token wait for the same.
type question struct {
	done   chan struct{}
	answer *verified // once done; with neither grant nor err when nothing was learnt
}

func compileIntrospection(c *compiler, p Provider, to *provider) (_ way, err error) {
	i := p.Introspection
	if err := checkURL(i.URL); err != nil {
		return nil, err
	}
	if i.Client == "" || i.Secret == "" {
		return nil, errors.New("introspection needs a client and its secret")
	}
	w := &introspection{
		provider: to, url: i.URL, issuer: i.Issuer, client: i.Client, keep: i.Cache,
		http: c.poster, log: c.log, cache: newCache(), asked: map[[sha256.Size]byte]*question{},
	}
	if w.keep == 0 {
		w.keep = cacheDefault
	}
	if w.keep < 0 || w.keep > cacheMax {
		return nil, errors.New("cache must lie between 0 and 1h")
	}
	if w.terms, err = newTerms(i.Audiences, i.Skew, 0); err != nil {
		return nil, err
	}
	w.endless = true // RFC 7662, 2.2: the issuer need not tell when a token ends
	if w.places, err = newPlaces(i.From); err != nil {
		return nil, err
	}
	w.drop = i.Drop
	if to.reading, err = newReading(i.Reading); err != nil {
		return nil, err
	}
	secret, err := c.secret(i.Secret)
	w.secret = string(secret)
	return w, err
}

// same keeps what was learnt, unless somebody else asks now.
func (w *introspection) same(other way) bool {
	o, ok := other.(*introspection)
	return ok && o.secret == w.secret
}

func (w *introspection) hides() []From {
	if w.drop {
		return w.places.all()
	}
	return nil
}

func (w *introspection) challenge() string { return `Bearer realm="` + w.name + `"` }

func (w *introspection) look(d *decision, now time.Time) finding {
	raw, err := w.places.read(d)
	if raw == "" || err != nil {
		return finding{err: err}
	}
	if len(raw) > maxToken || !opaqueToken(raw) {
		return finding{err: errMalformed}
	}
	i := &inquiry{w, raw, *d.tokenSum(raw)}
	if v := w.cached(&i.sum, now); v != nil {
		return v.finding()
	}
	return finding{work: i}
}

// opaqueToken tells whether raw is a token as RFC 6750 (2.1) writes them. What isn't never leaves this process.
func opaqueToken(raw string) bool {
	letters := strings.TrimRight(raw, "=")
	return letters != "" && !strings.ContainsFunc(letters, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~+/", r)
	})
}

// cached is what was learnt of a token before; nil when that is nothing, or too long ago.
func (w *introspection) cached(sum *[sha256.Size]byte, now time.Time) *verified {
	if v := w.cache.get(sum); v != nil && now.Before(v.until) {
		return v
	}
	return nil
}

func (v *verified) finding() finding { return finding{grant: v.grant, err: v.err} }

// inquiry is the work on a token: asking its issuer.
type inquiry struct {
	by  *introspection
	raw string
	sum [sha256.Size]byte
}

func (*inquiry) waits() bool { return true }

func (i *inquiry) do(ctx context.Context, now time.Time) finding {
	if v := i.by.cached(&i.sum, now); v != nil {
		return v.finding()
	}
	q := i.by.ask(i)
	if q == nil {
		return finding{err: denyNotIntrospect}
	}
	late := time.NewTimer(introspectWait)
	defer late.Stop()
	select {
	case <-q.done:
	case <-late.C:
		return finding{err: denyNotIntrospect}
	case <-ctx.Done():
		return finding{err: denyNotIntrospect}
	}
	if q.answer.grant == nil && q.answer.err == nil {
		return finding{err: denyNotIntrospect}
	}
	return q.answer.finding()
}

// ask finds the question about the token that is under way, or asks it; nil when there are too many.
func (w *introspection) ask(i *inquiry) *question {
	w.mu.Lock()
	defer w.mu.Unlock()
	if q := w.asked[i.sum]; q != nil {
		return q
	}
	if len(w.asked) >= introspectMost {
		return nil
	}
	q := &question{done: make(chan struct{}), answer: &verified{sum: i.sum}}
	w.asked[i.sum] = q
	raw := strings.Clone(i.raw) // the request's message is gone by the time that the last answers come
	go w.run(q, raw)
	return q
}

// run outlives the request that began it, but not for long.
func (w *introspection) run(q *question, raw string) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("introspection panicked", "provider", w.name)
			q.answer.grant, q.answer.err = nil, nil
		}
		w.mu.Lock()
		delete(w.asked, q.answer.sum)
		w.mu.Unlock()
		close(q.done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), introspectEnd)
	defer cancel()
	said, err := w.post(ctx, raw)
	if err != nil {
		if !w.failing.Swap(true) {
			w.log.Warn("introspection went wrong", "provider", w.name, "url", withoutQuery(w.url), "error", err)
		}
		return
	}
	if w.failing.Swap(false) {
		w.log.Info("introspection works again", "provider", w.name)
	}
	w.judge(q.answer, raw, said, time.Now())
	w.cache.put(q.answer)
}

// post sends the token, with the client's name and secret as RFC 6749 (2.3.1) has them.
func (w *introspection) post(ctx context.Context, raw string) (claims, error) {
	form := url.Values{"token": {raw}, "token_type_hint": {"access_token"}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, strings.NewReader(form))
	if err != nil {
		return nil, errors.New("the URL is not valid")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	pair := url.QueryEscape(w.client) + ":" + url.QueryEscape(w.secret)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	res, err := w.http.Do(r)
	if err != nil {
		return nil, plain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, statusError(res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxIntrospect+1))
	if err != nil {
		return nil, plain(err)
	}
	if len(body) > maxIntrospect {
		return nil, errors.New("the answer is too long")
	}
	o, err := strictObject(body)
	if err != nil {
		return nil, err
	}
	if _, ok := o["active"].(bool); !ok {
		return nil, errors.New(`the answer has no truth value "active"`)
	}
	return o, nil
}

// judge reads what the issuer said.
func (w *introspection) judge(v *verified, raw string, said claims, now time.Time) {
	expires, err := w.check(said, now)
	if err == nil {
		v.grant, err = w.newGrant(said, expires)
	}
	if v.err = err; err == nil {
		v.grant.marks = append(v.grant.marks, tokenMark(raw))
	} else {
		v.until = now.Add(min(cacheRefused, w.keep))
		return
	}
	v.until = now.Add(w.keep)
	if !expires.IsZero() && expires.Before(v.until) {
		v.until = expires
	}
}

func (w *introspection) check(said claims, now time.Time) (expires time.Time, err error) {
	if said["active"] != true {
		return time.Time{}, errInactive
	}
	// One that is bound to a key, such as a DPoP token, is no bearer token.
	if kind, told := said["token_type"]; told {
		s, _ := kind.(string)
		if !strings.EqualFold(s, "bearer") && !strings.EqualFold(s, "access_token") {
			return time.Time{}, errType
		}
	}
	if iss, _ := said["iss"].(string); w.issuer != "" && iss != w.issuer {
		return time.Time{}, errIssuer
	}
	if err := said.checkAudience(w.audiences); err != nil {
		return time.Time{}, err
	}
	if err := said.checkSubject(); err != nil {
		return time.Time{}, err
	}
	return said.checkTimes(&w.terms, now)
}
