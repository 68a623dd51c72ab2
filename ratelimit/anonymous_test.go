package ratelimit

import (
	"net/netip"
	"testing"
	"time"

	"github.com/legation/legation/store"
)

func TestRefusedCallersCountByAddressAlone(t *testing.T) {
	for name, test := range map[string]struct {
		by   []By
		want int // status of the third request of somebody known, after two of nobody known
	}{
		"all in one bucket": {nil, 200},
		"ip":                {[]By{{Kind: IP}}, 429},
		"header":            {[]By{{Kind: Header, Name: "x-t"}}, 200},
		"ip and header":     {[]By{{Kind: IP}, {Kind: Header, Name: "x-t"}}, 200},
		"consumer":          {[]By{{Kind: Consumer}}, 200},
		"claim":             {[]By{{Kind: Claim, Name: "sub"}}, 200},
	} {
		limit := Limit{Name: "route/r/0", By: test.by, Rate: Rate{Requests: 2, Window: time.Hour, Algorithm: store.FixedWindow}}
		s := newService(t, Options{}, limit)
		who := Attributes{IP: netip.MustParseAddr("192.0.2.7"), Header: func(string) string { return "v" }}
		for _, anonymous := range []bool{true, true, false} {
			who.Anonymous = anonymous
			got := s.Count(t.Context(), []string{limit.ID()}, who, 1).Status
			if want := map[bool]int{true: 200, false: test.want}[anonymous]; got != want {
				t.Errorf("%s, anonymous %t: %d, want %d", name, anonymous, got, want)
			}
		}
	}
}
