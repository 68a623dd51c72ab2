// Package ratelimit is the rate limit service: it answers Envoy's envoy.service.ratelimit.v3 calls, and counts for the
// auth service where a route needs both, from one immutable table of limits. app opens it over a store, and the control
// loop loads the table.
//
// A descriptor of the domain "legation" names its limit in the entry {"limit": ID or name}, and carries one entry for
// each part that the limit counts by: "ip", "consumer", "header:<lower-case name>", "claim:<name>". A part that is
// missing counts as the empty value, so that leaving a header out gives no bucket of one's own. For ip the entries of
// Envoy's own actions are read too, remote_address and masked_remote_address. Values may have any bytes and any length,
// since clients choose them; the server needs [AnyText] for those that aren't UTF-8.
//
//   - An ID ([Limit.ID]) names one version of a limit, a bare name the version that was loaded last: that is for Envoys
//     that others configure.
//   - A limit that the table doesn't hold, because the process hasn't loaded that revision yet or the name is wrong, is
//     answered UNAVAILABLE: Envoy then does what its filter's failure mode says.
//   - Descriptors without a limit and other domains ask for nothing here, and get OK, as the reference service answers.
//
// The descriptors of a request are one decision: all buckets are charged, or none when one refuses. A descriptor's own
// hits_addend goes before the request's; 0 in the descriptor asks without counting, 0 in the request means 1.
//
// When the store can't answer, each limit's [OnError] decides: Local counts in this process from what the store last said
// ([store.Local]), Allow lets pass, Deny answers UNAVAILABLE, so that Envoy's failure_mode_deny and status_on_error
// apply. Where limits of one decision differ, Deny goes first. A limit that the store said is used up stays so.
package ratelimit
