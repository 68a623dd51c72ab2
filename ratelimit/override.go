package ratelimit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/legation/legation/store"
)

// Units of a descriptor's override. Seven is the week of the answer's units; envoy.type.v3 has none yet.
const (
	unitSecond = 1 + iota
	unitMinute
	unitHour
	unitDay
	unitMonth
	unitYear
	unitWeek
)

// How long a unit is; 0 for one that isn't known. Months and years that stand alone go by the calendar.
var unitLengths = [...]time.Duration{
	unitSecond: time.Second, unitMinute: time.Minute, unitHour: time.Hour, unitDay: day,
	unitMonth: 30 * day, unitYear: 365 * day, unitWeek: 7 * day,
}

// maxOverrides is how many rates that descriptors bring are kept ready for a limit; others are made for each request.
const maxOverrides = 256

// overrides are the rates that descriptors brought for a limit.
type overrides struct {
	rates sync.Map // wireLimit -> *overriding
	kept  atomic.Int32
}

// overriding is a rate in the place of a limit's own. Buckets of another span have keys of their own, since the two may
// be asked for in turn; where only the number differs, what was used holds for both.
type overriding struct {
	*rate
	prefix string
}

// override is the rate that a descriptor brings. One of a unit that isn't known is none: the limit's own holds.
func (l *limit) override(o wireLimit) (*overriding, error) {
	if o.unit <= 0 || int(o.unit) >= len(unitLengths) {
		return nil, nil
	}
	if r, ok := l.brought.rates.Load(o); ok {
		return r.(*overriding), nil
	}
	r, err := newOverriding(&l.Limit, o)
	if err == nil && l.brought.kept.Add(1) <= maxOverrides {
		l.brought.rates.Store(o, r)
	}
	return r, err
}

func newOverriding(l *Limit, o wireLimit) (*overriding, error) {
	n := max(1, int64(o.multiplier))
	next := Rate{Requests: int64(o.requests), Algorithm: l.Algorithm}
	span := ""
	switch length := unitLengths[o.unit]; {
	case n == 1 && o.unit == unitMonth:
		next.Algorithm, next.Period, span = store.Calendar, store.Month, "month"
	case n == 1 && o.unit == unitYear:
		next.Algorithm, next.Period, span = store.Calendar, store.Year, "year"
	case n > int64(store.MaxWindow/length):
		return nil, fmt.Errorf("an override of %d units is longer than %s", n, store.MaxWindow)
	default:
		next.Window = time.Duration(n) * length
		span = next.Window.String()
		if l.Algorithm != store.SlidingWindow {
			next.Algorithm = store.FixedWindow
		}
	}
	blocked := next.Requests == 0
	next.Requests = max(1, next.Requests)
	r, err := newRate(l, next)
	if err != nil {
		return nil, err
	}
	if blocked {
		r.hit.Limit = 0
		r.describe(l.Name)
	}
	prefix := l.Name
	if next.Algorithm != l.Algorithm || next.Window != l.Window || next.Period != l.Period || l.Zone != "" {
		prefix += "@" + span // no limit's name has one
	}
	return &overriding{r, store.Key(prefix)}, nil
}
