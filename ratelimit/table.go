package ratelimit

import (
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/legation/legation/store"
)

// table is the limits by ID and by name; immutable.
type table struct {
	limits map[string]*limit
}

// limit is a Limit with what each request would have to work out again.
type limit struct {
	Limit
	entries []string // keys of the descriptor entries, one for each By
	proto   *rls.RateLimitResponse_RateLimit
	ok      prometheus.Counter
	over    prometheus.Counter
}

func newTable(limits []Limit, m *metrics) *table {
	t := &table{limits: make(map[string]*limit, 2*len(limits))}
	names := make(map[string]bool, len(limits))
	for _, l := range limits {
		c := &limit{
			Limit: l,
			proto: currentLimit(l),
			ok:    m.decisions.WithLabelValues(l.Name, "ok"),
			over:  m.decisions.WithLabelValues(l.Name, "over"),
		}
		for _, b := range l.By {
			c.entries = append(c.entries, b.Entry())
		}
		t.limits[l.ID()] = c
		t.limits[l.Name] = c
		names[l.Name] = true
	}
	m.forget(names)
	return t
}

// key is the bucket's; value gives the value of a part.
func (l *limit) key(value func(By) string) string {
	var room [8]string
	parts := append(room[:0], l.Name)
	for _, b := range l.By {
		parts = append(parts, b.keyPart(value(b)))
	}
	return store.Key(parts...)
}

// units of the answer's current_limit, the longest first; a month or a year isn't the same length each time.
var units = []struct {
	unit   rls.RateLimitResponse_RateLimit_Unit
	length time.Duration
}{
	{rls.RateLimitResponse_RateLimit_WEEK, 7 * 24 * time.Hour},
	{rls.RateLimitResponse_RateLimit_DAY, 24 * time.Hour},
	{rls.RateLimitResponse_RateLimit_HOUR, time.Hour},
	{rls.RateLimitResponse_RateLimit_MINUTE, time.Minute},
	{rls.RateLimitResponse_RateLimit_SECOND, time.Second},
}

// currentLimit says what Envoy can say of l; a window that isn't whole seconds has no unit.
func currentLimit(l Limit) *rls.RateLimitResponse_RateLimit {
	p := &rls.RateLimitResponse_RateLimit{Name: l.Name, RequestsPerUnit: clamp(l.Requests)}
	for _, u := range units {
		if l.Window%u.length != 0 {
			continue
		}
		p.Unit = u.unit
		if n := l.Window / u.length; n > 1 {
			p.UnitMultiplier = wrapperspb.UInt32(clamp(int64(n)))
		}
		return p
	}
	return p
}

// clamp is n as far as uint32 goes.
func clamp(n int64) uint32 {
	return uint32(min(max(n, 0), 1<<32-1))
}
