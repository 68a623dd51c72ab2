package ratelimit

import (
	"fmt"
	"math"
	"strconv"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/legation/legation/store"
)

// rate is a Rate with what each request would have to work out again; immutable.
type rate struct {
	hit       store.Hit // but for the key and the hits
	unlimited bool
	current   []byte // the answer's current_limit, as a field of a descriptor's status; none when unlimited
	policy    string // member of the header RateLimit-Policy
}

// newRate is the rate of a limit. A rate of no requests at all is made by blocked.
func newRate(l *Limit, r Rate) (*rate, error) {
	if r.Unlimited {
		if r != (Rate{Unlimited: true}) {
			return nil, fmt.Errorf("an unlimited rate says %d requests too", r.Requests)
		}
		return &rate{unlimited: true}, nil
	}
	zone, err := location(r.Zone)
	if err != nil {
		return nil, err
	}
	c := &rate{hit: store.Hit{
		Algorithm: r.Algorithm, Limit: r.Requests, Window: r.Window, Burst: r.Burst, Period: r.Period, Zone: zone,
		Lease: l.Lease, Beyond: l.Shadow,
	}}
	if l.Shadow {
		c.hit.Lease = 0 // the report tells every value's count
	}
	switch {
	case r.Algorithm != store.Calendar && (r.Zone != "" || r.Period != 0):
		return nil, fmt.Errorf("%s has no period and no zone", r.Algorithm)
	case r.Algorithm != store.GCRA && r.Burst != 0:
		return nil, fmt.Errorf("%s has no burst", r.Algorithm)
	case l.Lease < 0:
		return nil, fmt.Errorf("a lease of %d hits", l.Lease)
	}
	if err := c.hit.Validate(); err != nil {
		return nil, err
	}
	c.describe(l.Name)
	return c, nil
}

// location is nil for UTC.
func location(zone string) (*time.Location, error) {
	if zone == "" || zone == "UTC" {
		return nil, nil
	}
	if zone == "Local" {
		return nil, fmt.Errorf("zone %q differs from machine to machine", zone)
	}
	z, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("zone %q: %w", zone, err)
	}
	return z, nil
}

// blocked tells whether no request passes: an override in a descriptor may say 0.
func (r *rate) blocked() bool { return !r.unlimited && r.hit.Limit == 0 }

// describe makes what answers tell of the rate.
func (r *rate) describe(name string) {
	message, err := proto.Marshal(r.proto(name))
	if err != nil {
		message = nil // a name that isn't UTF-8
	}
	r.current = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), message)
	r.policy = quoted(name) + ";q=" + strconv.FormatInt(r.size(), 10)
	if w := r.span(); w > 0 {
		r.policy += ";w=" + strconv.FormatInt(int64(math.Ceil(w.Seconds())), 10)
	}
}

// size is how many hits the bucket holds.
func (r *rate) size() int64 {
	if r.hit.Algorithm == store.GCRA {
		return r.hit.Burst
	}
	return r.hit.Limit
}

// span is the time for size hits; 0 when it isn't always the same.
func (r *rate) span() time.Duration {
	switch {
	case r.hit.Algorithm == store.GCRA:
		return time.Duration(float64(r.hit.Window) * float64(r.hit.Burst) / float64(r.hit.Limit))
	case r.hit.Algorithm != store.Calendar:
		return r.hit.Window
	case r.hit.Period == store.Day:
		return day
	case r.hit.Period == store.Week:
		return 7 * day
	}
	return 0
}

const day = 24 * time.Hour

// units of the answer's current_limit, the longest first; a month or a year isn't the same length each time.
var units = []struct {
	unit   rls.RateLimitResponse_RateLimit_Unit
	length time.Duration
}{
	{rls.RateLimitResponse_RateLimit_WEEK, 7 * day},
	{rls.RateLimitResponse_RateLimit_DAY, day},
	{rls.RateLimitResponse_RateLimit_HOUR, time.Hour},
	{rls.RateLimitResponse_RateLimit_MINUTE, time.Minute},
	{rls.RateLimitResponse_RateLimit_SECOND, time.Second},
}

var periods = [...]rls.RateLimitResponse_RateLimit_Unit{
	store.Day:   rls.RateLimitResponse_RateLimit_DAY,
	store.Week:  rls.RateLimitResponse_RateLimit_WEEK,
	store.Month: rls.RateLimitResponse_RateLimit_MONTH,
	store.Year:  rls.RateLimitResponse_RateLimit_YEAR,
}

// proto says what Envoy can say of the rate; a window that isn't whole seconds has no unit.
func (r *rate) proto(name string) *rls.RateLimitResponse_RateLimit {
	p := &rls.RateLimitResponse_RateLimit{Name: name, RequestsPerUnit: clamp(r.hit.Limit)}
	if r.hit.Algorithm == store.Calendar {
		p.Unit = periods[r.hit.Period]
		return p
	}
	for _, u := range units {
		if r.hit.Window%u.length != 0 {
			continue
		}
		p.Unit = u.unit
		if n := r.hit.Window / u.length; n > 1 {
			p.UnitMultiplier = wrapperspb.UInt32(clamp(int64(n)))
		}
		return p
	}
	return p
}

// clamp is n as far as uint32 goes.
func clamp(n int64) uint32 {
	return uint32(min(max(n, 0), 1<<32-1))
}

// quoted is a string of RFC 9651; what such a string can't hold is written %XX.
func quoted(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			b = fmt.Appendf(b, "%%%02X", c)
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
