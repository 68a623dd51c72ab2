package store

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	ok      prometheus.Counter
	failed  prometheus.Counter
	refused prometheus.Counter
	spared  prometheus.Counter
	seconds prometheus.Histogram
	up      prometheus.Gauge
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
	}
	if r != nil {
		r.MustRegister(trips, m.seconds, m.up)
	}
	return m
}
