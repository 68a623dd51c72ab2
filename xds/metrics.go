package xds

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	responses *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	nacks     *prometheus.CounterVec
	floods    prometheus.Counter
	away      prometheus.Counter
	answered  prometheus.Histogram
	publish   prometheus.Histogram
}

// newMetrics registers with r, which may be nil.
func newMetrics(r prometheus.Registerer, s *Server) *metrics {
	m := &metrics{
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_xds_responses_total",
			Help: "Responses sent to Envoys.",
		}, []string{"group", "type"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_xds_sent_bytes_total",
			Help: "Bytes of the responses sent to Envoys.",
		}, []string{"group", "type"}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_xds_nacks_total",
			Help: "Responses that an Envoy rejected.",
		}, []string{"group", "type"}),
		floods: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "legation_xds_floods_total",
			Help: "Streams that were ended because they asked too often.",
		}),
		away: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "legation_xds_sent_away_total",
			Help: "Streams that were ended so that their Envoys connect to control planes that have fewer.",
		}),
		answered: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_xds_answer_seconds",
			Help:    "Time from a response until the Envoy has acknowledged or rejected it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_xds_publish_seconds",
			Help:    "Time from a publish until all Envoys have acknowledged it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	if r != nil {
		r.MustRegister(m.responses, m.bytes, m.nacks, m.floods, m.away, m.answered, m.publish, newFleet(s))
	}
	return m
}

// sent counts a response.
func (m *metrics) sent(t *subscription, g *group, size int) {
	if t.responses == nil {
		t.responses, t.bytes = m.responses.WithLabelValues(g.name, t.kind.short), m.bytes.WithLabelValues(g.name, t.kind.short)
	}
	t.responses.Inc()
	t.bytes.Add(float64(size))
}

// fleet counts the streams, and what is parked on them, when it is asked. A group has a label of its own only while it is
// served, so that names made up by a client never become labels.
type fleet struct {
	s               *Server
	streams, parked *prometheus.Desc
}

func newFleet(s *Server) fleet {
	return fleet{
		s,
		prometheus.NewDesc("legation_xds_streams", "Connected Envoys.", []string{"group"}, nil),
		prometheus.NewDesc("legation_xds_parked", "Resources that an Envoy has rejected and is not sent again until they change.", []string{"group"}, nil),
	}
}

func (f fleet) Describe(c chan<- *prometheus.Desc) { c <- f.streams; c <- f.parked }

func (f fleet) Collect(c chan<- prometheus.Metric) {
	streams, parked := map[string]int{}, map[string]int{}
	for _, st := range f.s.connected() {
		name := st.group.name
		if st.group.served.Load() == nil {
			name = ""
		}
		streams[name]++
		parked[name] += st.parked()
	}
	for name, n := range streams {
		c <- prometheus.MustNewConstMetric(f.streams, prometheus.GaugeValue, float64(n), name)
		c <- prometheus.MustNewConstMetric(f.parked, prometheus.GaugeValue, float64(parked[name]), name)
	}
}

func (st *stream) parked() (n int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, t := range st.types {
		n += len(t.rejected)
	}
	return n
}
