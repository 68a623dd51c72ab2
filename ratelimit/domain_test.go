package ratelimit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/legation/legation/expr"
)

// perDay is n requests a day.
func perDay(n int64) *Limit {
	return &Limit{Rate: Rate{Requests: n, Window: 24 * time.Hour}}
}

// in asks the domain d for descriptors such as "key=value,key=value".
func in(descriptors ...string) *rls.RateLimitRequest {
	q := &rls.RateLimitRequest{Domain: "d"}
	for _, text := range descriptors {
		d := &rlcommon.RateLimitDescriptor{}
		for pair := range strings.SplitSeq(text, ",") {
			key, value, _ := strings.Cut(pair, "=")
			d.Entries = append(d.Entries, &rlcommon.RateLimitDescriptor_Entry{Key: key, Value: value})
		}
		q.Descriptors = append(q.Descriptors, d)
	}
	return q
}

func domainService(t *testing.T, descriptors ...Descriptor) *Service {
	t.Helper()
	d := Domain{Name: "d", Descriptors: descriptors}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	s := New(Options{})
	t.Cleanup(func() { s.Close() })
	s.Load(Table{Domains: []Domain{d}})
	return s
}

// told is what the answer says: the code, then of each descriptor the code, the limit and what is left.
func told(t *testing.T, s *Service, q *rls.RateLimitRequest) string {
	t.Helper()
	r, err := (&server{s: s}).ShouldRateLimit(t.Context(), q)
	if err != nil {
		return err.Error()
	}
	text := r.OverallCode.String()
	for _, st := range r.Statuses {
		text += fmt.Sprintf(" %s", st.Code)
		if st.CurrentLimit != nil {
			text += fmt.Sprintf(":%d/%d", st.LimitRemaining, st.CurrentLimit.RequestsPerUnit)
		}
	}
	return text
}

func TestDescriptorsMeetTheMostSpecificNode(t *testing.T) {
	s := domainService(t,
		Descriptor{Key: "a", Limit: perDay(10)},
		Descriptor{Key: "a", Value: "x", Limit: perDay(20)},
		Descriptor{Key: "a", Value: "/api/*/action", Limit: perDay(30)},
		Descriptor{Key: "a", Value: "/api/*", Limit: perDay(40)},
		Descriptor{Key: "b", Value: "v", Descriptors: []Descriptor{{Key: "c", Limit: perDay(50)}, {Key: "c", Value: "free", Limit: &Limit{Rate: Rate{Unlimited: true}}}}},
		Descriptor{Key: "ip", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Limit: perDay(60)},
		Descriptor{Key: "ip", Prefix: netip.MustParsePrefix("10.1.0.0/16"), Limit: perDay(70)},
		Descriptor{Key: "ip", Value: "10.1.2.3", Deny: true},
		Descriptor{Key: "n", Range: &Range{400, 499}, Limit: perDay(80)},
		Descriptor{Key: "n", Range: &Range{404, 404}, Limit: perDay(90)},
		Descriptor{Key: "listed"},
	)
	for _, row := range []struct{ ask, want string }{
		{"a=anything", "OK OK:9/10"},
		{"a=other", "OK OK:9/10"},
		{"a=anything", "OK OK:8/10"},
		{"a=x", "OK OK:19/20"},
		{"a=/api/1/action", "OK OK:29/30"},
		{"a=/api/1/other", "OK OK:39/40"},
		{"a=", "OK OK:9/10"},
		{"b=v", "OK OK"},
		{"b=v,c=1", "OK OK:49/50"},
		{"b=v,c=2", "OK OK:49/50"},
		{"b=v,c=free", "OK OK"},
		{"b=w,c=1", "OK OK"},
		{"a=x,c=1", "OK OK"},
		{"b=v,c=1,d=2", "OK OK"},
		{"ip=10.9.9.9", "OK OK:59/60"},
		{"ip=::ffff:10.9.9.8", "OK OK:59/60"},
		{"ip=10.1.9.9", "OK OK:69/70"},
		{"ip=10.1.2.3", "OVER_LIMIT OVER_LIMIT:0/0"},
		{"ip=192.0.2.1", "OK OK"},
		{"ip=ten", "OK OK"},
		{"n=404", "OK OK:89/90"},
		{"n=499", "OK OK:79/80"},
		{"n=500", "OK OK"},
		{"n=4e2", "OK OK"},
		{"listed=1", "OK OK"},
		{"unknown=1", "OK OK"},
	} {
		if got := told(t, s, in(row.ask)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.ask, got, row.want)
		}
	}
}

