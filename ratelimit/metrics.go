package ratelimit

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/legation/legation/store"
)

// maxLabels is how many limits have figures of their own; those beyond share the name "other".
const maxLabels = 10_000

type metrics struct {
	decisions *prometheus.CounterVec
	unknown   prometheus.Counter
	invalid   prometheus.Counter
	foreign   prometheus.Counter
	unplanned prometheus.Counter
	crossed   *prometheus.CounterVec
	seconds   prometheus.Histogram

	mu      sync.Mutex          // guards what follows
	figures map[string]*figures // by the name of the limit
	labels  []string            // of variants
	wanted  map[string]string   // the IDs of each name's limits in the table that is being made
}

// figures are what is counted of a limit, whichever versions of it there are.
type figures struct {
	name     string // the label
	ids      string // of the limits; the record is begun anew when they change
	requests atomic.Int64
	record   record
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_ratelimit_decisions_total",
			Help: "Decisions by limit and result: ok, over, shadow_over (would have been refused), degraded (passed without the store), error; " +
				"refunded is hits that were given back. " +
				"Without a limit: requests for a limit that isn't loaded (unknown), invalid ones, those that ask for no limit of ours (foreign), " +
				"and those without the plan that they need (unplanned).",
		}, []string{"limit", "result"}),
		crossed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_ratelimit_threshold_total",
			Help: "How often a consumer's quota, of an hour or longer, came to be used up by 80, 90 and 100 %. " +
				"Of leased quotas as far as this process knows them.",
		}, []string{"limit", "threshold"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_ratelimit_request_seconds",
			Help:    "Time to answer a turn: all requests that a connection brought at once, which wait for each other. One observation for each turn.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .015, .025, .05},
		}),
		figures: map[string]*figures{},
	}
	m.unknown = m.decisions.WithLabelValues("", "unknown")
	m.invalid = m.decisions.WithLabelValues("", "invalid")
	m.foreign = m.decisions.WithLabelValues("", "foreign")
	m.unplanned = m.decisions.WithLabelValues("", "unplanned")
	if r != nil {
		r.MustRegister(m.decisions, m.crossed, m.seconds)
	}
	return m
}

// begin begins a table of about n limits; they ask for their figures, and forget drops those of others.
func (m *metrics) begin(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = make(map[string]string, n)
}

// limit gives a limit its figures.
func (m *metrics) limit(l *limit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted[l.Name] += l.mark
	f, ok := m.figures[l.Name]
	if !ok {
		f = &figures{name: l.Name}
		if len(m.figures) >= maxLabels {
			f.name = "other"
		}
		m.figures[l.Name] = f
	}
	over := "over"
	if l.Shadow {
		over = "shadow_over"
	}
	l.figures = f
	if l.quota() {
		for i, percent := range thresholds {
			l.crossed[i] = m.crossed.WithLabelValues(f.name, strconv.Itoa(percent))
		}
	}
	l.ok, l.over = m.decisions.WithLabelValues(f.name, "ok"), m.decisions.WithLabelValues(f.name, over)
}

// keep keeps the figures of a limit that was in the table before.
func (m *metrics) keep(l *limit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted[l.Name] += l.mark
}

func (m *metrics) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, label := range m.labels { // variants are made anew with each table
		m.decisions.DeletePartialMatch(prometheus.Labels{"limit": label})
	}
	defer func() { m.labels, m.wanted = nil, nil }()
	for name, f := range m.figures {
		if ids, ok := m.wanted[name]; ok {
			if ids != f.ids {
				f.ids = ids
				f.requests.Store(0)
				f.record.reset(time.Now())
			}
			continue
		}
		delete(m.figures, name)
		if f.name == name {
			m.decisions.DeletePartialMatch(prometheus.Labels{"limit": name})
			m.crossed.DeletePartialMatch(prometheus.Labels{"limit": name})
		}
	}
}

// variants are copies of a limit with figures of their own, by the values that were asked.
type variants struct {
	limits sync.Map // string -> *limit
	kept   atomic.Int32
}

// Bounds of variants: of a limit, and of the label.
const (
	maxVariants = 500
	maxLabel    = 256
)

// variant gives the limit with the figures of the entries' values; the limit itself when it has too many.
func (m *metrics) variant(l *limit, entries []wireEntry) *limit {
	label := append(make([]byte, 0, 128), l.Name...)
	for _, e := range entries {
		label = append(append(append(append(label, ' '), e.key...), '='), e.value...)
	}
	label = label[:min(len(label), maxLabel)]
	if v, ok := l.variants.limits.Load(string(label)); ok {
		return v.(*limit)
	}
	if l.variants.kept.Load() >= maxVariants {
		return l
	}
	name := strings.ToValidUTF8(string(label), "")
	v := *l
	v.ok, v.over = m.decisions.WithLabelValues(name, "ok"), m.decisions.WithLabelValues(name, "over")
	if l.Shadow {
		v.over = m.decisions.WithLabelValues(name, "shadow_over")
	}
	if _, known := l.variants.limits.LoadOrStore(string(label), &v); !known {
		l.variants.kept.Add(1)
		m.mu.Lock()
		m.labels = append(m.labels, name)
		m.mu.Unlock()
	}
	return &v
}

// result is the counter of a result that is rare.
func (m *metrics) result(l *limit, result string) prometheus.Counter {
	return m.decisions.WithLabelValues(l.figures.name, result)
}

// thresholds of quotas, in percent.
var thresholds = [...]int{80, 90, 100}

// quota tells whether the limit is what a consumer may use in a longer time.
func (l *limit) quota() bool {
	return l.ByConsumer() && !l.Unlimited && !l.Shadow &&
		(l.Algorithm == store.Calendar || l.Algorithm != store.GCRA && l.Window >= time.Hour)
}

// cross counts the thresholds that an ask passed.
func (l *limit) cross(a *ask) {
	size, after := a.outcome.Limit, a.outcome.Count
	before := after - a.hits - a.granted
	for i, percent := range thresholds {
		if at := size * int64(percent); before*100 < at && at <= after*100 {
			l.crossed[i].Inc()
		}
	}
}
