package auth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/legation/legation/store"
)

// Options is what a Service needs from its process; the zero value works.
type Options struct {
	Counter   Counter               // nil: rules with limits are refused by Load
	Log       *slog.Logger          // nil: none
	Metrics   prometheus.Registerer // nil: not registered
	RootCAs   *x509.CertPool        // whom to trust for JWKS over https; nil: the system's
	Transport http.RoundTripper     // for tests: fetches JWKS instead of the guarded dialer

	Decisions    DecisionLog // in Log, whatever its level
	DecisionRate int         // lines a second at most; 0: 100

	// What all processes share. Ways that need one that is nil answer 503.
	Keys     store.Board   // API keys that were made while running
	Revoked  store.Board   // what is not good any more though it looks so
	Sessions store.Records // of logins
}

// Service answers Check by the table that was loaded last.
type Service struct {
	authv3.UnimplementedAuthorizationServer
	o         Options
	counter   Counter
	log       *slog.Logger
	metrics   *metrics
	decisions *decisionLog // nil: none
	client    *http.Client
	poster    *http.Client
	guesses   *passwords
	table     atomic.Pointer[table]

	mu      sync.Mutex // serialises Load and guards remotes
	remotes map[origin]*remote
	changed chan struct{} // tells Run that remotes changed; holds one
}

// New makes a Service that knows no rule and answers 503 until Load. It starts nothing.
func New(o Options) *Service {
	s := &Service{
		o:       o,
		counter: o.Counter,
		log:     o.Log,
		metrics: newMetrics(o.Metrics, o.Revoked),
		client:  newClient(o.Transport, o.RootCAs),
		poster:  newPoster(o.Transport, o.RootCAs),
		guesses: newPasswords(),
		remotes: map[origin]*remote{},
		changed: make(chan struct{}, 1),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.decisions = newDecisionLog(o, s.metrics.unlogged)
	s.table.Store(&table{})
	if o.Metrics != nil {
		o.Metrics.MustRegister(newKeySetMetrics(s.Health))
	}
	return s
}

// Register makes r serve the Authorization service.
func (s *Service) Register(r grpc.ServiceRegistrar) { authv3.RegisterAuthorizationServer(r, s) }

// Load replaces the table, all or nothing: an error leaves the old one in place. Key sets, fetched or not yet, and
// verified tokens of providers that did not change are kept, and rules of an ID that the old table has are not compiled
// again. The lists belong to the service from now on: one that is the very same as before is taken not to have changed.
func (s *Service) Load(t Table) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.table.Load()
	same := unchanged(t.Rules, old.from.Rules) && unchanged(t.Consumers, old.from.Consumers) && maps.EqualFunc(t.Secrets, old.from.Secrets, bytes.Equal)
	if same && old.rules != nil {
		return nil
	}
	c := compiler{
		o: s.o, client: s.client, poster: s.poster, log: s.log, old: old, remotes: maps.Clone(s.remotes), newRemote: s.newRemote,
		metrics: s.metrics, counts: s.counter != nil, passwords: s.guesses,
	}
	next, err := c.table(t)
	if err != nil {
		return err
	}
	maps.DeleteFunc(c.remotes, func(from origin, _ *remote) bool { return !c.used[from] })
	s.remotes = c.remotes
	s.table.Store(next)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run fetches the key sets that the rules name, keeps them fresh, and logs decisions, until the context ends. It returns nil.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.decisions != nil {
		wg.Go(func() { s.decisions.run(ctx) })
	}
	stops := map[runner]context.CancelFunc{}
	for {
		wanted := s.wanted()
		for r, stop := range stops {
			if !slices.Contains(wanted, r) {
				stop()
				delete(stops, r)
			}
		}
		for _, r := range wanted {
			if _, ok := stops[r]; ok {
				continue
			}
			rctx, stop := context.WithCancel(ctx)
			stops[r] = stop
			wg.Go(func() { r.run(rctx) })
		}
		select {
		case <-ctx.Done():
			for _, stop := range stops {
				stop()
			}
			return nil
		case <-s.changed:
		}
	}
}

// runner is what goes on in the background as long as the table has it.
type runner interface{ run(ctx context.Context) }

func (s *Service) wanted() []runner {
	var all []runner
	for _, r := range s.fetched() {
		all = append(all, r)
	}
	for _, p := range s.table.Load().providers {
		if r, ok := p.way.(runner); ok {
			all = append(all, r)
		}
	}
	return all
}

func (s *Service) fetched() []*remote {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.remotes))
}

func (s *Service) newRemote(from origin) *remote {
	return &remote{
		origin: from, shown: withoutQuery(from.url), client: s.client, log: s.log, metrics: s.metrics,
		kicked: make(chan struct{}, 1),
	}
}

// JWKSHealth is the state of one fetched key set; it holds no secrets.
type JWKSHealth struct {
	URL     string    `json:"url"` // without its query
	Loaded  bool      `json:"loaded"`
	Stale   bool      `json:"stale"` // the last fetch went wrong; while Loaded, the last good set is used
	Keys    int       `json:"keys"`
	Fetched time.Time `json:"fetched,omitzero"` // the last good set
	Error   string    `json:"error,omitempty"`  // of the last fetch
}

// Health is the state of every fetched key set, sorted by URL.
func (s *Service) Health() []JWKSHealth {
	var all []JWKSHealth
	for _, r := range s.fetched() {
		all = append(all, r.health(time.Now()))
	}
	slices.SortFunc(all, func(a, b JWKSHealth) int { return cmp.Compare(a.URL, b.URL) })
	return all
}
