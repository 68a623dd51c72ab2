package auth

import (
	"context"
	"errors"
	"slices"
	"time"
)

// ErrUndecided is what [Service.Verify] wraps where a token may be good, but can't be judged now.
var ErrUndecided = errors.New("it can't be judged now")

// Verify judges a token that no request brought, such as that of an Envoy which asks for its configuration, by the JWT
// providers of a rule and the code that judges those of requests. It returns what the token claims, and when it ends, skew
// included. A claim may be any that JSON has; nothing is asked of its subject but that it is a text. An error holds
// nothing of the token.
func (s *Service) Verify(ctx context.Context, rule, raw string) (claims map[string]any, expires time.Time, err error) {
	r := s.table.Load().rules[rule]
	if r == nil || raw == "" {
		return nil, time.Time{}, errMalformed
	}
	var d decision
	u, err := d.parseToken(raw)
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, p := range r.providers {
		w, ok := p.way.(*tokens)
		if !ok {
			continue
		}
		j := &judging{tokens: w, unverified: u}
		if err = j.verify(ctx); err == nil {
			return u.claims, j.expires, nil
		}
	}
	if undecided(err) {
		err = errors.Join(ErrUndecided, err)
	}
	return nil, time.Time{}, err
}

// verify takes all hurdles but the last, which is of consumers. It waits for a key that may come.
func (j *judging) verify(ctx context.Context) error {
	hurdles := slices.Concat(atOnce, withKeys[:len(withKeys)-1])
	err := j.take(hurdles)
	if err != error(errKey) {
		return err
	}
	soon := j.source.missed(time.Now())
	if soon == nil || !j.worthWaiting(time.Now()) {
		return err
	}
	patience := time.NewTimer(fetchTimeout)
	defer patience.Stop()
	select {
	case <-soon:
	case <-patience.C:
	case <-ctx.Done():
	}
	return j.take(hurdles)
}

func (j *judging) take(hurdles []hurdle) error {
	for _, h := range hurdles {
		if err := h.run(j, time.Now()); err != nil {
			return err
		}
	}
	return nil
}
