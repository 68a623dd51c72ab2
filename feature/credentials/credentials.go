// Package credentials is the keys of an auth entry that are ways to tell who calls beside tokens: apiKey, basic, mtls and
// anonymous; and the key apiKeys of a consumer, the keys that the policy itself has. feature/auth asks it for the providers
// and the keys, envoy for the headers that only these may set.
package credentials

import (
	"slices"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// setElsewhere gives the auth entry whose setting puts a header there itself; clients' copies of it never arrive.
func setElsewhere(c *policy.Check, header string) (entry string, found bool) {
	for _, a := range c.Common().Auth {
		for _, s := range policy.Each[envoy.Stripper](a.Settings) {
			if slices.Contains(s.StripHeaders(), header) {
				return a.Name, true
			}
		}
	}
	return "", false
}
