// Package xds serves snapshots to groups of Envoys over the aggregated discovery service, state of the world and
// delta, and keeps the ledger of what each of them has acknowledged (ACK) or rejected (NACK). It knows protos and no
// policies. The control room publishes to it; app registers it on the gRPC server and shows its [Server.Status].
//
// go-control-plane's server speaks the protocol; what it asks for is answered here, by one [stream] per Envoy, which
// is its cache and its callbacks at once. A stream remembers what its Envoy has, compares it with the group's
// snapshot, and sends the difference in an order that never breaks a request (order.go):
//
//	clusters, then endpoints -> wait -> routes, scopes, extension configs -> wait -> listeners -> wait -> clean up
//
// Each Envoy walks through that order by itself, so that a slow one delays none of the others. What an Envoy asks for
// by name is answered at once; what it did not ask for waits its turn. What an Envoy has rejected is not sent again
// until it changes, and nothing that could depend on it follows.
//
// Beside it stand the service that takes the Envoys' load reports ([Loads]), and the one that shows what each Envoy has
// ([ClientStatus]); neither changes what is served.
package xds
