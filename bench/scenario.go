package main

import (
	"fmt"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// scenario is one row of the report for each contestant.
type scenario struct {
	name, about string
	kind        kind
	limit       string // the route that is asked for; also the name of a limit of the target's
	keys        uint64
	connections int // default 1
	inFlight    int // on each
	rate        float64
	refused     bool // what is asked for is over its limit
	goals       []goal
}

// kind says what a scenario asks.
type kind uint8

const (
	limits   kind = iota // the rate limit service
	checks               // the auth service
	memory               // the rate limit service once for each key, and what that left in memory
	throughs             // Envoy, which asks
)

// goal is a figure that legation is to reach beside another.
type goal struct {
	what   string // of figures, by its JSON name
	beside string // the contestant
	most   bool   // the ratio is to be at most this, else at least
	ratio  float64
}

// goals of the measured processor time, rate and p99 beside the empty handler.
func cpu(ratio float64) goal  { return goal{"cpu", empty, true, ratio} }
func rate(ratio float64) goal { return goal{"rate", empty, false, ratio} }
func p99(ratio float64) goal  { return goal{"p99", empty, true, ratio} }

var scenarios = []scenario{
	{name: "exact/1", about: "1 in flight, 1,000 keys", limit: "exact", keys: 1000, inFlight: 1, goals: []goal{cpu(1.5)}},
	{name: "exact/8", about: "8 in flight, 1,000 keys", limit: "exact", keys: 1000, inFlight: 8},
	{name: "exact/64", about: "64 in flight, 1,000 keys", limit: "exact", keys: 1000, inFlight: 64, goals: []goal{cpu(.35), rate(2)}},
	{
		name: "exact/256", about: "64 in flight on each of 4 connections, 1,000 keys", limit: "exact", keys: 1000, connections: 4, inFlight: 64,
		goals: []goal{rate(2.5), p99(.5)},
	},
	{name: "one-key/64", about: "64 in flight, all for one key", limit: "exact", keys: 1, inFlight: 64},
	{name: "many-keys/64", about: "64 in flight, 100,000 keys", limit: "exact", keys: 100_000, inFlight: 64},
	{name: "over/64", about: "64 in flight, 1,000 keys, all over their limit", limit: "over", keys: 1000, inFlight: 64, refused: true, goals: []goal{cpu(.15)}},
	{name: "gcra/64", about: "64 in flight, 1,000 keys, GCRA with burst", limit: "gcra", keys: 1000, inFlight: 64},
	{name: "leased/64", about: "64 in flight, 1,000 keys, tokens taken in lots", limit: "leased", keys: 1000, inFlight: 64, goals: []goal{cpu(.25)}},
	{name: "open/5000", about: "5,000 a second on 4 connections, whether answered or not", limit: "exact", keys: 1000, connections: 4, rate: 5000},
	{name: "auth/64", kind: checks, about: "64 in flight, 100 JWTs (RS256) seen before", limit: "auth", keys: 100, inFlight: 64, goals: []goal{cpu(.5)}},
	{name: "auth+quota/64", kind: checks, about: "64 in flight, the same and an exact limit in one call", limit: "auth-quota", keys: 100, inFlight: 64},
	{name: "memory", kind: memory, about: "1,000,000 keys asked for once", limit: "exact", keys: 1_000_000, connections: 4, inFlight: 64},
	{
		name: "envoy", kind: throughs, about: "32 connections of HTTP/1.1 through one worker of Envoy, 100 keys or tokens", keys: 100, connections: 32,
		goals: []goal{{"tax", envoyEmpty, true, .6}},
	},
}

// routes is the limits and rules that the scenarios ask for. Those that this legation does not know yet are left out, and
// their scenarios with them.
var routes = []rig.Route{
	{Name: "exact", RateLimit: "{rate: 1000000000/hour, by: {header: x-key}}"},
	{Name: "mute", RateLimit: "{rate: 1000000000/hour, by: {header: x-key}, headers: none}"},
	{Name: "over", RateLimit: "{rate: 10/hour, by: {header: x-key}}"},
	{Name: "gcra", RateLimit: "{rate: 1000000/second, burst: 1000000000, by: {header: x-key}}"},
	{Name: "leased", RateLimit: "{rate: 1000000000/hour, by: {header: x-key}, mode: leased}"},
	{Name: "auth", Auth: "[idp]"},
	{Name: "auth-quota", Auth: "[idp]", RateLimit: "{rate: 1000000000/hour, by: {header: x-key}}"},
}

// enters tells whether a contestant takes part; why not is said where it isn't plain.
func (s scenario) enters(c *contestant) bool {
	switch {
	case s.kind == throughs:
		return false // they are others
	case c.name == slow:
		return s.kind == checks
	case s.kind == memory:
		return c.ours
	case s.kind == checks:
		return !c.target
	case c.target:
		return s.limit == "exact"
	}
	return true
}

// options is the load that a scenario puts on a contestant.
func (b *bench) options(s scenario, c *contestant) load.Options {
	o := load.Options{
		Addresses: []string{c.address}, Connections: max(1, s.connections), InFlight: s.inFlight, Rate: s.rate, Timeout: b.grpcTimeout,
	}
	switch {
	case s.kind == checks:
		o.Call = load.Checks(b.checks[s.limit])
	case c.target:
		o.Call = load.RateLimits(b.target.domain, b.target.entries, s.keys, false)
	default:
		o.Call = load.RateLimits("legation", []load.Entry{
			{Key: "limit", Value: fmt.Sprintf("route/%s/0", s.limit)}, {Key: "header:x-key", Value: "key-%d"},
		}, s.keys, s.kind == memory)
	}
	return o
}
