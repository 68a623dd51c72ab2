// Package xds serves snapshots to groups of Envoys over the discovery services, aggregated and one for each type, state of
// the world and delta, and keeps the ledger of what each of them has acknowledged (ACK) or rejected (NACK). It knows protos
// and no policies. The control room publishes to it; app registers it on the gRPC server and shows its [Server.Status].
//
// A stream remembers what its Envoy has, compares it with the group's snapshot, and sends the difference in an order that
// never breaks a request (order.go):
//
//	clusters, then endpoints -> wait -> routes, scopes, extension configs -> wait -> listeners -> wait -> clean up
//
// Each Envoy walks through that order by itself, so that a slow one delays none of the others. What an Envoy asks for
// by name is answered at once; what it did not ask for waits its turn. What an Envoy has rejected is not sent again
// until it changes, and nothing that could depend on it follows.
//
// It serves thousands of Envoys from one small machine, because everything is done once:
//
//   - A resource is marshalled and hashed once (resource.go), and laid out as it stands in a response (set.go). Snapshots,
//     groups and streams share it.
//   - Snapshots share the types in which nothing has changed, and find what has by comparing pointers (snapshot.go).
//   - What a stream has is not a map of versions but a place: a pointer to a set, which it shares with all that stand there.
//     What it asks for is a pointer too (names.go). One that strays, because it rejects something, has exceptions until it is
//     in line again (subscription.go).
//   - What leads from a place to the snapshot is found and encoded once (passage.go). A response is those bytes and a nonce,
//     which a codec hands to grpc-go as they are (wire.go). A request is read where it lies (request.go): of names and
//     versions that another Envoy has told before it takes their hashes, however many they are.
//   - One response of a type is on its way to an Envoy, and what changes meanwhile is sent as one when that is answered.
//     Whoever has something to send sends it, but nobody waits for an Envoy that does not read (stream.go).
//
// Some Envoys of a group may be served another snapshot than the others, before all are ([Server.PublishStages]).
//
// Beside it stand the service that takes the Envoys' load reports ([Loads]), and the one that shows what each Envoy has
// ([ClientStatus]); neither changes what is served.
package xds
