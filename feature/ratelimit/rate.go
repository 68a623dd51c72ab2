package ratelimit

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

// Rate is requests per time as written: 100/minute, 10/30s.
type Rate struct {
	Requests int64
	Window   time.Duration
}

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
func (r *Rate) DecodePolicy(d *policy.Decode, n *policy.Node) {
	count, unit, split := strings.Cut(n.Text, "/")
	requests, err := strconv.ParseInt(count, 10, 64)
	tooLarge := errors.Is(err, strconv.ErrRange) || requests > store.MaxCount
	switch {
	case n.Kind != policy.Scalar:
		d.Errorf(n, "want a rate such as 100/minute")
		return
	case digits(count) && tooLarge:
		d.Errorf(n, "the rate %q is too large to be counted", n.Text).Hintf("the most is %d", store.MaxCount)
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
	if window < store.MinWindow || window > store.MaxWindow || window%time.Millisecond != 0 {
		d.Errorf(n, "want a time span from 10ms to two years, in whole milliseconds, got %q", unit)
		return
	}
	*r = Rate{Requests: requests, Window: window}
}

// PolicySchema describes a rate.
func (*Rate) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{
		"type": "string", "pattern": `^[0-9]+/(second|minute|hour|day|[0-9.]+(ms|s|m|h).*)$`,
		"description": "requests per time: 100/minute, 10/30s",
	}
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// By is what each bucket belongs to, as written: one part, or a list of parts that make one value together.
type By []ratelimit.By

const maxParts = 4

// DecodePolicy reads one part or a list.
func (b *By) DecodePolicy(d *policy.Decode, n *policy.Node) {
	nodes := []*policy.Node{n}
	if n.Kind == policy.List {
		nodes = n.Items
	}
	switch {
	case len(nodes) == 0:
		d.Errorf(n, "name at least one part").Hintf("leave by out for one bucket for all")
	case len(nodes) > maxParts:
		d.Errorf(n, "want at most %d parts, got %d", maxParts, len(nodes))
	}
	for _, item := range nodes {
		part, ok := readPart(d, item)
		if ok && slices.Contains(*b, part) {
			d.Errorf(item, "this part stands here twice").Hintf("remove one of the two")
		}
		*b = append(*b, part)
	}
}

func readPart(d *policy.Decode, n *policy.Node) (ratelimit.By, bool) {
	switch {
	case n.Kind == policy.Scalar && n.Text == "ip":
		return ratelimit.By{Kind: ratelimit.IP}, true
	case n.Kind == policy.Scalar && n.Text == "consumer":
		return ratelimit.By{Kind: ratelimit.Consumer}, true
	case n.Kind == policy.Map && len(n.Keys) == 1 && n.Items[0].Kind == policy.Scalar:
		return readNamed(d, n.Keys[0].Text, n.Items[0])
	}
	p := d.Errorf(n, "want ip, consumer, {header: NAME} or {claim: NAME}")
	switch n.Text {
	case "header", "claim":
		p.Hintf("write {%s: NAME}", n.Text)
	case "address", "client", "remoteAddress", "remote_address":
		p.Hintf("write ip")
	case "user", "sub", "subject":
		p.Hintf("write consumer")
	}
	return ratelimit.By{}, false
}

// maxName bounds the names of headers and claims, which travel with each call.
const maxName = 256

func readNamed(d *policy.Decode, key string, n *policy.Node) (ratelimit.By, bool) {
	switch {
	case len(n.Text) > maxName:
		d.Errorf(n, "the name has %d bytes; want at most %d", len(n.Text), maxName)
	case key == "header" && headerName(n.Text):
		return ratelimit.By{Kind: ratelimit.Header, Name: strings.ToLower(n.Text)}, true
	case key == "header":
		d.Errorf(n, "%q is not a header name", n.Text).Hintf("letters, digits and - make a header name")
	case key == "claim" && n.Text != "" && strings.TrimSpace(n.Text) == n.Text:
		return ratelimit.By{Kind: ratelimit.Claim, Name: n.Text}, true
	case key == "claim":
		d.Errorf(n, "want the name of a claim, dotted where it is nested, got %q", n.Text)
	default:
		d.Errorf(n, "want header or claim, got %q", key)
	}
	return ratelimit.By{}, false
}

func headerName(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// PolicySchema describes one part or a list.
func (*By) PolicySchema(*policy.Schemas) map[string]any {
	name := map[string]any{"type": "string"}
	one := map[string]any{"oneOf": []any{
		map[string]any{"enum": []string{"ip", "consumer"}}, policy.OnlyKey("header", name), policy.OnlyKey("claim", name),
	}}
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "maxItems": maxParts, "items": one}}}
}
