package xds

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	responses *prometheus.CounterVec
	nacks     *prometheus.CounterVec
	publish   prometheus.Histogram

	roster *roster // what is told in words
}

// newMetrics registers with r, which may be nil.
func newMetrics(r prometheus.Registerer, s *Server) *metrics {
	m := &metrics{
		roster: newRoster(),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_xds_responses_total",
			Help: "Responses sent to Envoys.",
		}, []string{"group", "type"}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_xds_nacks_total",
			Help: "Responses that an Envoy rejected.",
		}, []string{"group", "type"}),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_xds_publish_seconds",
			Help:    "Time from a publish until all Envoys have acknowledged it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	if r != nil {
		r.MustRegister(m.responses, m.nacks, m.publish, streamGauge{s, prometheus.NewDesc(
			"legation_xds_streams", "Connected Envoys.", []string{"group"}, nil)})
	}
	return m
}

// streamGauge counts the streams when it is asked. A group has a label of its own only while it is served, so that
// names made up by a client never become labels.
type streamGauge struct {
	s    *Server
	desc *prometheus.Desc
}

func (g streamGauge) Describe(c chan<- *prometheus.Desc) { c <- g.desc }

func (g streamGauge) Collect(c chan<- prometheus.Metric) {
	for name, n := range g.s.sizes() {
		c <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(n), name)
	}
}

// sizes is the number of streams by group; those of groups that are not served are under "".
func (s *Server) sizes() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sizes := map[string]int{}
	for name, g := range s.groups {
		if g.served.Load() == nil {
			name = ""
		}
		sizes[name] += g.size
	}
	return sizes
}
