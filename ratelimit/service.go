package ratelimit

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/legation/legation/store"
)

// Options of [New].
type Options struct {
	Store   store.Store // nil: an embedded store
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service decides whether requests are within their limits.
type Service struct {
	store   store.Store
	local   store.Store // takes over for limits whose OnError is Local
	log     *slog.Logger
	metrics *metrics
	table   atomic.Pointer[table]
}

// New gives a service without limits; [Service.Load] brings them.
func New(o Options) *Service {
	s := &Service{store: o.Store, log: o.Log, metrics: newMetrics(o.Metrics)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.local = store.Local(s.store)
	if s.store == nil {
		s.store = s.local
	}
	s.table.Store(newTable(nil, s.metrics))
	return s
}

// Close ends the store of its own, not that of the options.
func (s *Service) Close() error { return s.local.Close() }

// Load replaces the table. Limits that can't be counted are left out, so that requests for them are answered
// UNAVAILABLE.
func (s *Service) Load(t Table) {
	good := make([]Limit, 0, len(t.Limits))
	for _, l := range t.Limits {
		if err := l.Validate(); err != nil {
			s.log.Error("limit left out", "error", err)
			continue
		}
		good = append(good, l)
	}
	s.table.Store(newTable(good, s.metrics))
	s.log.Debug("limits loaded", "limits", len(good))
}

// Verdict is the answer for one request.
type Verdict struct {
	Allowed    bool
	Limit      string // the name of the limit that refused
	Headers    []Field
	RetryAfter time.Duration
	Status     int  // 200; 429 over a limit; 503 when it isn't known, or the store can't answer and onError is deny
	Degraded   bool // the store couldn't answer
}

// Field is a header of the response.
type Field struct{ Name, Value string }

// Count counts one request against the limits of ids, all or none; hits 0 asks without counting.
func (s *Service) Count(ctx context.Context, ids []string, a Attributes, hits int64) Verdict {
	start := time.Now()
	defer func() { s.metrics.seconds.Observe(time.Since(start).Seconds()) }()
	t := s.table.Load()
	d := decision{asks: make([]ask, 0, len(ids))}
	for _, id := range ids {
		l := t.limits[id]
		if l == nil {
			s.metrics.unknown.Inc()
			return Verdict{Status: 503, Limit: id, RetryAfter: time.Second}
		}
		if a.Anonymous && !l.byAddress() {
			continue
		}
		d.add(l, l.key(a.value), hits)
	}
	err := s.decide(ctx, &d)
	v := Verdict{Allowed: d.refused == nil && err == nil, Degraded: d.degraded, Status: 200}
	switch {
	case err != nil:
		v.Status, v.RetryAfter = 503, time.Second
	case d.refused != nil:
		v.Status, v.Limit, v.RetryAfter = 429, d.refused.limit.Name, d.refused.outcome.RetryAfter
	}
	v.Headers = d.headers()
	return v
}

// ask is a limit's part in a decision.
type ask struct {
	limit   *limit
	counted bool // false when the store couldn't answer and onError lets the request pass
	outcome store.Outcome
}

// decision is the limits of one request.
type decision struct {
	asks     []ask
	hits     []store.Hit // one for each ask
	degraded bool
	refused  *ask // the one to wait for the longest
}

func (d *decision) add(l *limit, key string, hits int64) {
	d.asks = append(d.asks, ask{limit: l})
	d.hits = append(d.hits, l.hit(key, hits))
}

// errDenied is for limits whose OnError is Deny.
var errDenied = errors.New("the store can't answer")

// decide counts; an error means that there is no decision.
func (s *Service) decide(ctx context.Context, d *decision) error {
	if len(d.asks) == 0 {
		return nil
	}
	outcomes, err := s.store.Count(ctx, d.hits)
	switch {
	case err == nil:
		for i := range outcomes {
			d.asks[i].counted, d.asks[i].outcome = true, outcomes[i]
		}
	case errors.Is(err, store.ErrInvalid):
		return err
	default:
		if err := s.degrade(ctx, d); err != nil {
			return err
		}
	}
	for i := range d.asks {
		a := &d.asks[i]
		over := a.counted && !a.outcome.Allowed
		if over && (d.refused == nil || a.outcome.RetryAfter > d.refused.outcome.RetryAfter) {
			d.refused = a
		}
		switch {
		case over:
			a.limit.over.Inc()
		case d.degraded:
			s.metrics.decisions.WithLabelValues(a.limit.Name, "degraded").Inc()
		default:
			a.limit.ok.Inc()
		}
	}
	return nil
}

// degrade decides without the store.
func (s *Service) degrade(ctx context.Context, d *decision) error {
	d.degraded = true
	var local []store.Hit
	var at []int
	for i := range d.asks {
		switch d.asks[i].limit.OnError {
		case Deny:
			s.metrics.decisions.WithLabelValues(d.asks[i].limit.Name, "error").Inc()
			return errDenied
		case Local:
			local, at = append(local, d.hits[i]), append(at, i)
		}
	}
	if len(local) == 0 {
		return nil
	}
	outcomes, err := s.local.Count(ctx, local)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		d.asks[at[i]].counted, d.asks[at[i]].outcome = true, o
	}
	return nil
}

// headers tells of the limit that refused, else of the one nearest to exhaustion, in the names of
// draft-ietf-httpapi-ratelimit-headers-03.
func (d *decision) headers() []Field {
	a := d.refused
	for i := range d.asks {
		if b := &d.asks[i]; d.refused == nil && b.counted && (a == nil || nearer(b.outcome, a.outcome)) {
			a = b
		}
	}
	if a == nil {
		return nil
	}
	h := make([]Field, 0, 4)
	h = append(h,
		Field{"RateLimit-Limit", strconv.FormatInt(a.outcome.Limit, 10)},
		Field{"RateLimit-Remaining", strconv.FormatInt(a.outcome.Remaining, 10)},
		Field{"RateLimit-Reset", seconds(a.outcome.Reset)})
	if d.refused != nil {
		h = append(h, Field{"Retry-After", seconds(max(a.outcome.RetryAfter, time.Second))})
	}
	return h
}

// nearer tells whether a smaller share is left of a than of b.
func nearer(a, b store.Outcome) bool {
	return float64(a.Remaining)*float64(b.Limit) < float64(b.Remaining)*float64(a.Limit)
}

// seconds is d in whole seconds, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64(math.Ceil(d.Seconds())), 10)
}
