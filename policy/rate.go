package policy

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Rate is requests per time as written: 100/minute, 10/30s.
type Rate struct {
	Requests int64
	Window   time.Duration
}

// Bounds of a rate: what the companion counts exactly, in Redis' doubles, and no faster than a trip to it takes.
const (
	maxRequests = int64(1) << 53
	minWindow   = 10 * time.Millisecond
	maxWindow   = 2 * 366 * 24 * time.Hour
)

// windows are the lengths that have a word.
var windows = map[string]time.Duration{
	"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour,
}

// slips are other words that people write for windows.
var slips = map[string]string{
	"s": "second", "sec": "second", "seconds": "second",
	"m": "minute", "min": "minute", "minutes": "minute",
	"h": "hour", "hr": "hour", "hours": "hour",
	"d": "day", "days": "day",
}

// DecodePolicy reads a rate.
func (r *Rate) DecodePolicy(d *Decode, n *Node) {
	count, unit, split := strings.Cut(n.Text, "/")
	requests, err := strconv.ParseInt(count, 10, 64)
	tooLarge := errors.Is(err, strconv.ErrRange) || requests > maxRequests
	switch {
	case n.Kind != Scalar:
		d.Errorf(n, "want a rate such as 100/minute")
		return
	case digits(count) && tooLarge:
		d.Errorf(n, "the rate %q is too large to be counted", n.Text).Hintf("the most is %d", maxRequests)
		return
	case err != nil || !digits(count):
		d.Errorf(n, "want a rate such as 100/minute, got %q", n.Text).Hintf("a whole number, a slash, and second, minute, hour, day or a time span such as 30s")
		return
	case !split:
		d.Errorf(n, "a rate needs its unit, got %q", n.Text).Hintf("write %s/second, or /minute, /hour, /day", count)
		return
	case requests == 0:
		d.Errorf(n, "want a rate of at least 1, got %q", n.Text).Hintf("a route that takes no request is left out of the policy")
		return
	}
	window, known := windows[unit]
	if !known {
		window, err = time.ParseDuration(unit)
	}
	if err != nil || window <= 0 {
		p := d.Errorf(n, "want a rate per second, minute, hour, day or time span such as 30s, got %q", n.Text)
		if word := slips[strings.ToLower(unit)]; word != "" {
			p.Hintf("write %s/%s", count, word)
		}
		return
	}
	if window < minWindow || window > maxWindow || window%time.Millisecond != 0 {
		d.Errorf(n, "want a time span from 10ms to two years, in whole milliseconds, got %q", unit)
		return
	}
	*r = Rate{Requests: requests, Window: window}
}

// PolicySchema describes a rate.
func (*Rate) PolicySchema(*Schemas) map[string]any {
	return map[string]any{
		"type": "string", "pattern": `^[0-9]+/(second|minute|hour|day|[0-9.]+(ms|s|m|h).*)$`,
		"description": "requests per time: 100/minute, 10/30s",
	}
}
