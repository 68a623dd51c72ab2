package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// replicas are r leased stores over one.
func replicas(inner Store, r int) []*leased {
	all := make([]*leased, r)
	for i := range all {
		all[i] = lease(inner, Options{})
	}
	return all
}

func windowed(key string, limit, lease int64) Hit {
	return Hit{Key: key, Limit: limit, Window: 10 * time.Second, Hits: 1, Lease: lease}
}

// ask is one decision of one hit.
func allowed(t *testing.T, s Store, h Hit) bool {
	t.Helper()
	out, err := s.Count(t.Context(), []Hit{h})
	if err != nil {
		t.Fatal(err)
	}
	o := out[0]
	if o.Remaining < 0 || o.Remaining > o.Limit || o.Limit != h.size() || o.Reset < 0 || o.Reset > max(h.Window, time.Minute) {
		t.Errorf("%+v is no answer to %+v", o, h)
	}
	return o.Allowed
}

// TestLeasedNeverExceedsAWindow drives replicas at rates of their own through some windows.
func TestLeasedNeverExceedsAWindow(t *testing.T) {
	for _, limit := range []int64{1, 2, 10, 100, 10_000} {
		for _, b := range []int64{1, 16, 1000} {
			t.Run(fmt.Sprintf("limit %d lease %d", limit, b), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testWindows(t, limit, b) })
			})
		}
	}
}

func testWindows(t *testing.T, limit, b int64) {
	const r = 3
	model := newNaive()
	stores := replicas(model, r)
	h := windowed("w", limit, b)
	var mu sync.Mutex
	passed, asked, between := map[time.Time]int64{}, map[time.Time]int64{}, map[time.Time]int64{}
	var wg sync.WaitGroup
	end := time.Now().Truncate(h.Window).Add(3 * h.Window)
	for i := range 2 * r {
		rnd := rand.New(rand.NewPCG(uint64(i), uint64(limit)))
		wg.Go(func() {
			for time.Now().Before(end) {
				window := time.Now().Truncate(h.Window)
				ok := allowed(t, stores[i%r], h)
				mu.Lock()
				asked[window]++
				switch now := time.Now().Truncate(h.Window); {
				case !ok:
				case now == window:
					passed[window]++
				default: // one that was under way when a window ended was decided in either
					between[window]++
					between[now]++
				}
				mu.Unlock()
				time.Sleep(time.Duration(rnd.Int64N(int64(i+1)) * int64(2*time.Millisecond)))
			}
		})
	}
	wg.Wait()
	for window, got := range passed {
		if got > limit {
			t.Errorf("%d allowed of %d", got, limit)
		}
		if want := min(limit, asked[window]) - r*b; got+between[window] < want {
			t.Errorf("%d allowed, want %d at least", got, want)
		}
	}
	for _, s := range stores {
		s.Close()
	}
	t.Logf("%v allowed of %v, %d hits at the store in %d trips", slices.Collect(maps.Values(passed)), slices.Collect(maps.Values(asked)), model.hits, model.trips)
}

// leasing asks for a lease with every hit.
type leasing struct {
	Store
	most int64
}

func (l leasing) Count(ctx context.Context, hits []Hit) ([]Outcome, error) {
	hits = slices.Clone(hits)
	for i := range hits {
		hits[i].Lease = l.most
	}
	return l.Store.Count(ctx, hits)
}

// TestLeasedConforms: who asks one by one finds that leases change nothing. Of those who ask at once, one may be refused
// while a lot is under way.
func TestLeasedConforms(t *testing.T) {
	s := leasing{openReady(t, startRedis(t).url()), 64}
	for _, c := range conform {
		if !strings.Contains(c.name, "concurrency") {
			t.Run(c.name, func(t *testing.T) { c.test(t, s) })
		}
	}
}

// TestLeasedGCRANeverExceedsAnySpan looks at every span of time between two hits.
func TestLeasedGCRANeverExceedsAnySpan(t *testing.T) {
	for _, h := range []Hit{
		{Algorithm: GCRA, Limit: 100, Window: time.Second, Burst: 100, Hits: 1, Lease: 20},
		{Algorithm: GCRA, Limit: 100, Window: time.Second, Burst: 20, Hits: 1, Lease: 1000},
		{Algorithm: GCRA, Limit: 10, Window: time.Second, Burst: 50, Hits: 1, Lease: 1000}, // not worth a lease
		{Algorithm: GCRA, Limit: 500, Window: time.Second, Burst: 300, Hits: 2, Lease: 64},
	} {
		t.Run(fmt.Sprintf("%d a second burst %d lease %d", h.Limit, h.Burst, h.Lease), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testSpans(t, h) })
		})
	}
}

