package login

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// session is what a record holds, sealed.
type session struct {
	Claims  map[string]any `json:"claims"`
	Nonce   string         `json:"nonce"`             // of the login; a refreshed ID token may repeat it
	IDToken string         `json:"id,omitempty"`      // tells the provider whom to log out
	Refresh string         `json:"refresh,omitempty"` // token; "" = none, and the session doesn't hang on the tokens
	Began   time.Time      `json:"began"`
	Due     time.Time      `json:"due"` // the tokens are refreshed from here on
	End     time.Time      `json:"end"` // and after this the session isn't believed without
}

const (
	maxRecord    = 64 << 10         // bytes of a session
	refreshAhead = time.Minute      // before the tokens end, or a quarter of their life when that is shorter
	extendEvery  = time.Minute      // or a quarter of Idle when that is shorter
	fresh        = 2 * time.Second  // how long a session is believed without asking the records
	retryRefresh = 10 * time.Second // after a refresh that the provider did not answer
)

var (
	errRecords  = errors.New("the session's record can't be asked for")
	errTooLarge = errors.New("the session is too large")
)

// take keeps the tokens. How long they are good for is told of the access token; else the ID token's own end counts.
func (s *session) take(t tokens, now time.Time) {
	if t.id != "" {
		s.IDToken = t.id
	}
	if t.refresh != "" {
		s.Refresh = t.refresh
	}
	if s.Refresh == "" {
		return
	}
	lasts := t.lasts
	if lasts == 0 {
		exp, _ := number(s.Claims["exp"])
		lasts = time.Unix(exp, 0).Sub(now)
	}
	lasts = max(lasts, retryRefresh) // so that tokens which end at once don't have each request refresh them
	s.End = now.Add(lasts)
	s.Due = s.End.Add(-min(refreshAhead, lasts/4))
}

func idOf(token string) string {
	sum := sumOf(token)
	return strict.EncodeToString(sum[:])
}

// record is the name of a session's record. Whoever reads it can't make the cookie of it.
func (f *Flow) record(id string) string { return "login/" + f.config.Name + "/" + id }

func (f *Flow) sealSession(token string, s *session) ([]byte, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if len(plain) > maxRecord {
		return nil, errTooLarge
	}
	return f.keys.seal(forSession, token, plain)
}

func (f *Flow) openSession(token string, sealed []byte) (*session, error) {
	plain, err := f.keys.open(forSession, token, sealed)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber()
	s := new(session)
	return s, d.Decode(s)
}

// create writes the record of a new session.
func (f *Flow) create(ctx context.Context, token string, s *session, now time.Time) error {
	sealed, err := f.sealSession(token, s)
	if err != nil {
		return err
	}
	added, err := f.options.Records.Add(ctx, f.record(idOf(token)), sealed, f.lasts(s, now))
	if err != nil {
		return fmt.Errorf("%w: %w", errRecords, err)
	}
	if !added {
		return errRecords
	}
	return nil
}

// lasts is how long a session that is used now stays without another use.
func (f *Flow) lasts(s *session, now time.Time) time.Duration {
	return max(0, min(f.config.Idle, s.Began.Add(f.config.Lifetime).Sub(now)))
}

// resume finds the session of a cookie; nil when there is none.
func (f *Flow) resume(ctx context.Context, token string, now time.Time) (*live, error) {
	l, err := f.load(ctx, token, now)
	if err != nil || l == nil {
		return nil, err
	}
	if f.over(l, now) {
		if err := f.end(ctx, token); err != nil {
			f.options.Log.Debug("session not deleted", "login", f.config.Name, "id", l.id, "error", err)
		}
		return nil, nil
	}
	if l.refreshDue(now) {
		if l, err = f.refresh(ctx, token, l, now); err != nil || l == nil {
			return nil, err
		}
	}
	if f.extendDue(l, now) {
		return f.extend(ctx, l, now)
	}
	return l, nil
}

// over tells whether the session has ended, whatever its record says.
func (f *Flow) over(l *live, now time.Time) bool {
	s := l.session
	return s == nil || !now.Before(s.Began.Add(f.config.Lifetime)) || f.options.Revoked(text(s.Claims, "sub"), l.id, s.Began)
}

// load takes the session from the cache, or from its record.
func (f *Flow) load(ctx context.Context, token string, now time.Time) (*live, error) {
	if l := f.cache.get(sumOf(token)); l != nil && (l.session == nil || !l.stale(now)) {
		return l.orNone(), nil
	}
	return f.once(ctx, "load "+token, func(ctx context.Context) (*live, error) { return f.read(ctx, token, now) })
}

// read reads the record. One that can't be opened is none: it was altered, or the client's secret is another one now.
func (f *Flow) read(ctx context.Context, token string, now time.Time) (*live, error) {
	id := idOf(token)
	sealed, err := f.options.Records.Get(ctx, f.record(id))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecords, err)
	}
	if sealed == nil {
		return nil, nil
	}
	s, err := f.openSession(token, sealed)
	if err != nil {
		f.options.Log.Debug("session record not opened", "login", f.config.Name, "id", id, "error", err)
		return nil, nil
	}
	return f.cache.put(&live{sum: sumOf(token), id: id, session: s, read: now}).orNone(), nil
}

// extend has the session last for another idle time.
func (f *Flow) extend(ctx context.Context, l *live, now time.Time) (*live, error) {
	before := l.pace.extended.Swap(now.UnixNano())
	there, err := f.options.Records.Extend(ctx, f.record(l.id), f.lasts(l.session, now))
	if err != nil {
		l.pace.extended.Store(before)
		return nil, fmt.Errorf("%w: %w", errRecords, err)
	}
	if !there {
		f.cache.end(l.sum)
		return nil, nil
	}
	return l, nil
}

func (f *Flow) extendDue(l *live, now time.Time) bool {
	return now.Sub(time.Unix(0, l.pace.extended.Load())) >= min(extendEvery, f.config.Idle/4)
}

// end deletes the session here and for all, whether it is there or not.
func (f *Flow) end(ctx context.Context, token string) error {
	f.cache.end(sumOf(token))
	if err := f.options.Records.Delete(ctx, f.record(idOf(token))); err != nil {
		return fmt.Errorf("%w: %w", errRecords, err)
	}
	return nil
}

// End deletes the session with that ID, which [Outcome] told; other replicas may know it for two seconds still, unless
// Revoked tells them.
func (f *Flow) End(ctx context.Context, id string) error {
	sum, err := strict.DecodeString(id)
	if err != nil || len(sum) != sha256.Size {
		return errors.New("this is not the ID of a session")
	}
	f.cache.end([sha256.Size]byte(sum))
	if err := f.options.Records.Delete(ctx, f.record(id)); err != nil {
		return fmt.Errorf("%w: %w", errRecords, err)
	}
	return nil
}

// once does something for all who ask for it at the same time. It isn't given up when the first of them leaves.
func (f *Flow) once(ctx context.Context, what string, do func(context.Context) (*live, error)) (*live, error) {
	done := f.flights.DoChan(what, func() (v any, err error) {
		defer func() {
			if r := recover(); r != nil {
				v, err = (*live)(nil), fmt.Errorf("panic: %v", r)
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeTimeout)
		defer cancel()
		return do(ctx)
	})
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case r := <-done:
		l, _ := r.Val.(*live)
		return l, r.Err
	}
}
