package auth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxShown is how many key sets have metrics of their own; the first by URL.
const maxShown = 64

// keySetMetrics tells of the fetched key sets, by URL, what they are at the moment that somebody asks.
type keySetMetrics struct {
	health      func() []JWKSHealth
	age, failed *prometheus.Desc
}

func newKeySetMetrics(health func() []JWKSHealth) *keySetMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"url"}, nil)
	}
	return &keySetMetrics{
		health: health,
		age:    desc("legation_auth_jwks_age_seconds", "Time since the key set was last fetched well; it serves for 24 hours. Absent before the first time."),
		failed: desc("legation_auth_jwks_failing", "Whether the last fetch of the key set went wrong."),
	}
}

// Describe is for the registry.
func (m *keySetMetrics) Describe(to chan<- *prometheus.Desc) { to <- m.age; to <- m.failed }

// Collect is for the registry. URLs that differ in their queries only, which are not shown, are told as one, at its worst.
func (m *keySetMetrics) Collect(to chan<- prometheus.Metric) {
	var shown []JWKSHealth
	for _, h := range m.health() { // sorted by URL
		last := len(shown) - 1
		switch {
		case last < 0 || shown[last].URL != h.URL:
			shown = append(shown, h)
		case shown[last].Fetched.IsZero() || !h.Fetched.IsZero() && h.Fetched.Before(shown[last].Fetched):
			h.Stale = h.Stale || shown[last].Stale
			shown[last] = h
		default:
			shown[last].Stale = shown[last].Stale || h.Stale
		}
	}
	for _, h := range shown[:min(len(shown), maxShown)] {
		failing := 0.0
		if h.Stale {
			failing = 1
		}
		to <- prometheus.MustNewConstMetric(m.failed, prometheus.GaugeValue, failing, h.URL)
		if !h.Fetched.IsZero() {
			to <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, time.Since(h.Fetched).Seconds(), h.URL)
		}
	}
}
