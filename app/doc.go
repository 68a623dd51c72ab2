// Package app is the process: it puts the rooms together as the roles ask, opens the ports, answers the admin HTTP
// API, runs Envoy and the sample upstreams for `legation run`, and shuts everything down in order. cmd/legation calls it.
package app
