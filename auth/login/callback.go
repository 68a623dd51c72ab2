package login

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"hash"
	"net/url"
	"slices"
	"strings"
	"time"
)

// callback ends a login: the provider has sent the browser back. Whatever comes of it, the login under way is over.
func (f *Flow) callback(ctx context.Context, q Request, b browser, query string, now time.Time) Outcome {
	if q.Method != "GET" {
		return answered(notAllowed("GET"))
	}
	r, ok := readReturn(query)
	if !ok {
		return answered(pageMalformed.answer())
	}
	name := f.attemptName(b, r.state)
	value, ok := b.login(name)
	if !ok {
		return answered(pageState.answer())
	}
	o := f.finish(ctx, b, r, value, now)
	o.Answer.Headers = append(o.Answer.Headers, b.setCookie(name, "", 0))
	return o
}

// returned is what the provider sends along with the browser.
type returned struct{ state, code, failure, issuer string }

const (
	maxQuery = 8 << 10 // bytes
	maxCode  = 4 << 10
)

// readReturn reads the query of a callback. A parameter that is there twice would be read as one by us, as the other by
// somebody else.
func readReturn(query string) (returned, bool) {
	if len(query) > maxQuery {
		return returned{}, false
	}
	v, err := url.ParseQuery(query)
	if err != nil {
		return returned{}, false
	}
	for _, values := range v {
		if len(values) > 1 {
			return returned{}, false
		}
	}
	r := returned{state: v.Get("state"), code: v.Get("code"), failure: v.Get("error"), issuer: v.Get("iss")}
	return r, len(r.code) <= maxCode && (r.code == "") != (r.failure == "")
}

// finish opens the login under way and asks the provider who it was.
func (f *Flow) finish(ctx context.Context, b browser, r returned, sealed string, now time.Time) Outcome {
	a, err := f.openAttempt(r.state, sealed)
	if err != nil || a.Origin != b.origin {
		return answered(pageState.answer())
	}
	if age := now.Sub(time.Unix(a.Began, 0)); age < -time.Minute || age > loginLasts {
		return answered(pageExpired.answer())
	}
	p := f.metadata(now)
	if p == nil {
		return answered(pageUnready.answer())
	}
	if r.issuer != f.config.Issuer && (r.issuer != "" || p.NamesIssuer) {
		return answered(pageIssuer.answer())
	}
	if r.failure != "" {
		return answered(pageRefused(known(r.failure)).answer())
	}
	select {
	case f.exchanges <- struct{}{}:
		defer func() { <-f.exchanges }()
	default:
		return answered(pageBusy.answer())
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	s, err := f.exchange(ctx, p, a, r.code, now)
	if err != nil {
		f.options.Log.Debug("login went wrong", "login", f.config.Name, "error", err)
		return answered(failurePage(err).answer())
	}
	return f.begin(ctx, b, a, s, now)
}

// failurePage tells apart what a person can do about it: nothing, or try again.
func failurePage(err error) page {
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return pageRefused(refused.code)
	}
	if errors.Is(err, errUnreachable) {
		return pageUnready
	}
	return pageToken
}

// exchange makes a session of a code.
func (f *Flow) exchange(ctx context.Context, p *provider, a attempt, code string, now time.Time) (*session, error) {
	t, err := f.askTokens(ctx, p, url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {a.Origin + f.config.Callback},
		"code_verifier": {a.Verifier},
	})
	if err != nil {
		return nil, err
	}
	claims, err := f.identify(ctx, p, t)
	if err != nil {
		return nil, err
	}
	if nonce, _ := claims["nonce"].(string); subtle.ConstantTimeCompare([]byte(nonce), []byte(a.Nonce)) != 1 {
		return nil, errors.New("the ID token's nonce is another login's")
	}
	if claims, err = f.addUserInfo(ctx, p, t, claims); err != nil {
		return nil, err
	}
	s := &session{Claims: claims, Nonce: a.Nonce, Began: now.Truncate(time.Second)}
	s.take(t, now)
	return s, nil
}

// identify checks the ID token, as far as it doesn't depend on what it came for.
func (f *Flow) identify(ctx context.Context, p *provider, t tokens) (map[string]any, error) {
	if t.id == "" {
		return nil, errors.New("the provider gave no ID token")
	}
	claims, err := f.options.Verify(ctx, t.id, p.JWKS)
	if err != nil {
		return nil, err
	}
	if sub, _ := claims["sub"].(string); sub == "" || len(sub) > 255 {
		return nil, errors.New("the ID token names no subject")
	}
	azp, named := claims["azp"]
	if audiences, _ := claims["aud"].([]any); named && azp != f.config.ClientID || !named && len(audiences) > 1 {
		return nil, errors.New("the ID token was given to another client")
	}
	if sum, ok := claims["at_hash"]; ok && sum != accessHash(t) {
		return nil, errors.New("the ID token is of another access token")
	}
	return claims, nil
}

// accessHash is the half of the access token's hash, by the hash of the ID token's algorithm, which Verify has accepted.
func accessHash(t tokens) string {
	header, _, _ := strings.Cut(t.id, ".")
	b, err := strict.DecodeString(header)
	if err != nil {
		return ""
	}
	var named struct {
		Alg string `json:"alg"`
	}
	if json.Unmarshal(b, &named) != nil || len(named.Alg) < 3 {
		return ""
	}
	var h hash.Hash
	switch named.Alg[len(named.Alg)-3:] {
	case "256":
		h = sha256.New()
	case "384":
		h = sha512.New384()
	case "512", "DSA": // EdDSA with Ed25519
		h = sha512.New()
	default:
		return ""
	}
	h.Write([]byte(t.access))
	sum := h.Sum(nil)
	return strict.EncodeToString(sum[:len(sum)/2])
}

// begin keeps a new session under a new cookie, and ends the one that the browser had before.
func (f *Flow) begin(ctx context.Context, b browser, a attempt, s *session, now time.Time) Outcome {
	token := f.keys.newToken()
	if err := f.create(ctx, token, s, now); err != nil {
		f.options.Log.Debug("session not kept", "login", f.config.Name, "error", err)
		if errors.Is(err, errTooLarge) {
			return answered(pageToken.answer())
		}
		return answered(pageRecords.answer())
	}
	answer := redirect("login_done", a.Origin+a.Return)
	answer.Headers = append(answer.Headers, b.setCookie(b.prefix+f.base, token, f.config.Lifetime))
	o := Outcome{Answer: &answer}
	if b.session != "" && f.end(ctx, b.session) == nil {
		o.Ended = idOf(b.session)
	}
	return o
}

// refusals are the errors of OAuth 2.0 and OpenID Connect that are told apart in logs.
var refusals = []string{
	"access_denied", "account_selection_required", "consent_required", "interaction_required", "invalid_client",
	"invalid_grant", "invalid_request", "invalid_scope", "login_required", "server_error", "temporarily_unavailable",
	"unauthorized_client", "unsupported_grant_type", "unsupported_response_type",
}

func known(code string) string {
	if slices.Contains(refusals, code) {
		return code
	}
	return "otherwise"
}