func TestDescriptorsOfADomainAreOneDecision(t *testing.T) {
	s := domainService(t, Descriptor{Key: "a", Limit: perDay(1)}, Descriptor{Key: "b", Limit: perDay(5)}, Descriptor{Key: "c", Deny: true})
	for _, row := range []struct{ ask, want string }{
		{"a=1 b=1", "OK OK:0/1 OK:4/5"},
		{"a=1 b=1", "OVER_LIMIT OVER_LIMIT:0/1 OK:4/5"},
		{"a=2 b=1", "OK OK:0/1 OK:3/5"},
		{"b=1 c=1", "OVER_LIMIT OK:3/5 OVER_LIMIT:0/0"},
		{"b=1 z=1", "OK OK:2/5 OK"},
	} {
		if got := told(t, s, in(strings.Fields(row.ask)...)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.ask, got, row.want)
		}
	}
}

func TestPatternsMayShareABucket(t *testing.T) {
	s := domainService(t,
		Descriptor{Key: "f", Value: "files/*", Shared: true, Limit: perDay(10)},
		Descriptor{Key: "g", Value: "files/*", Limit: perDay(10)},
		Descriptor{Key: "h", Value: "p*", Shared: true, Descriptors: []Descriptor{{Key: "u", Limit: perDay(10)}}},
	)
	for _, row := range []struct{ ask, want string }{
		{"f=files/a", "OK OK:9/10"},
		{"f=files/b", "OK OK:8/10"},
		{"f=files/*", "OK OK:7/10"},
		{"g=files/a", "OK OK:9/10"},
		{"g=files/b", "OK OK:9/10"},
		{"h=p1,u=a", "OK OK:9/10"},
		{"h=p2,u=a", "OK OK:8/10"},
		{"h=p2,u=b", "OK OK:9/10"},
	} {
		if got := told(t, s, in(row.ask)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.ask, got, row.want)
		}
	}
}

func TestALimitMayReplaceAnother(t *testing.T) {
	s := domainService(t,
		Descriptor{Key: "k1", Value: "v", Descriptors: []Descriptor{{Key: "user", Value: "u", RateName: "specific", Limit: perDay(5)}}},
		Descriptor{Key: "k2", Value: "v", Descriptors: []Descriptor{{Key: "user", Value: "u", Replaces: []string{"specific"}, Limit: perDay(10)}}},
	)
	for _, row := range []struct{ ask, want string }{
		{"k1=v,user=u", "OK OK:4/5"},
		{"k2=v,user=u", "OK OK:9/10"},
		{"k1=v,user=u k2=v,user=u", "OK OK OK:8/10"},
		{"k1=v,user=u", "OK OK:3/5"},
	} {
		if got := told(t, s, in(strings.Fields(row.ask)...)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.ask, got, row.want)
		}
	}
}

func TestSoftLimitsRefuseTogether(t *testing.T) {
	shadow := perDay(1)
	shadow.Shadow = true
	s := domainService(t,
		Descriptor{Key: "a", Soft: true, Limit: perDay(1), Metadata: map[string]string{"pool": "a"}},
		Descriptor{Key: "b", Soft: true, Limit: perDay(2), Metadata: map[string]string{"pool": "b"}},
		Descriptor{Key: "s", Limit: shadow},
	)
	for i, row := range []struct{ want, pool, shadow string }{
		{"OK OK:0/1 OK:1/2", "b", ""},
		{"OK OVER_LIMIT:0/1 OK:0/2", "b", "rateLimits/d/a"},
		{"OVER_LIMIT OVER_LIMIT:0/1 OVER_LIMIT:0/2", "", "rateLimits/d/a"},
	} {
		q := in("a=1", "b=1")
		if got := told(t, s, q); got != row.want {
			t.Errorf("request %d: got %s, want %s", i, got, row.want)
		}
		// The same again, by other values, for the metadata.
		q = in("a=m", "b=m")
		r, err := (&server{s: s}).ShouldRateLimit(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		m := r.GetDynamicMetadata().AsMap()
		said, _ := m["metadata"].(map[string]any)
		pool, _ := said["pool"].(string)
		name, _ := m["shadow"].(string)
		if pool != row.pool || name != row.shadow {
			t.Errorf("request %d: got the metadata %v, want pool %q and shadow %q", i, m, row.pool, row.shadow)
		}
	}
	for range 3 {
		if got := told(t, s, in("s=1")); !strings.HasPrefix(got, "OK OK") {
			t.Errorf("a limit in shadow: got %s", got)
		}
	}
}

// A caller may bring the limit with the descriptor; it holds for its entries whatever the tree says.
func TestDescriptorsBringTheirLimit(t *testing.T) {
	s := domainService(t, Descriptor{Key: "a", Limit: perDay(10)})
	brings := func(n uint32, unit typev3.RateLimitUnit, text string) *rls.RateLimitRequest {
		q := in(text)
		q.Descriptors[0].Limit = &rlcommon.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: n, Unit: unit}
		return q
	}
	for i, row := range []struct {
		q    *rls.RateLimitRequest
		want string
	}{
		{brings(3, typev3.RateLimitUnit_DAY, "a=1"), "OK OK:2/3"},
		{brings(3, typev3.RateLimitUnit_DAY, "a=1"), "OK OK:1/3"},
		{brings(3, typev3.RateLimitUnit_DAY, "zzz=1,y=2"), "OK OK:2/3"},
		{brings(0, typev3.RateLimitUnit_DAY, "zzz=1"), "OVER_LIMIT OVER_LIMIT:0/0"},
		{in("a=1"), "OK OK:9/10"},
	} {
		if got := told(t, s, row.q); got != row.want {
			t.Errorf("request %d: got %s, want %s", i, got, row.want)
		}
	}
}

