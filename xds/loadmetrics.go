package xds

import "github.com/prometheus/client_golang/prometheus"

type loadMetrics struct {
	refused *prometheus.CounterVec
}

// newLoadMetrics registers with r, which may be nil.
func newLoadMetrics(r prometheus.Registerer, l *Loads) *loadMetrics {
	m := &loadMetrics{refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_xds_load_refused_total",
		Help: "Parts of load reports that do not count: of a service that the group is not served, implausible, or too many.",
	}, []string{"reason"})}
	if r != nil {
		r.MustRegister(m.refused, loadCollector{
			l: l,
			requests: prometheus.NewDesc("legation_xds_service_requests_total",
				"Requests that Envoys report to have sent to a service, by outcome; services past the first 500 are together, without a name.",
				[]string{"group", "service", "outcome"}, nil),
			inProgress: prometheus.NewDesc("legation_xds_service_requests_in_progress",
				"Requests that Envoys have in progress at a service.", []string{"group", "service"}, nil),
			reporters: prometheus.NewDesc("legation_xds_load_streams", "Envoys that report their load.", nil, nil),
		})
	}
	return m
}

// loadCollector reads the counts when it is asked. A service has a label of its own only if the group is served it and
// there are not too many.
type loadCollector struct {
	l                               *Loads
	requests, inProgress, reporters *prometheus.Desc
}

func (c loadCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.requests, c.inProgress, c.reporters} {
		out <- d
	}
}

func (c loadCollector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.metrics() { // not under the lock: the channel may be slow
		out <- m
	}
}

func (c loadCollector) metrics() (list []prometheus.Metric) {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	add := func(group, service string, t Traffic, inProgress uint64) {
		for outcome, n := range map[string]uint64{"succeeded": t.Succeeded, "failed": t.Failed, "dropped": t.Dropped} {
			list = append(list, prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(n), group, service, outcome))
		}
		list = append(list, prometheus.MustNewConstMetric(c.inProgress, prometheus.GaugeValue, float64(inProgress), group, service))
	}
	others := map[string]uint64{}
	for group := range c.l.others {
		others[group] = 0
	}
	for p, r := range c.l.rows {
		switch {
		case p.level != ofService:
		case r.named:
			add(p.group, p.service, r.traffic.total, r.inProgress)
		default:
			others[p.group] += r.inProgress
		}
	}
	for group, inProgress := range others {
		add(group, "", c.l.others[group], inProgress)
	}
	return append(list, prometheus.MustNewConstMetric(c.reporters, prometheus.GaugeValue, float64(len(c.l.reporters))))
}
