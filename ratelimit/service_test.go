package ratelimit

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/legation/legation/store"
)

func TestIDTellsVersionsApart(t *testing.T) {
	a, b := daily("route/a/0", 10), daily("route/a/0", 11)
	if a.ID() == b.ID() || a.ID() != daily("route/a/0", 10).ID() || !strings.HasPrefix(a.ID(), "route/a/0@") || len(a.ID()) != len("route/a/0@")+12 {
		t.Errorf("%s and %s", a.ID(), b.ID())
	}
}

func TestCountRefusesPastTheLimit(t *testing.T) {
	l := daily("route/a/0", 2, By{Kind: Consumer})
	s := newService(t, Options{}, l)
	alice, bob := Attributes{Consumer: "idp/alice"}, Attributes{Consumer: "idp/bob"}
	for i, want := range []bool{true, true, false} {
		v := s.Count(t.Context(), []string{l.ID()}, alice, 1)
		if v.Allowed != want {
			t.Fatalf("request %d: %+v", i, v)
		}
		if !want && (v.Status != 429 || v.Limit != "route/a/0" || v.RetryAfter <= 0 || len(v.Headers) != 4) {
			t.Errorf("refused: %+v", v)
		}
	}
	if v := s.Count(t.Context(), []string{l.ID()}, bob, 1); !v.Allowed || v.Status != 200 {
		t.Errorf("another consumer: %+v", v)
	}
	if v := s.Count(t.Context(), nil, bob, 1); !v.Allowed || v.Headers != nil {
		t.Errorf("no limits: %+v", v)
	}
}

func TestCountAndDescriptorsShareBuckets(t *testing.T) {
	l := daily("route/a/0", 10, By{Kind: IP}, By{Kind: Consumer}, By{Kind: Header, Name: "X-Tenant"}, By{Kind: Claim, Name: "team"})
	s := newService(t, Options{}, l)
	c := serve(t, s)
	a := Attributes{
		IP:       netip.MustParseAddr("::ffff:192.0.2.1"),
		Consumer: "idp/alice",
		Header:   func(string) string { return "blue" },
		Claim:    func(string) string { return "x|y" },
	}
	s.Count(t.Context(), []string{l.ID()}, a, 3)
	r := ask1(t, c, request(descriptor("limit", l.ID(), "claim:team", "x|y", "ip", "192.0.2.1", "header:x-tenant", "blue", "consumer", "idp/alice")))
	if got := r.Statuses[0].LimitRemaining; got != 6 {
		t.Errorf("%d left, want 6", got)
	}
}

func TestAddressesAreNormalised(t *testing.T) {
	l := daily("ip", 100, By{Kind: IP})
	s := newService(t, Options{}, l)
	c := serve(t, s)
	for i, ip := range []string{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:0db8:0001:0002::1%eth0"} {
		if got := ask1(t, c, request(descriptor("limit", "ip", "ip", ip))).Statuses[0].LimitRemaining; got != uint32(99-i) {
			t.Errorf("%s: %d left, want the bucket of its /64", ip, got)
		}
	}
	for i, ip := range []string{"192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"} {
		if got := ask1(t, c, request(descriptor("limit", "ip", "ip", ip))).Statuses[0].LimitRemaining; got != uint32(99-i) {
			t.Errorf("%s: %d left, want the bucket of 192.0.2.1", ip, got)
		}
	}
}

func TestAddressesByEnvoysNames(t *testing.T) {
	c := serve(t, newService(t, Options{}, daily("ip", 100, By{Kind: IP})))
	for i, d := range [][]string{
		{"limit", "ip", "ip", "192.0.2.1"},
		{"limit", "ip", "remote_address", "192.0.2.1"},
		{"limit", "ip", "masked_remote_address", "192.0.2.1/32"},
		{"masked_remote_address", "::ffff:192.0.2.1/128", "limit", "ip"},
	} {
		if got := ask1(t, c, request(descriptor(d...))).Statuses[0].LimitRemaining; got != uint32(99-i) {
			t.Errorf("%v: %d left, want the bucket of 192.0.2.1", d, got)
		}
	}
	for i, d := range [][]string{{"limit", "ip", "masked_remote_address", "192.0.2.0/24"}, {"limit", "ip", "remote_address", "192.0.2.0"}} {
		if got := ask1(t, c, request(descriptor(d...))).Statuses[0].LimitRemaining; got != uint32(99-i) {
			t.Errorf("%v: %d left, want a bucket of its own", d, got)
		}
	}
}

