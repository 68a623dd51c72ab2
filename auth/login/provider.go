package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// How the provider's metadata are kept.
const (
	discoverEvery = time.Hour
	discoverRetry = 10 * time.Second // after a failure; once there are metadata, a minute
	discoverAgain = time.Minute
	metadataLast  = 24 * time.Hour // without a successful refresh
)

// provider is what discovery tells; immutable.
type provider struct {
	Authorization, Token, UserInfo, EndSession, JWKS string // endpoints; UserInfo and EndSession may be ""

	PostsSecret bool // the token endpoint wants the secret in the form
	NamesIssuer bool // callbacks have iss (RFC 9207)
	fetched     time.Time
}

// Run keeps the provider's metadata fresh until ctx ends. Requests never wait for that.
func (f *Flow) Run(ctx context.Context) error {
	for {
		began := f.options.Now()
		p, err := f.discover(ctx)
		if ctx.Err() != nil {
			return nil
		}
		old := f.provider.Load()
		wait := discoverEvery
		switch {
		case err == nil:
			p.fetched = began
			if old == nil {
				f.options.Log.Info("login provider discovered", "login", f.config.Name, "issuer", f.config.Issuer)
			}
			f.provider.Store(p)
		case old == nil:
			f.options.Log.Warn("login provider not discovered", "login", f.config.Name, "issuer", f.config.Issuer, "error", err)
			wait = discoverRetry
		default:
			f.options.Log.Warn("login provider not refreshed", "login", f.config.Name, "issuer", f.config.Issuer, "error", err)
			wait = discoverAgain
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// metadata are nil until the provider has been discovered, and when that is too long ago.
func (f *Flow) metadata(now time.Time) *provider {
	p := f.provider.Load()
	if p == nil || now.Sub(p.fetched) > metadataLast {
		return nil
	}
	return p
}

func (f *Flow) discover(ctx context.Context) (*provider, error) {
	from := strings.TrimSuffix(f.config.Issuer, "/") + "/.well-known/openid-configuration"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	status, m, err := f.ask(r)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("the provider answered %d", status)
	}
	return f.readMetadata(m)
}

func (f *Flow) readMetadata(m map[string]any) (*provider, error) {
	if text(m, "issuer") != f.config.Issuer {
		return nil, errors.New("the metadata are of another issuer")
	}
	p := &provider{
		Authorization: text(m, "authorization_endpoint"),
		Token:         text(m, "token_endpoint"),
		UserInfo:      text(m, "userinfo_endpoint"),
		EndSession:    text(m, "end_session_endpoint"),
		JWKS:          text(m, "jwks_uri"),
	}
	for _, needed := range []string{p.Authorization, p.Token, p.JWKS} {
		if needed == "" {
			return nil, errors.New("the metadata lack an endpoint")
		}
	}
	for _, endpoint := range []string{p.Authorization, p.Token, p.UserInfo, p.EndSession, p.JWKS} {
		if endpoint == "" {
			continue
		}
		if err := checkEndpoint(endpoint); err != nil {
			return nil, err
		}
	}
	p.NamesIssuer, _ = m["authorization_response_iss_parameter_supported"].(bool)
	if methods, told := names(m, "code_challenge_methods_supported"); told && !slices.Contains(methods, "S256") {
		return nil, errors.New("the provider doesn't take PKCE with S256")
	}
	if methods, told := names(m, "token_endpoint_auth_methods_supported"); told && !slices.Contains(methods, "client_secret_basic") {
		if !slices.Contains(methods, "client_secret_post") {
			return nil, errors.New("the provider takes no client secret")
		}
		p.PostsSecret = true
	}
	return p, nil
}

func names(m map[string]any, key string) (list []string, told bool) {
	values, told := m[key].([]any)
	for _, v := range values {
		if s, ok := v.(string); ok {
			list = append(list, s)
		}
	}
	return list, told
}

// checkEndpoint refuses what secrets should not be sent to: plain http to elsewhere than loopback.
func checkEndpoint(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(raw) > 2048 {
		return errors.New("an issuer or endpoint is no URL of a provider")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Host)) {
		return errors.New("an issuer or endpoint has to be https (http on loopback only)")
	}
	return nil
}
