package store

import (
	"context"
	"crypto/sha1"
	_ "embed" // the scripts
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// script is a Lua script and what Redis calls it.
type script struct{ source, digest string }

func newScript(source string) *script {
	sum := sha1.Sum([]byte(source))
	return &script{source, hex.EncodeToString(sum[:])}
}

var (
	//go:embed count.lua
	countSource string
	//go:embed refund.lua
	refundSource string

	countScript  = newScript(countSource)
	refundScript = newScript(refundSource)
)

// redisStore counts in Redis.
type redisStore struct {
	client  redis.UniversalClient
	kind    string
	lanes   []*lane // one; on a Cluster each stands for as many slots
	memory  *memory
	metrics *metrics
	log     *slog.Logger
	stop    context.CancelFunc
	stopped chan struct{}

	told    string    // what operators know: ok, down, or nothing yet
	changed time.Time // since when it isn't so any more
}

const (
	slots        = 16384
	clusterLanes = 16 // a node that is down opens its own lanes only, but for those that it shares
)

// goRedisLog gives go-redis' words to slog. They tell of single connections: what operators need, the breaker tells.
type goRedisLog struct{ log *slog.Logger }

func (g goRedisLog) Printf(ctx context.Context, format string, v ...any) {
	if g.log.Enabled(ctx, slog.LevelDebug) {
		g.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, v...))
	}
}

func openRedis(o Options) (Store, error) {
	redis.SetLogger(goRedisLog{o.Log})
	client, kind, err := dial(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &redisStore{
		client:  client,
		kind:    kind,
		metrics: newMetrics(o.Metrics),
		log:     o.Log,
		stop:    cancel,
		stopped: make(chan struct{}),
	}
	n, hold := 1, trust
	if kind == "cluster" {
		n, hold = clusterLanes, clusterTrust
	}
	s.memory = newMemory(hold)
	for i := range n {
		l := &lane{client: client, batches: n == 1, timeout: o.Timeout, metrics: s.metrics, probe: probeKey(i, n)}
		l.reason = starting
		l.change = s.measure
		s.lanes = append(s.lanes, l)
	}
	go s.watch(ctx)
	return s, nil
}

// probeKey is a key of lane i of n.
func probeKey(i, n int) string {
	for j := 0; ; j++ {
		if k := fmt.Sprintf("legation:{probe-%d}", j); slot(k)*n/slots == i {
			return k
		}
	}
}

// measure sets the metric when a lane comes or goes.
func (s *redisStore) measure() {
	up := 0.0
	if s.Health().OK {
		up = 1
	}
	s.metrics.up.Set(up)
}

// settled is how long a state holds before operators are told: they needn't hear of every hiccup.
const settled = 500 * time.Millisecond

// tell tells operators once when the store as a whole comes or goes.
func (s *redisStore) tell() {
	h := s.Health()
	state := "down"
	if h.OK {
		state = "ok"
	}
	switch {
	case h.Reason == starting || state == s.told:
		s.changed = time.Time{}
		return
	case s.told != "" && s.changed.IsZero():
		s.changed = time.Now()
		return
	case s.told != "" && time.Since(s.changed) < settled:
		return
	}
	s.told, s.changed = state, time.Time{}
	if h.OK {
		s.log.Info("store available", "kind", s.kind)
	} else {
		s.log.Warn("store unavailable", "kind", s.kind, "reason", h.Reason)
	}
}

// watch probes lanes that are down or in trouble each 100 ms, and the others each 2 s, so that readiness knows without
// traffic.
func (s *redisStore) watch(ctx context.Context) {
	defer close(s.stopped)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		var wg sync.WaitGroup
		down := false
		for _, l := range s.lanes {
			up, _ := l.state()
			down = down || !up
			if !up || l.failing.Load() || n%20 == 0 {
				wg.Go(func() { l.check(ctx) })
			}
		}
		wg.Wait()
		s.tell()
		if c, ok := s.client.(*redis.ClusterClient); ok && down {
			c.ReloadState(ctx) // a node that is gone doesn't tell who took its slots
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Health is OK when every lane is.
func (s *redisStore) Health() Health {
	h := Health{OK: true, Kind: s.kind}
	for _, l := range s.lanes {
		if up, reason := l.state(); !up {
			return Health{Kind: s.kind, Reason: reason}
		}
	}
	return h
}

// Close closes the connections; trips under way fail.
func (s *redisStore) Close() error {
	s.stop()
	<-s.stopped
	return s.client.Close()
}

// Count makes one trip, or on a Cluster one for each slot, at once; none when a bucket is known to refuse. It takes as
// long as it may, whatever ctx says: a script that is under way is charged.
func (s *redisStore) Count(_ context.Context, hits []Hit) ([]Outcome, error) {
	if err := validate(hits); err != nil || len(hits) == 0 {
		return nil, err
	}
	if out, ok := s.memory.refuse(hits); ok {
		s.metrics.spared.Inc()
		return out, nil
	}
	asked := s.memory.now()
	if len(s.lanes) > 1 {
		return s.countSlots(hits, asked)
	}
	out := make([]Outcome, len(hits))
	if err := s.lanes[0].count(hits, nil, out); err != nil {
		return nil, unavailable(err)
	}
	s.memory.learn(hits, out, asked)
	return out, nil
}

func unavailable(err error) error {
	return fmt.Errorf("%w: %s", ErrUnavailable, reason(err))
}

// count counts the hits at index, nil for all, and writes their outcomes to the same places of out.
func (l *lane) count(hits []Hit, index []int, out []Outcome) error {
	t := trips.Get().(*trip)
	defer trips.Put(t)
	t.script = countScript
	t.args = t.args[:0]
	n := len(hits)
	if index != nil {
		n = len(index)
	}
	at := func(i int) int {
		if index != nil {
			return index[i]
		}
		return i
	}
	t.args = append(t.args, nil, nil, n)
	for i := range n {
		t.args = append(t.args, redisKey(&hits[at(i)]))
	}
	for i := range n {
		h := &hits[at(i)]
		t.args = append(t.args, uint8(h.Algorithm), h.Limit, h.Window.Microseconds(), h.Burst, h.Hits)
	}
	t.values, t.err = nil, nil
	l.run(t)
	if t.err != nil {
		return t.err
	}
	if len(t.values) != 4*n {
		return fmt.Errorf("%d values for %d hits", len(t.values), n)
	}
	for i := range n {
		v := t.values[4*i:]
		out[at(i)] = Outcome{
			Allowed:    v[0] == 1,
			Limit:      hits[at(i)].size(),
			Remaining:  v[1],
			Reset:      time.Duration(v[2]) * time.Microsecond,
			RetryAfter: time.Duration(v[3]) * time.Microsecond,
		}
	}
	return nil
}

// Decide makes one trip for each decision.
func (s *redisStore) Decide(decisions []*Decision) {
	for _, d := range decisions {
		d.Outcomes, d.Err = s.Count(context.Background(), d.Hits)
	}
}
