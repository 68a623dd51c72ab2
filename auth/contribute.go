package auth

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

// CheckHeader tells why no claim can be passed on under the header name, in lower case.
func CheckHeader(name string) error { return checkHeader(name) }

// CheckFrom tells why tokens can't be read from these places together.
func CheckFrom(from []From) error {
	_, err := newPlaces(from)
	return err
}
