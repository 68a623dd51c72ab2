// Package trial tests a policy: it runs the policy on real Envoys that send to samples instead of backends, sends the
// requests of test files (*_test.yaml) and holds what becomes of them against what the files expect. The command line calls
// it for legation test.
//
// files.go finds and reads the test files; suite.go, request.go, expect.go and behave.go are their language, and prepare.go
// holds them against the policy. isolate.go makes of what Envoys are served something that reaches nobody, with the keys and
// certificates of authority.go, secrets.go and issuer.go, the samples of upstream.go and the companion of companion.go; rig.go
// runs all of it. run.go goes through the cases, client.go asks, journal.go hears what Envoys say, judge.go compares, and
// report.go and junit.go tell.
package trial
