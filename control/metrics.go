package control

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics tells how the policy stands.
type metrics struct {
	loads    *prometheus.CounterVec
	problems prometheus.Gauge
	warnings prometheus.Gauge
	served   prometheus.Gauge
	expiry   *prometheus.GaugeVec

	validations *prometheus.CounterVec
	validation  prometheus.Histogram
	rollbacks   *prometheus.CounterVec
	parked      *prometheus.GaugeVec
	stages      *prometheus.CounterVec
	staged      *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_control_loads_total",
			Help: "Loads of the policy, by result: published, unchanged, or refused where a problem kept something back.",
		}, []string{"result"}),
		problems: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "legation_control_problems",
			Help: "Problems in the policy files as they stand, that keep changes back.",
		}),
		warnings: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "legation_control_warnings",
			Help: "Warnings about the policy files as they stand, which keep nothing back.",
		}),
		served: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "legation_control_published_timestamp_seconds",
			Help: "When the revision that is served was published, in Unix time; 0 while none is.",
		}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "legation_control_certificate_expiry_timestamp_seconds",
			Help: "When a certificate that is served expires, in Unix time; of authorities, when the last of them does.",
		}, []string{"secret"}),
		validations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_control_validations_total",
			Help: "Policies that the real Envoy was to be asked about, by result: taken, refused, or failed where it could not be asked.",
		}, []string{"result"}),
		validation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_control_validation_seconds",
			Help:    "How long it took to ask the real Envoy about a policy, the search for the line of a refusal included.",
			Buckets: []float64{0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60},
		}),
		rollbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_control_rollbacks_total",
			Help: "How often a node group went back to its last good snapshot, since its Envoys refused the policy.",
		}, []string{"group"}),
		parked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "legation_control_parked",
			Help: "1 for a node group that is served an older policy, since its Envoys refused what there is for it.",
		}, []string{"group"}),
		stages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_control_stages_total",
			Help: "Policies that went to some Envoys of a node group first, by what became of them: promoted to the others, or failed.",
		}, []string{"group", "result"}),
		staged: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "legation_control_staged",
			Help: "Envoys of a node group that have a policy before the others; absent while there is none on its way.",
		}, []string{"group"}),
	}
	for _, result := range []string{"published", "unchanged", "refused"} {
		m.loads.WithLabelValues(result) // there from the start, so that the first one is an increase
	}
	for _, result := range []string{"taken", "refused", "failed"} {
		m.validations.WithLabelValues(result)
	}
	if r != nil {
		r.MustRegister(m.loads, m.problems, m.warnings, m.served, m.expiry, m.validations, m.validation, m.rollbacks, m.parked, m.stages, m.staged)
	}
	return m
}

// validated counts a policy that Envoy was asked about.
func (m metrics) validated(begin time.Time, err error) {
	result := "taken"
	switch {
	case len(Problems(err)) > 0:
		result = "refused"
	case err != nil:
		result = "failed"
	}
	m.validations.WithLabelValues(result).Inc()
	m.validation.Observe(time.Since(begin).Seconds())
}

func (m metrics) observe(o Outcome) {
	result := "unchanged"
	switch {
	case o.Error != "" || o.Problems.HasErrors():
		result = "refused"
	case o.Changed:
		result = "published"
	}
	m.loads.WithLabelValues(result).Inc()
	errs, warnings := o.Problems.Split()
	m.problems.Set(float64(len(errs)))
	m.warnings.Set(float64(len(warnings)))
	if o.Changed {
		m.expiry.Reset()
	}
	for _, s := range o.Secrets {
		if !s.Expires.IsZero() {
			m.expiry.WithLabelValues(s.ID).Set(float64(s.Expires.Unix()))
		}
	}
	if !o.Since.IsZero() {
		m.served.Set(float64(o.Since.UnixNano()) / 1e9)
	}
}
