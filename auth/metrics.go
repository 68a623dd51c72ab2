package auth

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	decisions map[string]prometheus.Counter // by result; fixed, so that no request takes a lock for it
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
		decisions: map[string]prometheus.Counter{},
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_auth_check_seconds",
			Help:    "Time taken to decide a request, limits included.",
			Buckets: []float64{25e-6, 50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 1e-2, 25e-3, 5e-2, .1, .25},
		}),
		fetches: f.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_auth_jwks_fetches_total",
			Help: "Fetches of key sets by URL: changed, same, or error.",
		}, []string{"result"}),
	}
	for _, result := range []string{"allow", "bad_request", "unauthenticated", "forbidden", "limited", "unavailable"} {
		m.decisions[result] = decisions.WithLabelValues(result)
	}
	return m
}
