// Package load asks a service as many times a second as it answers, or as many as it is told, and measures how long each
// answer took. bench compares services with it, soak holds promises against it.
//
// A [Run] keeps its requests going until it is stopped. [Run.Take] gives the figures since the last Take, so that what a
// service does can be told apart by phases: before an outage, during it, after it.
//
//   - A closed loop keeps a number of calls in flight and sends the next when one is answered: it finds the rate.
//   - An open loop sends at a fixed rate, whether answers come or not. Latencies count from when the call was due, not
//     from when it went out, so that a service that stalls pays for all that it kept waiting.
//
// The gRPC client is its own: one goroutine for each connection writes what is to be sent and reads what came in single
// system calls. A general client costs more than the services that are measured here.
package load
