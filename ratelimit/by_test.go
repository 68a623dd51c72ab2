package ratelimit

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/store"
)

// left is what one request, counted by its attributes, leaves of the limit.
func left(t testing.TB, s *Service, limit string, a Attributes) string {
	t.Helper()
	v := s.Count(t.Context(), []string{limit}, a, 1)
	if v.Status != 200 {
		t.Fatalf("%+v", v)
	}
	if len(v.Headers) < 2 {
		return "not counted"
	}
	return v.Headers[1].Value
}

// TestBothWaysCountInOneBucket has each kind of part counted by attributes, and by a descriptor that says the same.
func TestBothWaysCountInOneBucket(t *testing.T) {
	header := map[string]string{"x-t": "blue", "cookie": `a=1; session="s 1"; b=2`}
	a := Attributes{
		IP: netip.MustParseAddr("2001:db8:1:2::9"), Consumer: "idp/alice", Route: "edge/orders", Method: "GET",
		Host: "API.Example.com:8443", Path: "/v1/orders?q=1", Scheme: "https",
		Header: func(name string) string { return header[name] },
		Claim:  func(name string) string { return map[string]string{"tenant": "acme"}[name] },
	}
	for _, test := range []struct {
		by           By
		entry, value string // what an Envoy sends
		other        string // a value of another bucket
	}{
		{By{Kind: IP}, "ip", "2001:db8:1:2:ffff::1", "2001:db8:1:3::9"},
		{By{Kind: IP, Bits: 48}, "ip", "2001:db8:1:ffff::1", "2001:db8:2:2::9"},
		{By{Kind: IP, Bits: 128}, "ip", "2001:db8:1:2::9", "2001:db8:1:2::a"},
		{By{Kind: IP, Bits: 100}, "ip", "2001:db8:1:2::fff:ffff", "2001:db8:1:2:0:1::"},
		{By{Kind: Consumer}, "consumer", "idp/alice", "idp/Alice"},
		{By{Kind: Header, Name: "X-T"}, "header:x-t", "blue", "Blue"},
		{By{Kind: Claim, Name: "tenant"}, "claim:tenant", "acme", ""},
		{By{Kind: Cookie, Name: "session"}, "cookie:session", "s 1", `"s 1"`},
		{By{Kind: Path}, "path", "/v1/orders?other=2", "/v1/orders/"},
		{By{Kind: Path}, "path", "/v1/orders", "/V1/orders"},
		{By{Kind: Route}, "route", "edge/orders", "edge/other"},
		{By{Kind: Method}, "method", "GET", "get"},
		{By{Kind: Host}, "host", "api.example.com.", "example.com"},
		{By{Kind: Host}, "host", "api.EXAMPLE.com:80", "api.example.com.evil"},
		{By{Kind: CEL, Name: "request.method + request.headers['x-t']"}, By{Kind: CEL, Name: "request.method + request.headers['x-t']"}.Entry(), "GETblue", "GET"},
	} {
		if test.by.Kind == Header {
			header["X-T"] = header["x-t"] // auth looks names up in lower case
		}
		s := newService(t, Options{}, daily("l", 100, test.by))
		got := []string{left(t, s, "l", a)}
		for _, value := range []string{test.value, test.other} {
			r := answer(t, s, request(descriptor("limit", "l", test.entry, value)))
			got = append(got, headersOf(r)[strings.Index(headersOf(r), "ing: ")+5:][:2])
		}
		if d := cmp.Diff([]string{"99", "98", "99"}, got); d != "" {
			t.Errorf("%v %q: %s", test.by, test.value, d)
		}
	}
}

