package store

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	ok      prometheus.Counter
	failed  prometheus.Counter
	refused prometheus.Counter
	spared  prometheus.Counter
	seconds prometheus.Histogram
	sizes   prometheus.Histogram
	up      prometheus.Gauge

	coalesced prometheus.Counter
	resyncs   prometheus.Counter
	lost      prometheus.Counter
	evicting  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	trips := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_store_trips_total",
		Help: "Trips to Redis by result: ok, error; and those not made: spared, since the answer is known to be no; " +
			"refused, while it is taken to be down or when there was no time left.",
	}, []string{"result"})
	m := &metrics{
		ok:      trips.WithLabelValues("ok"),
		failed:  trips.WithLabelValues("error"),
		refused: trips.WithLabelValues("refused"),
		spared:  trips.WithLabelValues("spared"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_store_trip_seconds",
			Help:    "Time of a trip to Redis.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05},
		}),
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "legation_store_up",
			Help: "1 when the store answers.",
		}),
		sizes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_store_batch_decisions",
			Help:    "Decisions that went to Redis with one trip.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
		}),
		coalesced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "legation_store_coalesced_hits_total",
			Help: "Hits that were counted with another one's increment of the same counter.",
		}),
		resyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "legation_store_clock_resyncs_total",
			Help: "Times that the clock of Redis was found to have been set.",
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "legation_store_lost_total",
			Help: "Counters that came back lower than they were known to be: Redis lost hits, or another process gave some back.",
		}),
		evicting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "legation_store_evicting",
			Help: "1 when Redis may drop counters to make room.",
		}),
	}
	if r != nil {
		r.MustRegister(trips, m.seconds, m.up, m.sizes, m.coalesced, m.resyncs, m.lost, m.evicting)
	}
	return m
}
