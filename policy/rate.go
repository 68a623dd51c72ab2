package policy

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a machine without time zones knows those of the language, too
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
	requests, unit, ok := readCount(d, n, rateWords)
	if !ok {
		return
	}
	if period := cmp.Or(quotaSlips[strings.ToLower(unit)], unit); slices.Contains(periods[1:], period) {
		d.Errorf(n, "a %s isn't always as long: want a rate per second, minute, hour, day or time span, got %q", period, n.Text).
			Hintf("write quota: %d/%s", requests, period)
		return
	}
	window, known := windows[unit]
	if !known {
		window, _ = time.ParseDuration(unit)
	}
	if window <= 0 {
		p := d.Errorf(n, "want a rate per second, minute, hour, day or time span such as 30s, got %q", n.Text)
		if word := slips[strings.ToLower(unit)]; word != "" {
			p.Hintf("write %d/%s", requests, word)
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

// countWords is what messages say of a number of requests per time.
type countWords struct{ what, example, form, units string }

var rateWords = countWords{
	"rate", "100/minute",
	"a whole number, a slash, and second, minute, hour, day or a time span such as 30s", "/second, or /minute, /hour, /day",
}

// readCount reads the number before the slash, and gives what stands behind it.
func readCount(d *Decode, n *Node, words countWords) (requests int64, unit string, ok bool) {
	count, unit, split := strings.Cut(n.Text, "/")
	requests, err := strconv.ParseInt(count, 10, 64)
	tooLarge := errors.Is(err, strconv.ErrRange) || requests > maxRequests
	switch {
	case n.Kind != Scalar:
		d.Errorf(n, "want a %s such as %s", words.what, words.example)
	case digits(count) && tooLarge:
		d.Errorf(n, "the %s %q is too large to be counted", words.what, n.Text).Hintf("the most is %d", maxRequests)
	case err != nil || !digits(count):
		d.Errorf(n, "want a %s such as %s, got %q", words.what, words.example, n.Text).Hintf("%s", words.form)
	case !split:
		d.Errorf(n, "a %s needs its unit, got %q", words.what, n.Text).Hintf("write %s%s", count, words.units)
	case requests == 0:
		d.Errorf(n, "want a %s of at least 1, got %q", words.what, n.Text).Hintf("a route that takes no request is left out of the policy")
	default:
		return requests, unit, true
	}
	return 0, "", false
}

// Quota is requests per span of the calendar as written: 10000/month.
type Quota struct {
	Requests int64
	Period   string // day, week, month or year
}

// periods are the spans of the calendar. All but the day, which has 23 hours or 25 now and then, are no unit of a rate.
var periods = []string{"day", "week", "month", "year"}

// quotaSlips are other words that people write for periods.
var quotaSlips = map[string]string{
	"d": "day", "days": "day", "w": "week", "weeks": "week",
	"mo": "month", "months": "month", "y": "year", "yr": "year", "years": "year",
}

var quotaWords = countWords{
	"quota", "10000/month", "a whole number, a slash, and day, week, month or year", "/month, or /day, /week, /year",
}

// DecodePolicy reads a quota.
func (q *Quota) DecodePolicy(d *Decode, n *Node) {
	requests, unit, ok := readCount(d, n, quotaWords)
	switch {
	case !ok:
	case slices.Contains(periods, unit):
		*q = Quota{Requests: requests, Period: unit}
	case quotaSlips[strings.ToLower(unit)] != "":
		d.Errorf(n, "want a quota per day, week, month or year, got %q", n.Text).
			Hintf("write %d/%s", requests, quotaSlips[strings.ToLower(unit)])
	default:
		p := d.Errorf(n, "want a quota per day, week, month or year, got %q", n.Text)
		if _, err := time.ParseDuration(unit); err == nil || windows[cmp.Or(slips[strings.ToLower(unit)], unit)] > 0 {
			p.Hintf("a shorter time, or any other span, makes a rate: write rate: %d/%s", requests, cmp.Or(slips[strings.ToLower(unit)], unit))
		}
	}
}

// PolicySchema describes a quota.
func (*Quota) PolicySchema(*Schemas) map[string]any {
	return map[string]any{
		"type": "string", "pattern": `^[0-9]+/(day|week|month|year)$`, "description": "requests per span of the calendar: 10000/month",
	}
}

// TimeZone is a zone by its name in the IANA database: Europe/Berlin.
type TimeZone string

// DecodePolicy reads a zone. The name Local, which Go takes, is another zone on each machine.
func (z *TimeZone) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar || n.Text == "" || n.Text == "Local" {
		d.Errorf(n, "want a time zone such as Europe/Berlin, got %s", n.shape()).Hintf("the names are those of the IANA database; UTC is the default")
		return
	}
	if _, err := time.LoadLocation(n.Text); err != nil {
		d.Errorf(n, "there is no time zone %s", n.shape()).Hintf("the names are those of the IANA database: Europe/Berlin, America/New_York, UTC")
		return
	}
	*z = TimeZone(n.Text)
}

// PolicySchema describes a zone.
func (*TimeZone) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "minLength": 1, "description": "a time zone by its IANA name: Europe/Berlin"}
}
