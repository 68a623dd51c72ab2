package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// How key sets are fetched.
const (
	fetchTimeout   = 5 * time.Second
	refreshDefault = 5 * time.Minute
	refreshMin     = time.Minute
	refreshMax     = time.Hour
	retryMin       = time.Second
	retryMax       = time.Minute
	retryFirst     = 5 * time.Second        // the most while there is no set to serve with: each second is 503s
	missedEvery    = 10 * time.Second       // least time between fetches that unknown kids cause
	missedSoon     = 100 * time.Millisecond // how soon such a fetch has to begin for a request to wait for it
	missedWait     = 150 * time.Millisecond // how long it waits; Envoy gives up after 200 ms
	keptFor        = 24 * time.Hour         // how long the last good set serves when fetches go wrong
)

// remote is a key set behind a URL, shared by all providers that name it. Run alone fetches; requests only read, and
// may say that they missed a key. There are issuers that sign with a key as soon as they publish it: a request that misses
// one may wait for the fetch that it causes, where that is about to begin. Whoever invents kids makes their own requests
// wait, and only while such a fetch is allowed; then new keys have to wait for the next one.
type remote struct {
	url     string
	shown   string // url without its query
	client  *http.Client
	log     *slog.Logger
	metrics *metrics
	state   atomic.Pointer[fetched]
	kicked  chan struct{} // holds one

	mu     sync.Mutex    // guards what follows
	wanted bool          // unknown kids ask for a fetch that has not begun
	asked  time.Time     // when the last one began
	going  bool          // it has not ended
	coming chan struct{} // closed at the end of the fetch that unknown kids ask for; nil while they ask for none
}

// fetched is what is known after a fetch.
type fetched struct {
	keys *keySet // the last good set; nil before the first
	at   time.Time
	err  error // of the last fetch
}

func (r *remote) keySet(now time.Time) *keySet {
	f := r.state.Load()
	if f == nil || f.keys == nil || now.Sub(f.at) > keptFor {
		return nil
	}
	return f.keys
}

// missed asks for a fetch. Where that is about to begin, or has just begun, it returns what is closed at its end.
func (r *remote) missed(now time.Time) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.kicked <- struct{}{}:
	default:
	}
	r.wanted = true
	if r.coming == nil {
		r.coming = make(chan struct{})
	}
	begins := r.asked
	if !r.going {
		begins = r.asked.Add(missedEvery)
	}
	if r.going && now.Sub(begins) > missedSoon || begins.Sub(now) > missedSoon {
		return nil
	}
	return r.coming
}

// begin takes note of a fetch, which answers the unknown kids that have asked for one before.
func (r *remote) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wanted {
		return
	}
	r.asked, r.wanted, r.going = now, false, true
	select {
	case <-r.kicked:
	default:
	}
}

// end lets the requests go on that wait for the fetch.
func (r *remote) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.going {
		close(r.coming)
		r.coming, r.going = nil, false
	}
}

// allowed is when unknown kids may cause a fetch again.
func (r *remote) allowed() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked.Add(missedEvery)
}

func (r *remote) health(now time.Time) JWKSHealth {
	h := JWKSHealth{URL: r.shown}
	f := r.state.Load()
	if f == nil {
		return h
	}
	if k := r.keySet(now); k != nil {
		h.Loaded, h.Keys = true, len(k.keys)
	}
	h.Fetched = f.at
	if f.err != nil {
		h.Stale, h.Error = true, f.err.Error()
	}
	return h
}

func (r *remote) run(ctx context.Context) {
	retry := retryMin
	for {
		maxAge, err := r.refresh(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := jitter(maxAge)
		if err != nil {
			if r.keySet(time.Now()) == nil {
				retry = min(retry, retryFirst)
			}
			wait = jitter(retry)
			retry = min(2*retry, retryMax)
		} else {
			retry = retryMin
		}
		if !r.pause(ctx, wait) {
			return
		}
	}
}

// pause waits until the next fetch is due, or sooner when a token named an unknown key.
func (r *remote) pause(ctx context.Context, wait time.Duration) bool {
	due := time.NewTimer(wait)
	defer due.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-due.C:
		return true
	case <-r.kicked:
	}
	early := time.NewTimer(time.Until(r.allowed()))
	defer early.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-due.C:
	case <-early.C:
	}
	return true
}

// jitter takes up to a tenth off, so that replicas do not fetch in step.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

// refresh fetches once and keeps the outcome. What requests missed before is answered by it.
func (r *remote) refresh(ctx context.Context) (maxAge time.Duration, err error) {
	r.begin(time.Now())
	defer r.end()
	old := r.state.Load()
	if old == nil {
		old = &fetched{}
	}
	keys, maxAge, err := r.fetch(ctx)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		r.metrics.fetches.WithLabelValues("error").Inc()
		if old.err == nil {
			r.log.Warn("jwks fetch went wrong", "url", r.shown, "error", err, "loaded", old.keys != nil)
		}
		r.state.Store(&fetched{keys: old.keys, at: old.at, err: err})
		return 0, err
	}
	result := "changed"
	if old.keys != nil && old.keys.sum == keys.sum {
		keys, result = old.keys, "same" // the same pointer keeps the verified tokens
	}
	r.metrics.fetches.WithLabelValues(result).Inc()
	if result == "changed" || old.err != nil {
		r.log.Info("jwks loaded", "url", r.shown, "keys", len(keys.keys), "result", result)
	}
	r.state.Store(&fetched{keys: keys, at: time.Now()})
	return maxAge, nil
}

func (r *remote) fetch(ctx context.Context) (*keySet, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, 0, errors.New("the URL is not valid")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := r.client.Do(req)
	if err != nil {
		return nil, 0, plain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("answered %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeySet+1))
	if err != nil {
		return nil, 0, plain(err)
	}
	keys, err := parseKeySet(body)
	return keys, maxAge(res.Header.Get("Cache-Control")), err
}

// plain is what may be shown of an error. The words of the libraries hold URLs, whose query may be a secret, what the
// other side sent, and ports that differ each time.
func plain(err error) error {
	if reason, ok := errors.AsType[fetchError](err); ok {
		return reason
	}
	if c, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return c
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return errors.New("the host name is not found")
	}
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return code // "connection refused"
	}
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		return alert
	}
	for _, known := range []error{http.ErrSchemeMismatch, io.ErrUnexpectedEOF, io.EOF} {
		if errors.Is(err, known) {
			return known
		}
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return fmt.Errorf("no answer within %s", fetchTimeout)
	}
	return errors.New("no HTTP answer that can be understood")
}

// maxAge is how long a key set is good for, within our bounds.
func maxAge(cacheControl string) time.Duration {
	for directive := range strings.SplitSeq(strings.ToLower(cacheControl), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "no-cache":
			return refreshMin
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				return refreshDefault
			}
			return min(max(time.Duration(seconds)*time.Second, refreshMin), refreshMax)
		}
	}
	return refreshDefault
}

func withoutQuery(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}
