package ratelimit

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Report tells who was over a limit in this process, since the limit was loaded as it is or the process began. A limit
// that refuses is told when somebody was refused, one in shadow always.
type Report struct {
	Limit    string    `json:"limit"`
	Rate     string    `json:"rate,omitempty"` // [Rate.String]; empty for limits of plans
	Shadow   bool      `json:"shadow,omitempty"`
	Since    time.Time `json:"since"`
	Requests int64     `json:"requests"`
	Over     int64     `json:"over"` // refused, or in shadow those that would have been
	// Values is how many different values asked (in shadow only), and ValuesOver how many were over; within some 3 %.
	Values     int64 `json:"values,omitempty"`
	ValuesOver int64 `json:"valuesOver"`
	// Peak, in shadow, is the highest count that a value had in a window, of GCRA the largest burst: the limit, or burst,
	// that would have fitted all. Fits99 would have fitted all windows but one in a hundred, within an eighth.
	Peak   int64         `json:"peak,omitempty"`
	Fits99 int64         `json:"fits99,omitempty"`
	Worst  []ValueReport `json:"worst"` // those most often over, at most 100
}

// ValueReport tells of one value.
type ValueReport struct {
	Value string    `json:"value"` // as in the counter's key: credentials are digests, parts stand between |
	Over  int64     `json:"over"`  // at most so often
	Least int64     `json:"least"` // and at least so often: less than Over when many values were over
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Peak  int64     `json:"peak,omitempty"` // in shadow: the limit that would have fitted this value while it was over
}

// maxWorst is how many values a report names.
const maxWorst = 100

// record is what a limit's report is made of.
type record struct {
	mu       sync.Mutex // guards what follows
	since    time.Time
	over     int64
	peak     int64
	worst    sketch
	details  []detail // of worst, by place
	seen     *distinct
	exceeded *distinct
	levels   *levels
}

type detail struct {
	first, last time.Time
	peak        int64
}

func (r *record) reset(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.over, r.peak = now, 0, 0
	r.worst, r.details = newSketch(maxWorst), nil
	r.seen, r.exceeded, r.levels = nil, nil, nil
}

// refuse tells that a limit refused.
func (r *record) refuse(a *ask, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exceed(a, now)
}

// watch tells what a limit in shadow saw.
func (r *record) watch(a *ask, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen, r.levels = newDistinct(), new(levels)
	}
	r.seen.add(a.key)
	count := a.outcome.Count
	r.peak = max(r.peak, count)
	if a.hits > 0 {
		r.levels.pass(count-a.hits, count)
	}
	if !a.outcome.Allowed {
		r.exceed(a, now)
	}
}

// exceed is called with the record locked.
func (r *record) exceed(a *ask, now time.Time) {
	r.over++
	if r.exceeded == nil {
		r.exceeded = newDistinct()
	}
	r.exceeded.add(a.key)
	place, fresh := r.worst.add(a.key, 1)
	if place == len(r.details) {
		r.details = append(r.details, detail{})
	}
	d := &r.details[place]
	if fresh {
		*d = detail{first: now}
	}
	d.last = now
	if a.limit.Shadow {
		d.peak = max(d.peak, a.outcome.Count)
	}
}

// report is a copy of what is known.
func (r *record) report(l *limit) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := Report{
		Limit: l.Name, Rate: l.Rate.String(), Shadow: l.Shadow,
		Since: r.since, Requests: l.figures.requests.Load(), Over: r.over, Peak: r.peak, Worst: []ValueReport{},
	}
	if r.seen != nil {
		p.Values, p.Fits99 = r.seen.count(), r.levels.fits(100)
	}
	if r.exceeded != nil {
		p.ValuesOver = r.exceeded.count()
	}
	for i, key := range r.worst.keys {
		d, n := r.details[i], r.worst.counts[i]
		p.Worst = append(p.Worst, ValueReport{valueOf(key), n, n - r.worst.over[i], d.first, d.last, d.peak})
	}
	sortWorst(p.Worst)
	return p
}

// valueOf is the value in a counter's key.
func valueOf(key string) string {
	_, value, _ := strings.Cut(key, "|")
	return value
}

// Limits are the names of all that is counted, those of plans and domains too, sorted.
func (s *Service) Limits() []string { return slices.Sorted(maps.Keys(s.table.Load().named)) }

// Report tells who was over which limit, sorted by limit.
func (s *Service) Report() []Report {
	var all []Report
	t := s.table.Load()
	for _, l := range t.named {
		p := l.figures.record.report(l)
		if l.planned {
			p.Rate = "" // each plan has its own
		}
		if p.Shadow || p.Over > 0 {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b Report) int { return cmp.Compare(a.Limit, b.Limit) })
	return all
}
