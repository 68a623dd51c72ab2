package ratelimit

import (
	"errors"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// checkCEL holds an expression against what the companion evaluates.
func checkCEL(c *policy.Check, at, text string) {
	if !c.Affords(at, text, ratelimit.CELCost(text)) {
		return
	}
	err := ratelimit.CheckCEL(text)
	if where, ok := errors.AsType[*ratelimit.ExpressionError](err); ok {
		c.Errorf(at, "the expression, at %d:%d: %s", where.Line, where.Column, where.Text)
	}
}

// beyondEnvoy are the overloads that Envoy's CEL has not: expressions with some of them it refuses, others fail with each
// request, so that all of them would fall into one bucket.
var beyondEnvoy = []string{
	"add_string", "add_bytes", "add_list", "string_to_string", "bool_to_string", "int64_to_string", "uint64_to_string",
	"double_to_string", "bytes_to_string", "timestamp_to_string", "duration_to_string",
}

// checkEnvoyCEL holds an expression against what Envoy evaluates, where the companion doesn't. It has other names for some
// things, and the client's address with a port, by which each connection would have a bucket of its own.
func checkEnvoyCEL(c *policy.Check, at, text string) *policy.Problem {
	if !c.Affords(at, text, ratelimit.CELCost(text)) {
		return nil // told where it was written
	}
	uses := ratelimit.CELUses(text)
	const where = "with mode: perEnvoy, and on routes without auth, Envoy evaluates the expression, and it "
	for _, name := range uses.Variables {
		switch {
		case name == "consumer" || name == "claims":
			return c.Errorf(at, where+"knows no %s", name).Hintf("count by consumer or {claim: NAME}, beside the expression or in its place")
		case name == "route":
			return c.Errorf(at, where+"has another name for the route").Hintf("write by: [route, {cel: …}]")
		case name == "source.address":
			return c.Errorf(at, where+"takes each connection for another address").Hintf("write by: [ip, {cel: …}]")
		}
	}
	for _, id := range uses.Overloads {
		if slices.Contains(beyondEnvoy, id) {
			what := "no + but that of numbers"
			if strings.HasSuffix(id, "_to_string") {
				what = "no string()"
			}
			return c.Errorf(at, where+"has %s", what).Hintf("write by with a list of parts: [{cel: …}, {cel: …}]")
		}
	}
	if uses.Loops {
		return c.Errorf(at, where+"has no exists, all, map or filter").Hintf("count by something else, or give the route auth")
	}
	for _, pattern := range uses.Patterns {
		if pattern == "" {
			return c.Errorf(at, where+"may take its time for a pattern that is made of values").Hintf("write the pattern of matches in quotes")
		}
		c.Regex(at, pattern)
	}
	return nil
}