func TestValuesInKeysAreNotConfused(t *testing.T) {
	d := Domain{Name: "d", Descriptors: []Descriptor{
		{Key: "a", Descriptors: []Descriptor{{Key: "b"}}},
		{Key: "a", Value: "v"},
		{Key: "a", Value: "v*", Shared: true},
		{Key: "a=", Value: "x"},
		{Key: "a", Value: "10.0.0.1"},
	}}
	c := compiler{programs: map[string]*expr.Value{}}
	ready, err := c.domain(&d)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, ask := range []string{"a=v", "a=v1", "a=v*", "a=*", "a=|", "a=", "a=||v", "a=1,b=2", "a=1,b=2|3", "a=1|b,b=2", "a==x", "a=10.0.0.1", "a=10.0.0.2", "a=\x00"} {
		var entries []wireEntry
		for pair := range strings.SplitSeq(ask, ",") {
			key, value, _ := strings.Cut(pair, "=")
			entries = append(entries, wireEntry{key, value})
		}
		key, e := ready.find(nil, entries)
		if e == nil {
			t.Errorf("%q meets nothing", ask)
		}
		other, taken := seen[string(key)]
		if taken && !(other == "a=v1" && ask == "a=v*") { // these two share
			t.Errorf("%q and %q have one key, %s", ask, other, key)
		}
		seen[string(key)] = ask
	}
	if key, _ := ready.find(nil, []wireEntry{{"a", "hunter2"}, {"b", "secret-token"}}); strings.Contains(string(key), "hunter2") || strings.Contains(string(key), "secret") {
		t.Errorf("the key %s tells what a client sent", key)
	}
}

func TestDomainsThatCantBe(t *testing.T) {
	deep := Descriptor{Key: "k"}
	for range maxDescriptorDepth {
		deep = Descriptor{Key: "k", Descriptors: []Descriptor{deep}}
	}
	for want, d := range map[string]Domain{
		"want a name in UTF-8":          {},
		"not that of this system's own": {Name: OwnDomain},
		"want a key":                    {Name: "d", Descriptors: []Descriptor{{Value: "v"}}},
		"same key and value":            {Name: "d", Descriptors: []Descriptor{{Key: "a"}, {Key: "a"}}},
		"d/a=v: b: another descriptor":  {Name: "d", Descriptors: []Descriptor{{Key: "a", Value: "v", Descriptors: []Descriptor{{Key: "b", Value: "*"}, {Key: "b", Value: "*"}}}}},
		"could share a bucket":          {Name: "d", Descriptors: []Descriptor{{Key: "a", Value: "v", Shared: true}}},
		"one of a value, a range":       {Name: "d", Descriptors: []Descriptor{{Key: "a", Value: "v", Range: &Range{1, 2}}}},
		"the range 2-1 is empty":        {Name: "d", Descriptors: []Descriptor{{Key: "a", Range: &Range{2, 1}}}},
		"by its descriptors alone":      {Name: "d", Descriptors: []Descriptor{{Key: "a", Limit: &Limit{By: []By{{Kind: IP}}}}}},
		"deeper than":                   {Name: "d", Descriptors: []Descriptor{deep}},
		"limit 0 is not within":         {Name: "d", Descriptors: []Descriptor{{Key: "a", Limit: &Limit{Rate: Rate{Window: time.Second}}}}},
	} {
		if err := d.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestMetricsTellValuesInBounds(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := New(Options{Metrics: registry})
	t.Cleanup(func() { s.Close() })
	table := Table{Domains: []Domain{{Name: "d", Descriptors: []Descriptor{{Key: "a", PerValue: true, Limit: perDay(1)}}}}}
	s.Load(table)
	for range 2 {
		told(t, s, in("a=x"))
	}
	got := samples(t, registry, "legation_ratelimit_decisions_total")
	if got["rateLimits/d/a a=x ok"] != 1 || got["rateLimits/d/a a=x over"] != 1 {
		t.Errorf("got %v, want one of each for the value", got)
	}
	for i := range 2 * maxVariants {
		told(t, s, in(fmt.Sprint("a=", i)))
	}
	if n := len(samples(t, registry, "legation_ratelimit_decisions_total")); n > 2*maxVariants+20 {
		t.Errorf("%d series, want at most two for each of %d values", n, maxVariants)
	}
	s.Load(Table{Domains: slices.Clone(table.Domains)})
	if n := len(samples(t, registry, "legation_ratelimit_decisions_total")); n > 20 {
		t.Errorf("%d series after another table, want those of the limit alone", n)
	}
}
