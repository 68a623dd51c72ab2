package auth

import (
	"maps"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/legation/legation/store"
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
	decisions *prometheus.CounterVec
	seconds   prometheus.Histogram
	hits      prometheus.Counter // of tokens that were verified before
	misses    prometheus.Counter
	waited    prometheus.Counter
	unlogged  prometheus.Counter
	fetches   *prometheus.CounterVec

	denials atomic.Pointer[map[denied]prometheus.Counter] // never changed, so that no request takes a lock for it
	mu      sync.Mutex                                    // serialises who replaces denials
}

// denied is the labels of a denial; all are of the policy or of ours, so that they are bounded.
type denied struct{ entry, kind, reason string }

func newMetrics(r prometheus.Registerer, revoked store.Board) *metrics {
	f := promauto.With(r)
	tokens := f.NewCounterVec(prometheus.CounterOpts{
		Name: "legation_auth_tokens_total",
		Help: "Tokens looked at: hit when they were verified before, else miss.",
	}, []string{"result"})
	m := &metrics{
		decisions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_auth_decisions_total",
			Help: "Requests decided: allow, or why not, by the entry of auth that accepted the caller or came closest to it.",
		}, []string{"result", "entry", "kind", "reason"}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "legation_auth_check_seconds",
			Help:    "Time taken to decide a request, limits included. Of requests that are decided together each has the time of all.",
			Buckets: []float64{25e-6, 50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 1e-2, 25e-3, 5e-2, .1, .25},
		}),
		hits:   tokens.WithLabelValues("hit"),
		misses: tokens.WithLabelValues("miss"),
		waited: f.NewCounter(prometheus.CounterOpts{
			Name: "legation_auth_waited_total",
			Help: "Requests that could not be decided without waiting for others, such as an identity provider.",
		}),
		unlogged: f.NewCounter(prometheus.CounterOpts{
			Name: "legation_auth_decisions_unlogged_total",
			Help: "Decisions that the decision log left out because there were too many.",
		}),
		fetches: f.NewCounterVec(prometheus.CounterOpts{
			Name: "legation_auth_jwks_fetches_total",
			Help: "Fetches of key sets by URL: changed, same, or error.",
		}, []string{"result"}),
	}
	m.denials.Store(&map[denied]prometheus.Counter{})
	if revoked != nil {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "legation_auth_revocations_known",
			Help: "1 when this process knows what was revoked; before that it lets nobody in.",
		}, func() float64 {
			if revoked.Known() {
				return 1
			}
			return 0
		})
	}
	return m
}

// allowed counts those that an entry accepts.
func (m *metrics) allowed(entry, kind string) prometheus.Counter {
	return m.decisions.WithLabelValues(resultAllow.String(), entry, kind, "")
}

// denied counts those that are denied for a reason.
func (m *metrics) denied(by *provider, d *denial) prometheus.Counter {
	key := denied{reason: d.reason}
	if by != nil {
		key.entry, key.kind = by.name, by.kind
	}
	if c, ok := (*m.denials.Load())[key]; ok {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := maps.Clone(*m.denials.Load())
	all[key] = m.decisions.WithLabelValues(d.result.String(), key.entry, key.kind, key.reason)
	m.denials.Store(&all)
	return all[key]
}

// observe tells of requests that were decided together in a time.
func (m *metrics) observe(decisions []*decision, took time.Duration) {
	hits, misses := 0, 0
	for _, d := range decisions {
		if d.unread || d.later {
			continue
		}
		if d.deny == nil {
			d.by.allowed.Inc()
		} else {
			m.denied(d.by, d.deny).Inc()
		}
		hits, misses = hits+d.hits, misses+d.misses
		m.seconds.Observe(took.Seconds())
	}
	if hits > 0 {
		m.hits.Add(float64(hits))
	}
	if misses > 0 {
		m.misses.Add(float64(misses))
	}
}

// kindOf is the name of the field that says how a provider accepts callers.
func kindOf(p Provider) string {
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return ""
}