func testSpans(t *testing.T, h Hit) {
	const r = 3
	model := newNaive()
	stores := replicas(model, r)
	var mu sync.Mutex
	var passed []time.Time
	var wg sync.WaitGroup
	start := time.Now()
	for i := range r {
		rnd := rand.New(rand.NewPCG(uint64(i), 7))
		wg.Go(func() {
			for time.Since(start) < 6*time.Second {
				busy := time.Since(start)/(500*time.Millisecond)%3 != 2 // and now and then the bucket fills up
				if busy && allowed(t, stores[i], h) {
					mu.Lock()
					passed = append(passed, time.Now())
					mu.Unlock()
				}
				time.Sleep(time.Duration(1+rnd.Int64N(int64(12*time.Millisecond)/int64(r-i))) / 2)
			}
		})
	}
	wg.Wait()
	const trip = 2 * time.Millisecond // the time of an answer may be so much off the store's
	rate := float64(h.Limit) / h.Window.Seconds()
	for i := range passed {
		for j := i; j < len(passed); j++ {
			span := passed[j].Sub(passed[i]) + trip
			if got, most := int64(j-i+1)*h.Hits, float64(h.Burst)+span.Seconds()*rate; float64(got) > most+1e-6 {
				t.Fatalf("%d hits within %s, at most %.1f", got, span, most)
			}
		}
	}
	for _, s := range stores {
		s.Close()
	}
	t.Logf("%d allowed, %d trips", len(passed), model.trips)
}

// TestLeasedAccountsForEveryHit has decisions of several hits, leased and not, that are refused, that give back and that
// only watch: what the store has counted is what was allowed and what is in hand.
func TestLeasedAccountsForEveryHit(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) { testAccounts(t, seed) })
	}
}

func testAccounts(t *testing.T, seed uint64) {
	model := newNaive()
	stores := replicas(model, 2)
	limits := []int64{300, 2000, 150, 40}
	bucket := func(i int) Hit {
		h := Hit{Key: fmt.Sprint(i), Limit: limits[i], Window: MaxWindow, Hits: 1, Lease: 64}
		if i == 2 {
			h.Lease = 0
		}
		h.Beyond = i == 3
		return h
	}
	spent := make([]atomic.Int64, len(limits))
	var wg sync.WaitGroup
	for w := range 6 {
		rnd := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for range 100 {
				time.Sleep(time.Duration(rnd.Int64N(int64(6 * time.Millisecond))))
				turn := make([]*Decision, 1+rnd.IntN(4))
				for i := range turn {
					turn[i] = new(Decision)
					for range 1 + rnd.IntN(3) {
						h := bucket(rnd.IntN(len(limits)))
						h.Hits = []int64{1, 1, 1, 2, 5, 0}[rnd.IntN(6)]
						turn[i].Hits = append(turn[i].Hits, h)
					}
				}
				stores[w%2].Decide(turn)
				for _, d := range turn {
					if d.Err != nil || len(d.Outcomes) != len(d.Hits) {
						t.Errorf("%d outcomes for %d hits: %v", len(d.Outcomes), len(d.Hits), d.Err)
						continue
					}
					passes := true
					for i := range d.Hits {
						passes = passes && (d.Hits[i].Beyond || d.Outcomes[i].Allowed)
					}
					if !passes {
						continue
					}
					for _, h := range d.Hits {
						spent[h.Key[0]-'0'].Add(h.Hits)
					}
					if rnd.IntN(4) == 0 { // the call failed
						h := d.Hits[0]
						h.Hits = -h.Hits
						spent[h.Key[0]-'0'].Add(h.Hits)
						stores[w%2].Decide([]*Decision{{Hits: []Hit{h}}})
					}
				}
			}
		})
	}
	wg.Wait()
	synctest.Wait()
	time.Sleep(10 * time.Millisecond) // lots that nobody waits for
	for i, limit := range limits {
		h := bucket(i)
		inHand := int64(0)
		for _, s := range stores {
			if p := s.purse(&h, s.now()); p != nil {
				inHand += inHandOf(p)
			}
		}
		if counted := model.counts[h.Key]; counted != spent[i].Load()+inHand {
			t.Errorf("bucket %d: %d counted, %d spent and %d in hand", i, counted, spent[i].Load(), inHand)
		}
		if !h.Beyond && spent[i].Load() > limit {
			t.Errorf("bucket %d: %d allowed of %d", i, spent[i].Load(), limit)
		}
	}
	for _, s := range stores {
		s.Close()
	}
	for i := range limits {
		if counted := model.counts[fmt.Sprint(i)]; counted != spent[i].Load() {
			t.Errorf("bucket %d: %d counted after all was given back, %d spent", i, counted, spent[i].Load())
		}
	}
}

