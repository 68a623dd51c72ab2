// Package ratelimit is the rate limit service: it answers Envoy's envoy.service.ratelimit.v3 calls, and counts for the
// auth service where a route needs both, from one immutable table of limits and plans. app opens it over a store and
// serves [Service.Answer] by callout and by gRPC, and the control loop loads the table.
//
// # Descriptors
//
// A descriptor of the domain "legation" names its limit in the entry {"limit": ID or name}, and carries one entry for
// each part that the limit counts by, as [By.Entry] names it: "ip", "consumer", "header:<lower-case name>",
// "claim:<name>", "cookie:<name>", "path", "route", "method", "host", "cel:<8 hex digits>". A part that is missing counts as
// the empty value, so that leaving a header out gives no bucket of one's own. For ip the entries of Envoy's own actions are
// read too, remote_address and masked_remote_address. Values may have any bytes and any length, since clients choose them;
// a gRPC server needs [callout.AnyText] for those that aren't UTF-8.
//
//   - An ID ([Limit.ID]) names one version of a limit, a bare name the version that was loaded last: that is for Envoys
//     that others configure.
//   - A limit that the table doesn't hold, because the process hasn't loaded that revision yet or the name is wrong, is
//     answered UNAVAILABLE: Envoy then does what its filter's failure mode says.
//   - Descriptors without a limit and other domains ask for nothing here, and get OK, as the reference service answers.
//   - A descriptor's own limit (RateLimitOverride) stands in the place of the limit's rate: fixed windows, sliding ones
//     where the limit has them, of n units; one month or one year goes by the calendar in UTC, several are 30 or 365 days
//     each. 0 requests let nothing pass. A unit that isn't known is no override.
//
// The descriptors of a request are one decision: all buckets are charged, or none when one refuses. A descriptor's own
// hits_addend goes before the request's; 0 in the descriptor asks without counting, 0 in the request means 1. With
// is_negative_hits the hits are given back, as far as there are.
//
// # Answers
//
// Statuses tell the limit, what remains and when it is reset; headers tell of the limit that refused, else of the one nearest
// to exhaustion. Dynamic metadata is for access logs, of requests that weren't simply let pass: "refused" and "degraded",
// true or absent; "refusedBy", the limit's name when it refused; "shadow", the name of a limit in shadow that would have
// refused; "limit", "remaining" and "reset" (seconds).
//
// A quota, hits that the caller may use later without asking, is granted only where the descriptor has the entry
// {"quota": N} and N more hits fit: they are counted at once, so that no more is ever granted than is taken, and what the
// caller doesn't use is lost. Envoy up to 1.40 doesn't know quotas; it mustn't ask for any. The answer's own quota, for
// all descriptors together, stays empty.
//
// # Shadow, plans, trouble
//
// Limits in shadow are decided by themselves, whatever the others say; they refuse nobody and no header tells of them.
// Plans hold where auth counts: see [Plan]. [Service.Report], [Service.Top] and [Service.Usage] tell who uses what.
//
// When the store can't answer, each limit's [OnError] decides: Local counts in this process from what the store last said
// ([store.Local]), Allow lets pass, Deny answers UNAVAILABLE, so that Envoy's failure_mode_deny and status_on_error
// apply. Where limits of one decision differ, Deny goes first. A limit that the store said is used up stays so.
package ratelimit
