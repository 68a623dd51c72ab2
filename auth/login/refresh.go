package login

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// A session with a refresh token follows the provider: from a minute before its tokens end, one request refreshes them
// while the others go on. A no of the provider ends the session at once. When the provider doesn't answer, the session
// is good until its tokens end, and then nobody can tell: requests get 503 until the provider is back.

var errForeign = errors.New("the refreshed ID token belongs to another login")

const (
	lockLasts = 30 * time.Second // longer than a refresh may take
	lockLook  = 100 * time.Millisecond
)

// refreshDue tells whether a request has to see to the tokens.
func (l *live) refreshDue(now time.Time) bool {
	s := l.session
	if s.Refresh == "" || now.Before(s.Due) {
		return false
	}
	return l.spent(now) || !l.refreshing.Load() && !l.failedLately(now)
}

// spent tells whether the session isn't good any more without a refresh.
func (l *live) spent(now time.Time) bool { return !now.Before(l.session.End) }

func (l *live) failedLately(now time.Time) bool {
	return now.Sub(time.Unix(0, l.failed.Load())).Abs() < retryRefresh
}

// refresh renews the session's tokens; nil when the session has ended by that.
func (f *Flow) refresh(ctx context.Context, token string, l *live, now time.Time) (*live, error) {
	if l.failedLately(now) {
		return l.unlessSpent(now, errUnreachable)
	}
	return f.once(ctx, "refresh "+token, func(ctx context.Context) (*live, error) {
		l.refreshing.Store(true)
		defer l.refreshing.Store(false)
		return f.renew(ctx, token, l, now)
	})
}

func (l *live) unlessSpent(now time.Time, err error) (*live, error) {
	if l.spent(now) {
		return nil, err
	}
	return l, nil
}

// renew asks the provider, unless another replica is at it or has been: a refresh token may be good for one use, and a
// second one be taken for a theft.
func (f *Flow) renew(ctx context.Context, token string, l *live, now time.Time) (*live, error) {
	lock := f.record(l.id) + "/refresh"
	mine, err := f.options.Records.Add(ctx, lock, []byte{1}, lockLasts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecords, err)
	}
	if !mine {
		return f.await(ctx, lock, token, l, now)
	}
	defer func() {
		if err := f.options.Records.Delete(context.WithoutCancel(ctx), lock); err != nil {
			f.options.Log.Debug("lock of a refresh not deleted", "login", f.config.Name, "error", err)
		}
	}()
	latest, err := f.read(ctx, token, now)
	if err != nil || latest == nil || now.Before(latest.session.Due) {
		return latest, err
	}
	s, err := f.renewed(ctx, latest.session, now)
	if refused, ok := errors.AsType[*refusedError](err); ok && refused.code == "invalid_grant" || errors.Is(err, errForeign) {
		return nil, f.end(ctx, token)
	}
	if err != nil {
		f.options.Log.Debug("session not refreshed", "login", f.config.Name, "id", l.id, "error", err)
		latest.failed.Store(now.UnixNano())
		return latest.unlessSpent(now, err)
	}
	return f.replace(ctx, token, s, now)
}

// await waits for another replica that refreshes the session, if it has to be.
func (f *Flow) await(ctx context.Context, lock, token string, l *live, now time.Time) (*live, error) {
	if !l.spent(now) {
		return l, nil
	}
	look := time.NewTicker(lockLook)
	defer look.Stop()
	for {
		held, err := f.options.Records.Get(ctx, lock)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRecords, err)
		}
		if held == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, errUnreachable
		case <-look.C:
		}
	}
	latest, err := f.read(ctx, token, now)
	if err != nil || latest == nil {
		return nil, err
	}
	if latest.spent(now) {
		latest.failed.Store(now.UnixNano())
	}
	return latest.unlessSpent(now, errUnreachable)
}

// renewed is the session with new tokens. Claims change only with a new ID token.
func (f *Flow) renewed(ctx context.Context, old *session, now time.Time) (*session, error) {
	p := f.metadata(now)
	if p == nil {
		return nil, errUnreachable
	}
	t, err := f.askTokens(ctx, p, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {old.Refresh}})
	if err != nil {
		return nil, err
	}
	s := *old
	if t.id != "" {
		claims, err := f.identify(ctx, p, t)
		if err != nil {
			return nil, err
		}
		nonce, ok := claims["nonce"]
		if claims["sub"] != old.Claims["sub"] || ok && nonce != old.Nonce {
			return nil, errForeign
		}
		if s.Claims, err = f.addUserInfo(ctx, p, t, claims); err != nil {
			return nil, err
		}
	}
	s.take(t, now)
	return &s, nil
}

// replace writes the session, unless it was ended in the meantime.
func (f *Flow) replace(ctx context.Context, token string, s *session, now time.Time) (*live, error) {
	sealed, err := f.sealSession(token, s)
	if err != nil {
		return nil, err
	}
	id := idOf(token)
	there, err := f.options.Records.Replace(ctx, f.record(id), sealed, f.lasts(s, now))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecords, err)
	}
	if !there {
		f.cache.end(sumOf(token))
		return nil, nil
	}
	return f.cache.put(&live{sum: sumOf(token), id: id, session: s, read: now}).orNone(), nil
}
