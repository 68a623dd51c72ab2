// Package expr is the expressions that policies hold, in CEL (cel.dev): texts that limits count by ([Value]) and conditions
// that callers have to meet ([Condition]). ratelimit and auth compile them when a table is loaded, the features to check
// them, and evaluate them over the [Facts] of a request.
//
// An expression comes from a policy, what it is evaluated over from anybody: so both are bounded. An expression has 4 KiB
// at most, and evaluating it costs 10000 at most in the units of CEL, of which a comparison is one. Nothing is looked up
// that an expression doesn't name.
package expr