func TestMissingEntriesShareTheEmptyValue(t *testing.T) {
	l := daily("tenant", 2, By{Kind: Header, Name: "x-tenant"})
	c := serve(t, newService(t, Options{}, l))
	for i, d := range [][]string{{"limit", l.ID()}, {"limit", l.ID(), "header:x-tenant", ""}, {"limit", l.ID(), "other", "z"}} {
		if got := allowed(ask1(t, c, request(descriptor(d...)))); got != (i < 2) {
			t.Errorf("%v: allowed %v", d, got)
		}
	}
}

func TestHeadersTellOfTheNearestLimit(t *testing.T) {
	wide, near := daily("wide", 1000), Limit{Name: "near", Rate: Rate{Requests: 1, Window: 10 * time.Hour, Burst: 2, Algorithm: store.GCRA}}
	c := serve(t, newService(t, Options{}, wide, near))
	q := request(descriptor("limit", "wide"), descriptor("limit", "near"))
	want := []string{
		"RateLimit-Limit: 2\nRateLimit-Remaining: 1\nRateLimit-Reset: 36000\n",
		"RateLimit-Limit: 2\nRateLimit-Remaining: 0\nRateLimit-Reset: 72000\n",
		"RateLimit-Limit: 2\nRateLimit-Remaining: 0\nRateLimit-Reset: 72000\nRetry-After: 36000\n",
	}
	for _, w := range want {
		if d := cmp.Diff(w, headersOf(ask1(t, c, q))); d != "" {
			t.Error(d)
		}
	}
	r := ask1(t, c, q)
	if got := r.Statuses[0]; got.Code.String() != "OK" || got.LimitRemaining != 998 || got.CurrentLimit.GetUnit().String() != "DAY" || got.CurrentLimit.RequestsPerUnit != 1000 {
		t.Errorf("wide: %v", got)
	}
	if got := r.Statuses[1]; got.Code.String() != "OVER_LIMIT" || got.CurrentLimit.GetUnitMultiplier().GetValue() != 10 || got.DurationUntilReset.AsDuration() < 19*time.Hour {
		t.Errorf("near: %v", got)
	}
}

func TestUnknownLimits(t *testing.T) {
	l := daily("route/a/0", 1)
	c := serve(t, newService(t, Options{}, l))
	for _, id := range []string{"route/a/0@000000000000", "route/b/0@000000000000", "route/b/0", ""} {
		if _, err := c.ShouldRateLimit(t.Context(), request(descriptor("limit", l.ID()), descriptor("limit", id))); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want Unavailable", id, err)
		}
	}
	if _, err := c.ShouldRateLimit(t.Context(), request(descriptor("x", "y", "limit", "route/b/0"))); status.Code(err) != codes.Unavailable {
		t.Errorf("in the second entry: %v, want Unavailable", err)
	}
	foreign := request(descriptor("generic_key", "x"), descriptor(), descriptor("x", "limit"))
	if r := ask1(t, c, foreign); !allowed(r) || len(r.Statuses) != 3 || len(r.ResponseHeadersToAdd) != 0 {
		t.Errorf("foreign descriptors: %v", r)
	}
	other := request(descriptor("limit", l.ID()))
	other.Domain = "someone"
	if r := ask1(t, c, other); !allowed(r) || len(r.Statuses) != 1 {
		t.Errorf("foreign domain: %v", r)
	}
	if r := ask1(t, c, request(descriptor("limit", l.ID()))); !allowed(r) {
		t.Errorf("the others were charged: %v", r)
	}
	s := newService(t, Options{}, l)
	if v := s.Count(t.Context(), []string{"gone@1"}, Attributes{}, 1); v.Allowed || v.Status != 503 || v.Limit != "gone@1" {
		t.Errorf("Count: %+v", v)
	}
}

func TestLoadKeepsCountersAndBothVersions(t *testing.T) {
	old, next := daily("route/a/0", 10), daily("route/a/0", 5)
	s := newService(t, Options{}, old)
	c := serve(t, s)
	ask1(t, c, request(descriptor("limit", old.ID())))
	s.Load(Table{Limits: []Limit{old, next, {Name: "bad@"}}})
	for _, want := range []struct {
		id   string
		left uint32
	}{{old.ID(), 8}, {next.ID(), 2}, {"route/a/0", 1}} {
		if got := ask1(t, c, request(descriptor("limit", want.id))).Statuses[0].LimitRemaining; got != want.left {
			t.Errorf("%s: %d left, want %d", want.id, got, want.left)
		}
	}
	s.Load(Table{Limits: []Limit{next}})
	if _, err := c.ShouldRateLimit(t.Context(), request(descriptor("limit", old.ID()))); status.Code(err) != codes.Unavailable {
		t.Errorf("an old version: %v", err)
	}
}

