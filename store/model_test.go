package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// model is a store as the contract says it in the plainest words: it keeps every hit, and works everything out anew.
type model struct{ buckets map[bucketKey][]event }

// event is hits that were counted at a time.
type event struct{ at, hits int64 }

func (m *model) decide(hits []Hit, now int64) []Outcome {
	before := maps.Clone(m.buckets)
	passes := true
	var charged, asked []Outcome
	for _, h := range hits {
		k := bucketKey{h.Key, h.Algorithm}
		was := m.buckets[k]
		o := m.outcome(h, was, now)
		if o.Allowed || h.Beyond {
			m.buckets[k] = m.count(h, was, now)
		}
		passes = passes && (o.Allowed || h.Beyond)
		asked = append(asked, o)
		o = m.tell(o, h, m.buckets[k], now)
		charged = append(charged, o)
	}
	if passes {
		return charged
	}
	m.buckets = before
	return asked
}

// outcome is the answer of a bucket before the hit.
func (m *model) outcome(h Hit, events []event, now int64) Outcome {
	o := m.tell(Outcome{Limit: h.size()}, h, events, now)
	n := max(1, h.Hits)
	o.Allowed = h.Hits < 0 || m.left(h, events, now) >= n
	if o.Allowed {
		return o
	}
	// It is allowed at the first moment from which nothing else happens and there is room.
	for _, at := range m.moments(h, events, now) {
		if at > now && m.left(h, events, at) >= n {
			o.RetryAfter = time.Duration(at-now) * time.Microsecond
			return o
		}
	}
	o.RetryAfter = -1 // never
	return o
}

func (m *model) tell(o Outcome, h Hit, events []event, now int64) Outcome {
	o.Count = m.counted(h, events, now)
	o.Remaining = max(0, o.Limit-o.Count)
	o.Reset = 0
	switch h.Algorithm {
	case FixedWindow, Calendar:
		_, end := m.window(h, now)
		o.Reset = time.Duration(end-now) * time.Microsecond
	case GCRA:
		o.Reset = time.Duration(m.level(h, events, now)) * time.Microsecond
	case SlidingWindow:
		for _, e := range events {
			if left := m.leaves(h, e); left > now && e.hits > 0 {
				o.Reset = max(o.Reset, time.Duration(left-now)*time.Microsecond)
			}
		}
	}
	return o
}

func (m *model) left(h Hit, events []event, now int64) int64 {
	return h.size() - m.counted(h, events, now)
}

func (m *model) counted(h Hit, events []event, now int64) int64 {
	if h.Algorithm == GCRA {
		// A bucket's drop has drained when less than a microsecond of it is left.
		every := h.Window.Microseconds() / h.Limit
		return max(0, (m.level(h, events, now)-1+every-1)/every)
	}
	n := int64(0)
	for _, e := range events {
		if m.holds(h, e, now) {
			n += e.hits
		}
	}
	return n
}

func (m *model) holds(h Hit, e event, now int64) bool {
	if h.Algorithm == SlidingWindow {
		return m.leaves(h, e) > now
	}
	start, end := m.window(h, now)
	return start <= e.at && e.at < end
}

// leaves is when a hit leaves a sliding window: the window's length after the end of the unit that it came in.
func (m *model) leaves(h Hit, e event) int64 {
	w := h.Window.Microseconds()
	unit := 1 + (w-1)/(1<<24)
	return (e.at+unit-1)/unit*unit + w
}

func (m *model) window(h Hit, now int64) (start, end int64) {
	if h.Algorithm == Calendar {
		at := time.UnixMicro(now).UTC()
		day := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
		return day.UnixMicro(), day.AddDate(0, 0, 1).UnixMicro()
	}
	w := h.Window.Microseconds()
	return now / w * w, now/w*w + w
}

// level is how many µs a GCRA bucket takes to drain.
func (m *model) level(h Hit, events []event, now int64) int64 {
	level, last := int64(0), int64(0)
	every := h.Window.Microseconds() / h.Limit
	for _, e := range events {
		level = max(0, level-(e.at-last))
		level = max(0, level+e.hits*every)
		last = e.at
	}
	return max(0, level-(now-last))
}

