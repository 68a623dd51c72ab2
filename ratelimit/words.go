package ratelimit

// HeaderSets are the names that policies have for sets of response headers.
var HeaderSets = map[string]Headers{"draft03": Draft03, "structured": Structured, "legacy": Legacy, "none": NoHeaders}

// DefaultLease is the most hits that a process takes ahead of need where a policy leaves it open: one of a hundred, so that a
// few processes together hold back a few percent at most.
func DefaultLease(r Rate) int64 { return min(max(r.Requests/100, 1), 1000) }
