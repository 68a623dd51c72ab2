package auth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// result is what became of a request, for the metric.
type result int

const (
	resultAllow result = iota
	resultBadRequest
	resultUnauthenticated
	resultForbidden
	resultLimited
	resultUnavailable
	resultAnswered
	results // how many there are
)

func (r result) String() string {
	return [results]string{"allow", "bad_request", "unauthenticated", "forbidden", "limited", "unavailable", "answered"}[r]
}

type metrics struct {
	decisions [results]prometheus.Counter // fixed, so that no request takes a lock for it
	seconds   prometheus.Histogram
	fetches   *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	decisions := f.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_auth_decisions_total",
		Help: "Requests decided: allow, or why not.",
	}, []string{"result"})
	m := &metrics{
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_auth_check_seconds",
			Help:    "Time taken to decide a request, limits included. Of requests that are decided together each has the time of all.",
			Buckets: []float64{25e-6, 50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 1e-2, 25e-3, 5e-2, .1, .25},
		}),
		fetches: f.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_auth_jwks_fetches_total",
			Help: "Fetches of key sets by URL: changed, same, or error.",
		}, []string{"result"}),
	}
	for r := range results {
		m.decisions[r] = decisions.WithLabelValues(r.String())
	}
	return m
}

// observe tells of requests that were decided together in a time.
func (m *metrics) observe(decisions []*decision, took time.Duration) {
	var n [results]int
	for _, d := range decisions {
		switch {
		case d.unread:
			continue
		case d.deny == nil:
			n[resultAllow]++
		default:
			n[d.deny.result]++
		}
		m.seconds.Observe(took.Seconds())
	}
	for r, n := range n {
		if n > 0 {
			m.decisions[r].Add(float64(n))
		}
	}
}
