// Package ratelimit is the rate limit service: it answers Envoy's envoy.service.ratelimit.v3 calls, and counts for the
// auth service where a route needs both, from one immutable table of limits. app opens it over a store, and the control
// loop loads the table.
//
// A descriptor of the domain "legation" names its limit in the first entry, {"limit": ID or name}, and then carries one
// entry for each part that the limit counts by: "ip", "consumer", "header:<lower-case name>", "claim:<name>". A part
// that is missing counts as the empty value, so that leaving a header out gives no bucket of one's own.
//
//   - An ID ([Limit.ID]) names one version of a limit. One that the table doesn't hold, because the process hasn't
//     loaded that revision yet, is answered UNAVAILABLE: Envoy then does what its filter's failure mode says.
//   - A bare name is for Envoys that others configure: the version that was loaded last counts. A name that no limit
//     has, another first entry and another domain ask for no limit, and get OK, as the reference service answers.
//
// The descriptors of a request are one decision: all buckets are charged, or none when one refuses. A descriptor's own
// hits_addend goes before the request's; 0 in the descriptor asks without counting, 0 in the request means 1.
//
// When the store can't answer, each limit's [OnError] decides: Local counts in this process, Allow lets pass, Deny
// answers UNAVAILABLE, so that Envoy's failure_mode_deny and status_on_error apply. Where limits of one decision
// differ, Deny goes first.
package ratelimit
