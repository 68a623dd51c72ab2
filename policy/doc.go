// Package policy is the language of the policy files: it reads documents with their positions, checks them and
// resolves them into a [Model]. It is pure: it takes [Files], has no clock and no log, and knows nothing of Envoy.
// The features define the keys ([Define]), control loads and isolates files, envoy and the features read the Model.
//
// One word per thing:
//
//   - policy file: one *.yaml file; [Files] is all of them, and what they refer to.
//   - section: a key at the top of a file (gateways, sidecars, services, routes, auth, consumers, plans, rateLimits).
//   - entry: one named thing of a section (a gateway, a sidecar, a service, a route, an auth provider, a consumer,
//     a plan, a rate limit domain).
//   - sidecar: an Envoy beside an app, its inbound listener for calls of its peers and its outbound one for the app's own;
//     the mesh is the sidecars and the gateways that call them.
//   - key, kind: one key of an entry that a feature defines, such as cors; a [Kind] is its definition.
//   - setting: what stands under a key, decoded and checked; a [Set] is a setting in its place.
//   - layer: where a setting was written: gateway defaults, a service or a route; the nearer one wins.
//   - secret: what a policy names and never holds: a certificate with its key, authorities, or a text; a [SecretSource] has it.
//   - authority: certificates that those of others must be signed with: a secret, a file beside the policy or the system's.
//   - loader: loads sets of files that come one after the other, a whole load of all or a renewal of what differs; its
//     parts are units, of which it notes what they have met beside themselves.
//   - revision: the content hash of the set of files that is served; secrets are no part of it.
package policy
