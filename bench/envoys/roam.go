package envoys

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"time"
)

// The retries of legation's bootstrap.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Roam keeps an Envoy connected to one of several control planes, until ctx ends, as legation's bootstrap has it do: it begins
// with any of them, takes the next one each time, and waits between tries, at random up to a bound that grows. It tells of each
// stream that has got all that was asked for.
func Roam(ctx context.Context, addresses []string, c *tls.Config, s *Script, joined func(address string)) {
	bound := firstRetry
	for at := rand.N(len(addresses)); ctx.Err() == nil; at++ {
		address := addresses[at%len(addresses)]
		if roamOnce(ctx, address, c, s, joined) {
			bound = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(bound)):
		}
		bound = min(2*bound, lastRetry)
	}
}

// roamOnce follows one stream to its end, and tells whether it was of use.
func roamOnce(ctx context.Context, address string, c *tls.Config, s *Script, joined func(address string)) (whole bool) {
	told := make(chan Arrival)
	e, err := dial(address, s.path, c, wideWindow, told)
	if err != nil {
		return false
	}
	defer context.AfterFunc(ctx, e.Close)()
	defer e.Close()
	next := s.join(e)
	if e.Flush() != nil {
		return false
	}
	go e.follow(s, next)
	for a := range told {
		if a.Err != nil {
			return whole
		}
		if !whole && a.URL == s.Last() {
			whole = true
			joined(address)
		}
	}
	return whole
}
