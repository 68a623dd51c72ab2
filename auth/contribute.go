package auth

import (
	"fmt"
	"slices"
	"strings"
)

// ProviderContributor is a setting of an auth entry that is a way to accept callers.
type ProviderContributor interface {
	// Provider is the way to accept callers that the setting describes; name is the entry's.
	Provider(name string) Provider
}

// Identifier is a setting of a consumer that lists identities ("idp/alice").
type Identifier interface {
	Identities() []string
}

// CheckURL tells why key sets can't be fetched from url, as far as its text says.
func CheckURL(url string) error { return checkURL(url) }

// CheckClaimHeader tells why no claim can be passed on under the header name, in lower case.
func CheckClaimHeader(name string) error {
	if err := checkHeader(name); err != nil {
		return err
	}
	if Steers(name) {
		return fmt.Errorf("the header %q steers proxies or backends: it may not be set from a claim", name)
	}
	return nil
}

// unsafeHeaders are headers that proxies or backends take orders from, beside those that checkHeader refuses.
var unsafeHeaders = []string{
	"cookie", "content-type", "content-encoding", "expect", "forwarded", "x-real-ip", "x-request-id",
	"x-original-url", "x-rewrite-url", "x-http-method-override", "proxy-authorization",
}

// Steers tells whether Envoy, proxies or backends take orders from a header, in lower case: neither a claim nor a key may
// stand there.
func Steers(header string) bool {
	return slices.Contains(unsafeHeaders, header) || strings.HasPrefix(header, "x-forwarded-") || strings.HasPrefix(header, "x-legation-")
}

// KeyHolder is a setting of a consumer that lists API keys.
type KeyHolder interface {
	APIKeys() []Key
}

// CheckPlace tells why no API key can stand there.
func CheckPlace(p KeyPlace) error { return p.check() }

// CheckPattern tells why no certificate can have a name of the pattern.
func CheckPattern(by CertificateName, pattern string) error { return checkPattern(by, pattern) }

// CheckLogin tells why nobody can log in like that with the client's secret.
func CheckLogin(l OIDC, secret []byte) error { return l.config("login", secret).Check() }

// CheckFrom tells why tokens can't be read from these places together.
func CheckFrom(from []From) error {
	_, err := newPlaces(from)
	return err
}
