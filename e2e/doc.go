// Package e2e tests the whole: the built binary as a child process, real Envoys, a real redis-server and real
// requests, on free ports. It has tests only.
package e2e
