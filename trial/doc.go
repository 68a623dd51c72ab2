// Package trial tests a policy: it runs the policy on real Envoys that send to samples instead of backends, sends the
// requests of test files (*_test.yaml) and holds what becomes of them against what the files expect. The command line calls
// it for legation test.
//
// suite.go reads the test files, request.go, answer.go and expect.go are their language; isolate.go makes of what Envoys
// are served something that reaches nobody, with the keys and certificates of authority.go and issuer.go, the samples of
// upstream.go and the companion of companion.go; rig.go runs all of it, client.go asks, judge.go compares, and report.go
// and junit.go tell.
package trial
