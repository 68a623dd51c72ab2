// Package auth is the external authorization service (ext_authz): it answers Envoy's question whether a request may
// pass, and who its caller is. The features that ask for auth describe it as a [Rule]; app loads the rules and wires
// the [Counter]; Envoys, ours or anyone's, call [Service.Check].
//
// One word per thing:
//
//   - rule: what one route asks of its callers; its ID travels in the callout (context extension "legation.rule").
//   - provider: one way to accept a caller, and the scheme of the identities that it gives out.
//   - identity: provider/value ("idp/alice"); always has a slash, a consumer's name never has.
//   - consumer: who the caller is to limits and logs: the consumer that lists the identity, else the identity itself.
//   - gate: our own strict reading of a token, before any library sees it.
//   - key set: the public keys of a provider, static or fetched (JWKS); immutable.
//   - grant: what a verified token gives: identity, claims, headers; kept in a cache until the token expires.
//   - refusal: why a token is not good. Denial: what the request is answered then.
//   - authorization: what a layer asks of callers that are known: scopes, claims, rules. Veto: why one may not pass, and the
//     answer.
//   - metadata: what is fetched about a caller before the rules are judged.
//
// Whatever goes wrong inside is answered 503, never let through. Tokens, claims and keys are never logged.
package auth