// TestLeasesFollowDemand: a hot bucket costs a trip in 25 ms or more, and next to nobody waits for it; a cold one costs what
// it does without a lease.
func TestLeasesFollowDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newNaive()
		s := lease(model, Options{})
		defer s.Close()
		hot := Hit{Key: "hot", Limit: 1 << 40, Window: MaxWindow, Hits: 1, Lease: 10_000}
		waited := 0
		for range 10_000 { // in 1 s
			time.Sleep(100 * time.Microsecond)
			start := time.Now()
			if !allowed(t, s, hot) {
				t.Fatal("refused")
			}
			if time.Since(start) > 0 {
				waited++
			}
		}
		synctest.Wait()
		if model.trips > 60 || waited > 20 {
			t.Errorf("%d trips, %d of 10,000 waited", model.trips, waited)
		}
		p := s.purse(&hot, s.now())
		if n := inHandOf(p); n < 400 || n > 1500 {
			t.Errorf("%d tokens in hand at 10,000 a second", n)
		}
		synctest.Wait()
		model.trips, model.hits = 0, 0
		for i := range 50 {
			time.Sleep(100 * time.Millisecond)
			cold := hot
			cold.Key = fmt.Sprint("cold", i%2)
			allowed(t, s, cold)
		}
		synctest.Wait()
		if model.hits > 53 { // some give the hot one's back
			t.Errorf("%d trips for 50 cold hits", model.hits)
		}
		if n := inHandOf(p); n != 0 {
			t.Errorf("%d tokens in hand after 5 idle seconds", n)
		}
		synctest.Wait()
		if got := model.counts["hot"]; got != 10_000 {
			t.Errorf("%d counted, want the 10,000 that were spent", got)
		}
	})
}

// inHandOf is what a purse has in hand or under way, once nothing moves any more.
func inHandOf(p *purse) int64 {
	synctest.Wait()
	p.home.mu.Lock()
	defer p.home.mu.Unlock()
	return p.tokens() + p.asking
}

// rushes has s decide n times in one turn, and tells how many were allowed.
func rushes(s Store, h Hit, n int) int {
	turn := make([]*Decision, n)
	for i := range turn {
		turn[i] = &Decision{Hits: []Hit{h}}
	}
	s.Decide(turn)
	got := 0
	for _, d := range turn {
		if d.Err == nil && d.Outcomes[0].Allowed {
			got++
		}
	}
	return got
}

// paced asks n times, once in d.
func paced(t *testing.T, s Store, h Hit, n int, d time.Duration) (got int) {
	t.Helper()
	for range n {
		time.Sleep(d)
		if allowed(t, s, h) {
			got++
		}
	}
	return got
}

// TestLeasedGCRABurstBesideTokens: the bucket fills up while tokens are in hand, and all is spent at once.
func TestLeasedGCRABurstBesideTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := replicas(newNaive(), 2)
		h := Hit{Key: "k", Algorithm: GCRA, Limit: 1000, Window: time.Second, Burst: 400, Hits: 1, Lease: 1000}
		paced(t, stores[0], h, 1000, time.Millisecond)
		p := stores[0].purse(&h, stores[0].now())
		for inHandOf(p) < 20 {
			paced(t, stores[0], h, 1, time.Millisecond)
		}
		inHand := inHandOf(p)
		time.Sleep(40 * time.Millisecond)
		start := time.Now()
		got := rushes(stores[0], h, int(inHand)) + rushes(stores[1], h, 500)
		if most := 400 + int(time.Since(start)/time.Millisecond); got > most || got < most-120 {
			t.Errorf("%d at once, %d of them in hand before, want at most %d", got, inHand, most)
		}
		for _, s := range stores {
			s.Close()
		}
	})
}

// TestTokensEndWithTheirWindow: those that weren't spent in theirs say nothing in the next, and aren't given back when
// they could be taken off it.
func TestTokensEndWithTheirWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newNaive()
		s := lease(model, Options{})
		defer s.Close()
		h := windowed("k", 2000, 500)
		end := time.Now().Truncate(h.Window).Add(h.Window)
		time.Sleep(time.Until(end.Add(-2500 * time.Millisecond)))
		paced(t, s, h, 500, time.Millisecond)
		if inHandOf(s.purse(&h, s.now())) == 0 {
			t.Error("no tokens in hand")
		}
		time.Sleep(time.Until(end))
		synctest.Wait()
		if model.back != 0 {
			t.Errorf("%d given back in the last seconds", model.back)
		}
		if got := paced(t, s, h, 3000, time.Millisecond); got != 2000 {
			t.Errorf("%d allowed in the next window of 2000", got)
		}
	})
}

