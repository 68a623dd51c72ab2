package ratelimit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Busy is a key that many requests ask for.
type Busy struct {
	Limit string  `json:"limit"`
	Value string  `json:"value"` // as in the counter's key: credentials are digests, parts stand between |
	Rate  float64 `json:"rate"`  // requests per second over the last minute, estimated
	Over  float64 `json:"over"`  // the share of them that was refused, or in shadow would have been, from 0 to 1
}

// The busiest keys are told from samples: so many a second at most, in spans that are forgotten after a minute.
const (
	maxSamples = 1000
	busySpan   = 10 * time.Second
	busySpans  = 6
	busyKeys   = 256 // of a span
)

// top is the busiest keys.
type top struct {
	stride atomic.Int64 // one request in so many is a sample, at random
	due    atomic.Int64 // when the stride is to be set anew; in ns since 1970

	mu      sync.Mutex // guards what follows
	begun   time.Time
	now     int // the current span
	until   time.Time
	spans   [busySpans]span
	samples int64 // since the stride was set
}

type span struct {
	sketch
	notes []note // of sketch, by place
}

type note struct {
	limit   string
	refused int64
}

func newTop(now time.Time) *top {
	p := &top{begun: now, until: now.Add(busySpan)}
	p.stride.Store(1)
	for i := range p.spans {
		p.spans[i].sketch = newSketch(busyKeys)
	}
	return p
}

// add takes a sample, and tells how many requests later the next is due.
func (p *top) add(a *ask) int64 {
	stride := p.stride.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.samples++; p.samples >= 2*maxSamples { // a sudden crowd
		p.samples /= 2
		p.stride.Store(2 * stride)
	}
	s := &p.spans[p.now]
	place, fresh := s.add(a.key, stride)
	if place == len(s.notes) {
		s.notes = append(s.notes, note{})
	}
	if fresh {
		s.notes[place] = note{limit: a.limit.Name}
	}
	if a.counted && !a.outcome.Allowed {
		s.notes[place].refused += stride
	}
	return 1 + rand.Int64N(2*stride-1)
}

// tick sets the stride each second by how many requests there were, and begins spans.
func (p *top) tick(now time.Time) {
	due := p.due.Load()
	if now.UnixNano() < due || !p.due.CompareAndSwap(due, now.Add(time.Second).UnixNano()) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stride.Store(max(1, p.samples*p.stride.Load()/maxSamples))
	p.samples = 0
	for n := 0; now.After(p.until) && n < busySpans; n++ {
		p.now = (p.now + 1) % busySpans
		p.spans[p.now] = span{sketch: newSketch(busyKeys)}
		p.until = p.until.Add(busySpan)
	}
	if now.After(p.until) {
		p.until = now.Add(busySpan)
	}
}

// list gives the n busiest.
func (p *top) list(n int, now time.Time) []Busy {
	p.tick(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	covered := (busySpans-1)*busySpan + busySpan - p.until.Sub(now)
	covered = max(time.Second, min(covered, now.Sub(p.begun)))
	type sum struct {
		note
		all int64
	}
	sums := map[string]sum{}
	for _, s := range p.spans {
		for i, key := range s.keys {
			t := sums[key]
			sums[key] = sum{note{s.notes[i].limit, t.refused + s.notes[i].refused}, t.all + s.counts[i]}
		}
	}
	all := make([]Busy, 0, len(sums))
	for key, t := range sums {
		all = append(all, Busy{t.limit, valueOf(key), float64(t.all) / covered.Seconds(), float64(t.refused) / float64(t.all)})
	}
	sortBusy(all)
	return all[:min(max(n, 0), len(all))]
}

// Top gives the n busiest keys of this process, 256 at most.
func (s *Service) Top(n int) []Busy { return s.top.list(n, time.Now()) }
