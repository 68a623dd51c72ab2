package callout

import (
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

type metrics struct {
	loops, handed prometheus.Gauge
	calls, shed   *prometheus.CounterVec
	forwarded     prometheus.Counter
	waiting       prometheus.Gauge
	refused       *prometheus.CounterVec
	floods        *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	connections := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "legation_callout_connections",
		Help: "Open connections by what serves them: loop, or grpc where the first call was none that the loop answers.",
	}, []string{"by"})
	m := &metrics{
		loops: connections.WithLabelValues("loop"), handed: connections.WithLabelValues("grpc"),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_callout_calls_total",
			Help: "Calls answered by the loop, by method and gRPC code.",
		}, []string{"method", "code"}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_callout_shed_total",
			Help: "Calls answered UNAVAILABLE, by method, since more came for a while than could be answered.",
		}, []string{"method"}),
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "legation_callout_forwarded_total",
			Help: "Calls that grpc-go answered on a connection of the loop.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "legation_callout_waiting",
			Help: "Calls whose answer waits for others, such as an identity provider, while the loop goes on.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_callout_refused_total",
			Help: "Connections closed before their first call: tls (handshake), alpn (not HTTP/2), preface (not HTTP/2), " +
				"timeout (too slow), crowded (too many were starting at once).",
		}, []string{"reason"}),
		floods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_callout_floods_total",
			Help: "Connections closed because they sent too much beside calls, by what they sent.",
		}, []string{"kind"}),
	}
	if r != nil {
		r.MustRegister(connections, m.calls, m.shed, m.forwarded, m.waiting, m.refused, m.floods)
	}
	return m
}

// A method is one of the server's methods with its figures, by code: nothing is looked up for a call.
type method struct {
	path  string
	index int
	run   Method
	codes [codes.Unauthenticated + 1]prometheus.Counter
	shut  prometheus.Counter
}

func newMethod(path string, index int, run Method, m *metrics) *method {
	named := &method{path: path, index: index, run: run, shut: m.shed.WithLabelValues(path)}
	for code := range named.codes {
		named.codes[code] = m.calls.WithLabelValues(path, codes.Code(code).String())
	}
	return named
}

// answered counts a call.
func (m *method) answered(code codes.Code, n int) {
	if int(code) >= len(m.codes) {
		code = codes.Unknown
	}
	m.codes[code].Add(float64(n))
}

// shed counts calls that were too many.
func (m *method) shed(n int) {
	m.shut.Add(float64(n))
	m.answered(codes.Unavailable, n)
}