// TestLotsShrinkNearTheLimit: when the first is refused, next to nothing is in hand anywhere.
func TestLotsShrinkNearTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := replicas(newNaive(), 3)
		h := Hit{Key: "k", Limit: 5000, Window: MaxWindow, Hits: 1, Lease: 1000}
		for got := 0; paced(t, stores[got%3], h, 1, 100*time.Microsecond) == 1; got++ {
		}
		inHand := int64(0)
		for _, s := range stores {
			inHand += inHandOf(s.purse(&h, s.now()))
			defer s.Close()
		}
		if inHand > 10 {
			t.Errorf("refused with %d tokens in hand", inHand)
		}
	})
}

// TestLotThatDoesNotFitIsDecidedOneByOne: others took what this process believes to be left.
func TestLotThatDoesNotFitIsDecidedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newNaive()
		s := lease(model, Options{})
		defer s.Close()
		h := Hit{Key: "k", Limit: 5000, Window: MaxWindow, Hits: 1, Lease: 1000}
		paced(t, s, h, 1000, time.Millisecond)
		p := s.purse(&h, s.now())
		inHandOf(p)               // nothing moves any more
		inHand := int(p.tokens()) // a lot that is ordered, but not asked for yet, won't fit
		model.counts["k"] = 5000 - 3
		if got := rushes(s, h, inHand+8); got != inHand+3 {
			t.Errorf("%d allowed, want the %d in hand and the 3 that were left", got, inHand)
		}
	})
}

// TestKilledReplicaCostsItsLease: what it had in hand stays counted, and no more.
func TestKilledReplicaCostsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, b, r = 10_000, 200, 3
		model := newNaive()
		stores := replicas(model, r)
		h := Hit{Key: "k", Limit: limit, Window: MaxWindow, Hits: 1, Lease: b}
		got := 0
		for i := range 3 * limit {
			if i == 3000 {
				stores[0].stop() // gives nothing back
				if n := inHandOf(stores[0].purse(&h, stores[0].now())); n == 0 {
					t.Error("it had nothing in hand")
				}
				stores = stores[1:]
			}
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
			}
			if allowed(t, stores[i%len(stores)], h) {
				got++
			}
		}
		if got > limit || got < limit-b {
			t.Errorf("%d of %d allowed, a lease is %d", got, limit, b)
		}
		t.Logf("%d of %d allowed", got, limit)
		for _, s := range stores {
			s.Close()
		}
	})
}

// TestLeasedWhileTheStoreFails: decisions are lost on their way there or back. Nothing is allowed that isn't counted, and
// tokens in hand are spent while there is no answer.
func TestLeasedWhileTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newNaive()
		s := lease(model, Options{})
		h := Hit{Key: "k", Limit: 5000, Window: MaxWindow, Hits: 1, Lease: 300}
		rnd := rand.New(rand.NewPCG(1, 1))
		lost := fmt.Errorf("%w: lost", ErrUnavailable)
		model.fault = func() (before, after error) {
			switch rnd.IntN(10) {
			case 0:
				return lost, nil
			case 1:
				return nil, lost
			}
			return nil, nil
		}
		spent, failed := int64(0), 0
		ask := func(n int) {
			for range n {
				time.Sleep(time.Millisecond)
				switch out, err := s.Count(t.Context(), []Hit{h}); {
				case err != nil && !errors.Is(err, ErrUnavailable):
					t.Fatal(err)
				case err != nil:
					failed++
				case out[0].Allowed:
					spent++
				}
			}
		}
		ask(3000)
		p := s.purse(&h, s.now())
		synctest.Wait()
		if counted := model.counts["k"]; spent+inHandOf(p) > counted || failed > 100 {
			t.Errorf("%d counted, but %d spent and %d in hand; %d decisions failed", counted, spent, inHandOf(p), failed)
		}
		synctest.Wait()
		model.fault = nil
		ask(200)
		time.Sleep(10 * time.Millisecond) // a lot that is under way would be lost
		inHand := inHandOf(p)
		model.fault = func() (before, after error) { return lost, nil }
		spent, failed = 0, 0
		ask(1000)
		if inHand < 20 || spent < inHand || int(spent)+failed != 1000 {
			t.Errorf("%d spent of %d in hand, %d failed", spent, inHand, failed)
		}
		s.Close()
	})
}

