package ratelimit

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxLabels is how many limits have figures of their own; those beyond share the name "other".
const maxLabels = 10_000

type metrics struct {
	decisions *prometheus.CounterVec
	unknown   prometheus.Counter
	invalid   prometheus.Counter
	foreign   prometheus.Counter
	unplanned prometheus.Counter
	seconds   prometheus.Histogram

	mu      sync.Mutex          // guards what follows
	figures map[string]*figures // by the name of the limit
	wanted  map[string]bool     // by the table that is being made
}

// figures are what is counted of a limit, whichever versions of it there are.
type figures struct {
	name string // the label
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_ratelimit_decisions_total",
			Help: "Decisions by limit and result: ok, over, shadow_over (would have been refused), degraded (passed without the store), error. " +
				"Without a limit: requests for a limit that isn't loaded (unknown), invalid ones, those that ask for no limit of ours (foreign), " +
				"and those without the plan that they need (unplanned).",
		}, []string{"limit", "result"}),
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
		r.MustRegister(m.decisions, m.seconds)
	}
	return m
}

// begin begins a table; its limits ask for their figures, and forget drops those of others.
func (m *metrics) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = map[string]bool{}
}

// limit gives a limit its figures.
func (m *metrics) limit(l *limit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted[l.Name] = true
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
	l.ok, l.over = m.decisions.WithLabelValues(f.name, "ok"), m.decisions.WithLabelValues(f.name, over)
}

func (m *metrics) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, f := range m.figures {
		if m.wanted[name] {
			continue
		}
		delete(m.figures, name)
		if f.name == name {
			m.decisions.DeletePartialMatch(prometheus.Labels{"limit": name})
		}
	}
}

// result is the counter of a result that is rare.
func (m *metrics) result(l *limit, result string) prometheus.Counter {
	return m.decisions.WithLabelValues(l.figures.name, result)
}
