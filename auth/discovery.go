package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// maxDiscovery is the most bytes that the metadata of an issuer may have; real ones have 2 to 8 KiB.
const maxDiscovery = 64 << 10

// origin is where a remote key set comes from: a URL, or the metadata of an issuer at the URL.
type origin struct {
	url    string
	issuer string // "" = none: url is the key set's own
}

// discovery is the metadata of an issuer, where OpenID Connect Discovery 1.0 (4) has it.
func discovery(issuer string) (origin, error) {
	if err := CheckDiscovery(issuer); err != nil {
		return origin{}, err
	}
	return origin{strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration", issuer}, nil
}

// CheckDiscovery tells why the keys of an issuer can't be discovered, as far as its name says.
func CheckDiscovery(issuer string) error {
	if err := checkURL(issuer); err != nil {
		return err
	}
	if strings.Contains(issuer, "?") {
		return fetchError("the issuer's URL may not have a query where its keys are discovered")
	}
	return nil
}

// discover asks the issuer where its keys are; if it has no such document, where RFC 8414 has one.
func (r *remote) discover(ctx context.Context) (keys string, err error) {
	body, _, err := r.get(ctx, r.url, "application/json", maxDiscovery)
	if status, ok := errors.AsType[statusError](err); ok && status == http.StatusNotFound {
		body, _, err = r.get(ctx, serverMetadata(r.issuer), "application/json", maxDiscovery)
	}
	if err != nil {
		return "", err
	}
	return readMetadata(body, r.issuer)
}

// serverMetadata is the URL of RFC 8414 (3.1), whose well-known part stands before the issuer's path.
func serverMetadata(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return "" // CheckDiscovery has seen to that
	}
	return u.Scheme + "://" + u.Host + "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.EscapedPath(), "/")
}

// readMetadata finds the URL of the keys. The document has to be about this very issuer, so that none can stand in for
// another, and its URL keeps to the rules for those that a policy writes.
func readMetadata(body []byte, issuer string) (keys string, err error) {
	if len(body) > maxDiscovery {
		return "", fmt.Errorf("more than %d bytes", maxDiscovery)
	}
	o, err := strictObject(body)
	if err != nil {
		return "", err
	}
	if said, _ := o["issuer"].(string); said != issuer {
		return "", errors.New("the document is another issuer's")
	}
	keys, _ = o["jwks_uri"].(string)
	if keys == "" {
		return "", errors.New("the document has no jwks_uri")
	}
	if err := checkURL(keys); err != nil {
		return "", err
	}
	if secure(issuer) && !secure(keys) {
		return "", errors.New("the jwks_uri leads from https to http")
	}
	return keys, nil
}

func secure(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "https"
}
