// Package examples is whole working policies, to read and to copy. The tests of the features load them; the command
// line takes from here what signs the quickstart's tokens.
package examples

import _ "embed"

// What the quickstart's auth entry accepts.
const (
	Issuer    = "https://quickstart.legation.test/"
	Audience  = "quickstart"
	TestKeyID = "quickstart-test-key"
)

//go:embed quickstart/test-key.pem
var testKey []byte

// TestKey is the private key, PEM, that signs tokens for the quickstart. It is public: good for nothing else.
func TestKey() []byte { return testKey }