func TestHitsAddend(t *testing.T) {
	c := serve(t, newService(t, Options{}, daily("a", 1<<33)))
	left := uint64(1 << 33)
	ask := func(all uint32, own int64, hits uint64) {
		t.Helper()
		d := descriptor("limit", "a")
		if own >= 0 {
			d.HitsAddend = wrap(own)
		}
		q := request(d)
		q.HitsAddend = all
		r := ask1(t, c, q)
		left -= hits
		if got, want := r.Statuses[0].LimitRemaining, clamp(int64(left)); got != want {
			t.Errorf("%d and %d: %d left, want %d", all, own, got, want)
		}
	}
	ask(1<<32-1, -1, 1<<32-1)
	ask(0, -1, 1)
	ask(7, -1, 7)
	ask(7, 5, 5)
	ask(7, 0, 0)
	ask(0, 1<<31, 1<<31)
	if r := ask1(t, c, func() *rlsRequest { q := request(descriptor("limit", "a")); q.HitsAddend = 1<<32 - 1; return q }()); allowed(r) {
		t.Errorf("past the limit: %v", r)
	}
	ask(0, 0, 0)
}

func TestOnError(t *testing.T) {
	with := func(name string, requests int64, e OnError) Limit {
		l := daily(name, requests)
		l.OnError = e
		return l
	}
	limits := []Limit{with("local", 2, Local), with("allow", 1, Allow), with("deny", 1, Deny)}
	embedded, err := store.Open(store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	st := &trouble{Store: embedded}
	reg := prometheus.NewPedanticRegistry()
	s := newService(t, Options{Store: st, Metrics: reg}, limits...)
	c := serve(t, s)
	st.down.Store(true)

	for i, want := range []bool{true, true, false, false} {
		if r := ask1(t, c, request(descriptor("limit", "local"), descriptor("limit", "allow"))); allowed(r) != want {
			t.Errorf("request %d with local: %v", i, r)
		}
	}
	for range 3 {
		if r := ask1(t, c, request(descriptor("limit", "allow"))); !allowed(r) || len(r.ResponseHeadersToAdd) != 0 {
			t.Errorf("allow: %v", r)
		}
	}
	for _, q := range []*rlsRequest{request(descriptor("limit", "deny")), request(descriptor("limit", "allow"), descriptor("limit", "deny"))} {
		if _, err := c.ShouldRateLimit(t.Context(), q); status.Code(err) != codes.Unavailable {
			t.Errorf("deny: %v, want Unavailable", err)
		}
	}
	if v := s.Count(t.Context(), []string{"deny"}, Attributes{}, 1); v.Allowed || v.Status != 503 || !v.Degraded {
		t.Errorf("deny: %+v", v)
	}
	if v := s.Count(t.Context(), []string{"allow"}, Attributes{}, 1); !v.Allowed || v.Status != 200 || !v.Degraded {
		t.Errorf("allow: %+v", v)
	}
	st.down.Store(false)
	if r := ask1(t, c, request(descriptor("limit", "local"))); !allowed(r) || r.Statuses[0].LimitRemaining != 1 {
		t.Errorf("the store is back: %v", r)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestTwoServicesOnOneRedisAreExact(t *testing.T) {
	url := startRedis(t)
	limits := []Limit{daily("fixed", 100), {Name: "gcra", Rate: Rate{Requests: 1, Window: time.Hour, Burst: 100, Algorithm: store.GCRA}}}
	a := serve(t, newService(t, Options{Store: openStore(t, url)}, limits...))
	b := serve(t, newService(t, Options{Store: openStore(t, url)}, limits...))
	for _, name := range []string{"fixed", "gcra"} {
		got := swarm(600, func(i int) bool {
			c := a
			if i%2 == 0 {
				c = b
			}
			r, err := c.ShouldRateLimit(context.Background(), request(descriptor("limit", name)))
			return err == nil && allowed(r)
		})
		if got != 100 {
			t.Errorf("%s: %d allowed, want 100", name, got)
		}
	}
}

func TestHeaderValuesStayOutOfTheStore(t *testing.T) {
	l := daily("key", 10, By{Kind: Header, Name: "x-api-key"})
	limit := newService(t, Options{}, l).table.Load().limits["key"]
	q := wireDescriptor{entries: []wireEntry{{"header:x-api-key", "hunter2"}}}
	key, _ := limit.bucket(nil, limit.prefix, &q)
	if bytes.Contains(key, []byte("hunter2")) {
		t.Errorf("the key tells the header: %s", key)
	}
}
