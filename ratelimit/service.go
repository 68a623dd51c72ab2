package ratelimit

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

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
	keys    interner
	top     *top
}

// New gives a service without limits; [Service.Load] brings them.
func New(o Options) *Service {
	s := &Service{store: o.Store, log: o.Log, metrics: newMetrics(o.Metrics), keys: interner{seed: maphash.MakeSeed()}, top: newTop(time.Now())}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.local = store.Local(s.store)
	if s.store == nil {
		s.store = s.local
	}
	s.table.Store(new(table))
	return s
}

// Close ends the store of its own, not that of the options.
func (s *Service) Close() error { return s.local.Close() }

// Load replaces the table. Limits that can't be counted are left out, so that requests for them are answered
// UNAVAILABLE. The lists belong to the service from now on: where all are the very same as before, nothing has changed, and
// limits of an ID that the old table has are not made ready again.
func (s *Service) Load(t Table) {
	old := s.table.Load()
	if unchanged(t.Limits, old.from.Limits) && unchanged(t.Plans, old.from.Plans) && unchanged(t.Domains, old.from.Domains) {
		return
	}
	ready, err := newTable(t, s.metrics, old)
	if err != nil {
		s.log.Error("limits left out", "error", err)
	}
	s.table.Store(ready)
	s.log.Debug("limits loaded", "limits", len(t.Limits), "plans", len(t.Plans))
}

// unchanged tells whether two lists are the very same.
func unchanged[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// Ask is one request that is to be counted against the limits of IDs, all or none.
type Ask struct {
	IDs        []string // limits, by ID or name
	Attributes Attributes
	Hits       int64 // 0 asks without counting; below 0 gives back
	Verdict    Verdict
}

// Verdict is the answer for one request.
type Verdict struct {
	Allowed    bool
	Limit      string // the name of the limit that refused; "plan" where the plan is missing that is required
	Headers    []Field
	RetryAfter time.Duration
	Status     int    // 200; 429 over a limit; 403 without the plan; 503 when it isn't known, or the store can't answer and onError is deny
	Degraded   bool   // the store couldn't answer
	Shadow     string // the name of a limit in shadow that would have refused
}

// Field is a header of the response.
type Field struct{ Name, Value string }

// CountAll answers all asks with one trip to the store.
func (s *Service) CountAll(asks []Ask) {
	t := s.begin()
	defer s.end(t)
	for i := range asks {
		s.readAsk(t, t.next(), &asks[i])
	}
	s.decide(t)
	for i := range asks {
		asks[i].Verdict = t.verdict(t.decisions[i])
	}
}

// Count is [Service.CountAll] for one request. It takes as long as the store may, whatever the context says: what is
// under way is charged.
func (s *Service) Count(_ context.Context, ids []string, a Attributes, hits int64) Verdict {
	asks := []Ask{{IDs: ids, Attributes: a, Hits: hits}}
	s.CountAll(asks)
	return asks[0].Verdict
}

// readAsk finds the limits of an ask.
func (s *Service) readAsk(t *turn, d *decision, q *Ask) {
	a := &q.Attributes
	p := t.table.plan(a)
	for _, id := range q.IDs {
		l := t.table.limits[id]
		switch {
		case l == nil:
			s.metrics.unknown.Inc()
			d.unknown = id
			d.fail(codes.Unavailable, "limit isn't loaded here")
			return
		case a.Anonymous && !l.byAddress(), p != nil && l.ByConsumer():
			continue
		}
		s.addAsk(t, d, l, q)
	}
	switch {
	case p != nil:
		for _, l := range p.limits {
			s.addAsk(t, d, l, q)
		}
	case a.Plans == PlanRequired && !a.Anonymous:
		s.metrics.unplanned.Inc()
		d.fail(codes.PermissionDenied, "plan")
	}
}

func (s *Service) addAsk(t *turn, d *decision, l *limit, q *Ask) {
	key, r := l.bucket(t.key[:0], l.prefix, &q.Attributes)
	t.key = key
	d.add(l, r, s.keys.get(key), q.Hits, 0)
}

// plan is the plan that the request counts against; nil: none.
func (t *table) plan(a *Attributes) *plan {
	if a.Plans == NoPlan || a.Anonymous || a.Plan == "" {
		return nil
	}
	return t.plans[a.Plan]
}

func (t *turn) verdict(d *decision) Verdict {
	v := Verdict{Allowed: d.code == codes.OK && d.refused < 0, Degraded: d.degraded, Status: 200}
	switch {
	case d.code == codes.PermissionDenied:
		v.Status, v.Limit = 403, d.text
		return v
	case d.code != codes.OK:
		v.Status, v.RetryAfter = 503, time.Second
		v.Limit = d.unknown
		return v
	case d.refused >= 0:
		a := &d.asks[d.refused]
		v.Status, v.Limit, v.RetryAfter = 429, a.limit.Name, a.outcome.RetryAfter
	}
	if d.shadow != nil {
		v.Shadow = d.shadow.Name
	}
	t.headers.of(d)
	v.Headers = t.headers.fields()
	return v
}
