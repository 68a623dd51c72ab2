package ratelimit

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	decisions *prometheus.CounterVec
	unknown   prometheus.Counter
	invalid   prometheus.Counter
	foreign   prometheus.Counter
	seconds   prometheus.Histogram

	mu    sync.Mutex // guards names
	names map[string]bool
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_ratelimit_decisions_total",
			Help: "Decisions by limit and result: ok, over, degraded (passed without the store), error. " +
				"Without a limit: requests for a limit that isn't loaded (unknown), invalid ones, and those that ask for no limit of ours (foreign).",
		}, []string{"limit", "result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_ratelimit_request_seconds",
			Help:    "Time to answer a request.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .015, .025, .05},
		}),
	}
	m.unknown = m.decisions.WithLabelValues("", "unknown")
	m.invalid = m.decisions.WithLabelValues("", "invalid")
	m.foreign = m.decisions.WithLabelValues("", "foreign")
	if r != nil {
		r.MustRegister(m.decisions, m.seconds)
	}
	return m
}

// forget drops the figures of limits that are no longer in the table.
func (m *metrics) forget(names map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range m.names {
		if !names[n] {
			m.decisions.DeletePartialMatch(prometheus.Labels{"limit": n})
		}
	}
	m.names = names
}