// TestLeasedRefundsStayWhereTheyAreSpent: hits that are given back to a hot bucket cost no trip.
func TestLeasedRefundsStayWhereTheyAreSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := newNaive()
		s := lease(model, Options{})
		defer s.Close()
		h := Hit{Key: "k", Limit: 1 << 30, Window: MaxWindow, Hits: 1, Lease: 1000}
		for range 500 {
			time.Sleep(time.Millisecond)
			allowed(t, s, h)
		}
		before := inHandOf(s.purse(&h, s.now()))
		trips := model.trips
		h.Hits = -3
		if out, err := s.Count(t.Context(), []Hit{h}); err != nil || !out[0].Allowed || out[0].Count != 497 {
			t.Errorf("%+v %v, want 497 counted", out, err)
		}
		synctest.Wait()
		if got := inHandOf(s.purse(&h, s.now())); got != before+3 || model.trips != trips {
			t.Errorf("%d tokens, want %d, in %d trips", got, before+3, model.trips-trips)
		}
		h.Hits = -400
		if out, err := s.Count(t.Context(), []Hit{h}); err != nil || !out[0].Allowed || out[0].Count != 97 || model.trips != trips+1 {
			t.Errorf("%+v %v, want 97 counted, in one trip", out, err)
		}
	})
}

// TestPursesAreBounded: buckets beyond the bound push others out, those without tokens first.
func TestPursesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lease(newNaive(), Options{})
		defer s.Close()
		hot := Hit{Key: "hot", Limit: 1 << 30, Window: MaxWindow, Hits: 1, Lease: 1000}
		for range 300 {
			time.Sleep(time.Millisecond)
			allowed(t, s, hot)
		}
		cold := hot
		for i := range 2 * maxPurses * shards {
			cold.Key = fmt.Sprint("cold", i)
			s.purse(&cold, s.now())
		}
		n := 0
		for i := range s.shards {
			n += len(s.shards[i].held)
		}
		if n > maxPurses*shards || n < maxPurses*shards*9/10 {
			t.Errorf("%d purses, want at most %d", n, maxPurses*shards)
		}
		if inHandOf(s.purse(&hot, s.now())) == 0 {
			t.Error("the tokens in hand were forgotten for buckets that have none")
		}
	})
}

// TestThreeLeasedProcessesShareOneLimit is on a real Redis.
func TestThreeLeasedProcessesShareOneLimit(t *testing.T) {
	r := startRedis(t)
	const replicas, b = 3, 50
	for _, limit := range []int64{1, 100, 10_000} {
		stores := []Store{openReady(t, r.url()), openReady(t, r.url()), openReady(t, r.url())}
		h := daily(fmt.Sprint("leased", limit), limit, 1)
		h.Lease = b
		before := hitsServed(t, r)
		got := swarm(2*int(limit)+500, func(i int) bool { return count(t, stores[i%3], h)[0].Allowed })
		t.Logf("limit %d: %d allowed, %d commands", limit, got, hitsServed(t, r)-before)
		if int64(got) > limit || int64(got) < limit-replicas*b {
			t.Errorf("%d allowed of %d", got, limit)
		}
		for _, s := range stores {
			s.Close()
		}
		rest := 0
		exact := openReady(t, r.url())
		h.Lease = 0
		for count(t, exact, h)[0].Allowed {
			rest++
		}
		if int64(got+rest) != limit {
			t.Errorf("%d allowed, and %d after all were closed, of %d", got, rest, limit)
		}
	}
}

// BenchmarkLeased decides from tokens in hand.
func BenchmarkLeased(b *testing.B) {
	for _, keys := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d keys", keys), func(b *testing.B) {
			s := lease(open(b, Options{}), Options{})
			defer s.Close()
			decisions := make([]*Decision, keys)
			for i := range decisions {
				decisions[i] = &Decision{Hits: []Hit{{
					Key: Key("route/orders/0", fmt.Sprint("idp/user-", i)), Limit: 1 << 50, Window: 24 * time.Hour, Hits: 1, Lease: 1 << 30,
				}}}
				p := s.purse(&decisions[i].Hits[0], s.now())
				p.lots[0] = lot{1 << 40, s.now() + time.Hour.Microseconds()}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Decide(decisions[i%keys : i%keys+1])
			}
		})
	}
}

// redisOf is the store of Redis that s leases from.
func redisOf(s Store) *redisStore { return s.(*leased).Store.(*redisStore) }