func TestHostnames(t *testing.T) {
	for host, want := range map[string]string{
		"a.test": "a.test", "A.Test:80": "a.test", "a.test.": "a.test", "[2001:DB8::1]:443": "[2001:db8::1]", "[::1]": "[::1]",
		"::1": "::1", "": "", "a:b:c": "a:b:c", "[": "[",
	} {
		if got := hostname(host); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}

func TestCookies(t *testing.T) {
	for header, want := range map[string]string{
		"id=1": "1", "a=2; id=1": "1", "a=2;id=1": "1", "id=1, id=2": "1, id=2", " id = 1 ": "1", `id="x"`: "x", "id=": "", "id": "",
		"xid=1": "", "": "", "ID=1": "", "id=a=b": "a=b", `id="`: `"`,
	} {
		if got := cookie(header, "id"); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func TestEntriesOfParts(t *testing.T) {
	for want, b := range map[string]By{
		"ip": {Kind: IP, Bits: 56}, "header:x-a": {Kind: Header, Name: "X-A"}, "cookie:Id": {Kind: Cookie, Name: "Id"},
		"path": {Kind: Path}, "route": {Kind: Route}, "method": {Kind: Method}, "host": {Kind: Host}, "cel:f36e564f": {Kind: CEL, Name: "request.host"},
	} {
		if got := b.Entry(); got != want {
			t.Errorf("%+v: %s, want %s", b, got, want)
		}
	}
}

func TestWhatCantBeCountedIsRefused(t *testing.T) {
	with := func(change func(l *Limit)) Limit {
		l := daily("a", 10, By{Kind: IP})
		change(&l)
		return l
	}
	for name, l := range map[string]Limit{
		"no name":                with(func(l *Limit) { l.Name = "" }),
		"@":                      with(func(l *Limit) { l.Name = "a@b" }),
		"name that isn't UTF-8":  with(func(l *Limit) { l.Name = "\xff" }),
		"kind":                   with(func(l *Limit) { l.By[0].Kind = CEL + 1 }),
		"header without name":    with(func(l *Limit) { l.By[0].Kind = Header }),
		"path with name":         with(func(l *Limit) { l.By[0] = By{Kind: Path, Name: "x"} }),
		"bits of a path":         with(func(l *Limit) { l.By[0] = By{Kind: Path, Bits: 64} }),
		"129 bits":               with(func(l *Limit) { l.By[0].Bits = 129 }),
		"expression":             with(func(l *Limit) { l.By[0] = By{Kind: CEL, Name: "request.hots"} }),
		"no requests":            with(func(l *Limit) { l.Requests = 0 }),
		"no window":              with(func(l *Limit) { l.Window = 0 }),
		"burst of a window":      with(func(l *Limit) { l.Burst = 5 }),
		"period of a window":     with(func(l *Limit) { l.Period = store.Month }),
		"zone of a window":       with(func(l *Limit) { l.Zone = "UTC" }),
		"unlimited with a rate":  with(func(l *Limit) { l.Unlimited = true }),
		"zone":                   with(func(l *Limit) { l.Rate = Rate{Requests: 1, Algorithm: store.Calendar, Zone: "Europe/Atlantis"} }),
		"local zone":             with(func(l *Limit) { l.Rate = Rate{Requests: 1, Algorithm: store.Calendar, Zone: "Local"} }),
		"negative lease":         with(func(l *Limit) { l.Lease = -1 }),
		"headers":                with(func(l *Limit) { l.Headers = NoHeaders << 1 }),
		"headers and none":       with(func(l *Limit) { l.Headers = NoHeaders | Draft03 }),
		"override by two parts":  with(func(l *Limit) { l.By = append(l.By, By{Kind: Path}); l.Exempt = []string{"10.0.0.1"} }),
		"override of no address": with(func(l *Limit) { l.Overrides = []Override{{"x", Rate{Unlimited: true}}} }),
		"override without rate":  with(func(l *Limit) { l.Overrides = []Override{{Value: "10.0.0.1"}} }),
		"override of no value":   with(func(l *Limit) { l.By[0] = By{Kind: Path}; l.Exempt = []string{""} }),
		"twice the same prefix":  with(func(l *Limit) { l.Exempt = []string{"10.0.0.1", "10.0.0.1/32"} }),
		"twice the same host":    with(func(l *Limit) { l.By[0] = By{Kind: Host}; l.Exempt = []string{"a.test", "A.test:80"} }),
		"mapped prefix":          with(func(l *Limit) { l.Exempt = []string{"::ffff:10.0.0.0/104"} }),
	} {
		if err := l.Validate(); err == nil {
			t.Errorf("%s: it can be counted", name)
		}
	}
	good := with(func(l *Limit) {
		l.Rate = Rate{Requests: 1, Algorithm: store.Calendar, Period: store.Month, Zone: "Europe/Berlin"}
	})
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValuesWithRatesOfTheirOwn(t *testing.T) {
	l := daily("ip", 100, By{Kind: IP})
	l.Overrides = []Override{
		{"192.0.2.0/24", Rate{Requests: 50, Window: 24 * time.Hour}},
		{"192.0.2.7", Rate{Requests: 5, Window: 24 * time.Hour}},
		{"192.0.2.128/25", Rate{Unlimited: true}},
		{"2001:db8::/32", Rate{Requests: 20, Window: 24 * time.Hour}},
	}
	l.Exempt = []string{"10.0.0.0/8", "2001:db8:f::/48"}
	c := daily("consumer", 100, By{Kind: Consumer})
	c.Overrides = []Override{{"acme", Rate{Requests: 7, Window: 24 * time.Hour}}}
	c.Exempt = []string{"health"}
	s := newService(t, Options{}, l, c)
	for ip, want := range map[string]string{
		"192.0.2.1": "49", "192.0.2.2": "49", "192.0.2.7": "4", "192.0.2.200": "not counted", "198.51.100.1": "99",
		"10.1.2.3": "not counted", "2001:db8:1::1": "19", "2001:db8:f::1": "not counted", "2001:db9::1": "99",
	} {
		if got := left(t, s, "ip", Attributes{IP: netip.MustParseAddr(ip)}); got != want {
			t.Errorf("%s: %s left, want %s", ip, got, want)
		}
	}
	for consumer, want := range map[string]string{"acme": "6", "health": "not counted", "other": "99", "": "99"} {
		if got := left(t, s, "consumer", Attributes{Consumer: consumer}); got != want {
			t.Errorf("%s: %s left, want %s", consumer, got, want)
		}
	}
	r := answer(t, s, request(descriptor("limit", "ip", "ip", "192.0.2.200"), descriptor("limit", "ip", "ip", "10.0.0.1"), descriptor("limit", "ip", "ip", "::ffff:192.0.2.7")))
	if r.Statuses[0].LimitRemaining != 1<<32-1 || r.Statuses[0].CurrentLimit != nil || r.Statuses[1].CurrentLimit != nil || r.Statuses[2].LimitRemaining != 3 {
		t.Errorf("%v", r.Statuses)
	}
}
