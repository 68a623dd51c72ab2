// Package proxyless holds tests only: the xDS clients of gRPC, for Go and for Node, resolve and call a service without an
// Envoy, through resources that the tests put into an xds.Server. Nobody here wrote these clients.
//
// It is a module of its own, so that what gRPC's client needs is no dependency of the program.
package proxyless