// count adds the hits, or takes them from the latest.
func (m *model) count(h Hit, events []event, now int64) []event {
	if h.Hits >= 0 || h.Algorithm == GCRA {
		return append(slices.Clip(events), event{now, h.Hits})
	}
	after := slices.Clone(events)
	back := -h.Hits
	for i := range slices.Backward(after) {
		if m.holds(h, after[i], now) {
			n := min(back, after[i].hits)
			after[i].hits -= n
			back -= n
		}
	}
	return after
}

// moments are when something may leave the bucket, in order.
func (m *model) moments(h Hit, events []event, now int64) []int64 {
	var all []int64
	switch h.Algorithm {
	case FixedWindow, Calendar:
		_, end := m.window(h, now)
		all = append(all, end)
	case SlidingWindow:
		for _, e := range events {
			all = append(all, m.leaves(h, e))
		}
	case GCRA:
		every := h.Window.Microseconds() / h.Limit
		level := m.level(h, events, now)
		for free := int64(0); free <= h.Burst; free++ {
			all = append(all, now+level-(h.Burst-free)*every)
		}
		if h.Hits <= h.Burst {
			all = append(all, now+level)
		}
	}
	slices.Sort(all)
	return all
}

// TestEmbeddedIsAsTheModel gives both the same decisions at random, over a clock that steps and leaps.
func TestEmbeddedIsAsTheModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		now := start.UnixMicro() + rnd.Int64N(1e12)
		e := newEmbedded(Options{}, clock{func() int64 { return now }})
		m := &model{map[bucketKey][]event{}}
		limit := []int64{1, 5, 40}[rnd.IntN(3)]
		window := []time.Duration{10 * time.Millisecond, 999 * time.Millisecond, time.Minute}[rnd.IntN(3)]
		for step := range 300 {
			now += []int64{0, 0, 1, rnd.Int64N(1000), rnd.Int64N(window.Microseconds()), rnd.Int64N(3 * window.Microseconds())}[rnd.IntN(6)]
			d := Decision{Hits: randomHits(rnd, limit, window)}
			e.Decide([]*Decision{&d})
			want := m.decide(d.Hits, now)
			for i := range want {
				if want[i].RetryAfter < 0 { // never: any time will do
					want[i].RetryAfter = max(time.Microsecond, d.Outcomes[i].RetryAfter)
				}
				if !want[i].Allowed && d.Hits[i].Algorithm == GCRA {
					early := d.Outcomes[i].RetryAfter - want[i].RetryAfter
					if early == 0 || early == -time.Microsecond {
						want[i].RetryAfter = d.Outcomes[i].RetryAfter // a microsecond before the drop has drained
					}
				}
			}
			if diff := cmp.Diff(want, d.Outcomes); diff != "" || d.Err != nil {
				t.Fatalf("seed %d, step %d, %+v: %v (-model +embedded)\n%s", seed, step, d.Hits, d.Err, diff)
			}
		}
	}
}

// randomHits has one to four hits of three keys and all algorithms; GCRA's interval is whole microseconds.
func randomHits(rnd *rand.Rand, limit int64, window time.Duration) []Hit {
	hits := make([]Hit, 1+rnd.IntN(4))
	for i := range hits {
		h := Hit{Key: fmt.Sprint(rnd.IntN(3)), Algorithm: Algorithm(rnd.IntN(4)), Limit: limit, Window: window, Hits: rnd.Int64N(4)}
		switch {
		case h.Algorithm == GCRA:
			h.Limit, h.Burst = window.Milliseconds(), limit
		case rnd.IntN(8) == 0:
			h.Limit = 1 + rnd.Int64N(2*limit) // it was changed
		}
		switch rnd.IntN(10) {
		case 0:
			h.Hits = -h.Hits
		case 1:
			h.Hits = limit
		case 2:
			h.Hits = -limit
		case 3:
			h.Beyond = true
		}
		hits[i] = h
	}
	return hits
}
