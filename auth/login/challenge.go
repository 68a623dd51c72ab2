package login

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Of logins under way.
const (
	loginLasts = 10 * time.Minute
	maxLogins  = 4    // that a browser keeps; the oldest makes room
	maxReturn  = 1024 // bytes of the path that a login returns to; its cookie stays well below the 4 KiB of browsers
)

// attempt is a login under way. Only the browser keeps it, sealed under its state, in a cookie named after that.
type attempt struct {
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE
	Origin   string `json:"o"` // where it began, and where alone it ends
	Return   string `json:"r"` // path
	Began    int64  `json:"b"` // Unix seconds
}

// Challenge answers a request that somebody has to be logged in for. A browser that goes to a page is sent to the
// provider. What else asks, such as a script, a frame or a prefetch, gets 401: it could not show a login.
func (f *Flow) Challenge(q Request, now time.Time) Answer {
	if !navigates(q) {
		return f.unauthenticated()
	}
	b := f.browser(q)
	if b.origin == "" {
		return pageInsecure.answer()
	}
	p := f.metadata(now)
	if p == nil {
		return pageUnready.answer()
	}
	state := randomText()
	a := attempt{Nonce: randomText(), Verifier: randomText(), Origin: b.origin, Return: f.returnPath(q.Path), Began: now.Unix()}
	value, err := f.sealAttempt(state, a)
	if err != nil {
		return pageUnready.answer()
	}
	answer := redirect("login", f.authorizationURL(p, state, a))
	answer.Headers = append(answer.Headers, b.setCookie(f.attemptName(b, state), value, loginLasts))
	for len(b.logins) >= maxLogins {
		answer.Headers = append(answer.Headers, b.setCookie(b.logins[0].name, "", 0))
		b.logins = b.logins[1:]
	}
	return answer
}

// navigates tells whether a browser asks for a page that a person is going to see, as its main frame. Browsers that
// don't send Sec-Fetch headers are told by what they accept.
func navigates(q Request) bool {
	is := func(header, value string) bool { v := q.Header(header); return v == "" || v == value }
	return (q.Method == "GET" || q.Method == "HEAD") &&
		is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document") &&
		q.Header("x-requested-with") == "" &&
		!strings.Contains(q.Header("sec-purpose")+q.Header("purpose"), "prefetch") &&
		strings.Contains(strings.ToLower(q.Header("accept")), "text/html")
}

// unauthenticated is for what is no browser's main frame.
func (f *Flow) unauthenticated() Answer {
	return Answer{
		Status: 401,
		Headers: [][2]string{
			{"content-type", "application/json"},
			{"cache-control", "no-store"},
			// No scheme is registered for cookies. This one follows draft-broyer-http-cookie-auth.
			{"www-authenticate", `Cookie realm="` + strings.Map(cookieRune, f.config.Name) + `"`},
		},
		Body:   `{"error":"unauthorized","message":"log in with a browser first"}` + "\n",
		Reason: "session_missing",
	}
}

// returnPath is where a login returns to: the path that was asked for, unless it is none that stays on this host.
func (f *Flow) returnPath(path string) string {
	if !localPath(path) {
		return "/"
	}
	if len(path) > maxReturn {
		path, _, _ = strings.Cut(path, "?")
	}
	if len(path) > maxReturn {
		return "/"
	}
	return path
}

// localPath tells whether every browser takes the text for a path on the same host: one slash first, not a second or
// what browsers take for one, and nothing that they skip.
func localPath(path string) bool {
	if path == "" || path[0] != '/' || strings.HasPrefix(path, "//") {
		return false
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return false
		}
	}
	return true
}

// attemptName is the name of the cookie that keeps a login under way. The state can't be made of it.
func (f *Flow) attemptName(b browser, state string) string {
	sum := sumOf(state)
	return b.prefix + f.base + loginInfix + strict.EncodeToString(sum[:9])
}

func (f *Flow) sealAttempt(state string, a attempt) (string, error) {
	plain, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	sealed, err := f.keys.seal(forLogin, state, plain)
	return strict.EncodeToString(sealed), err
}

// openAttempt opens the cookie of a login under way. The state fits when the seal does, which is told in constant time.
func (f *Flow) openAttempt(state, value string) (attempt, error) {
	var a attempt
	sealed, err := strict.DecodeString(value)
	if err != nil {
		return a, errSeal
	}
	plain, err := f.keys.open(forLogin, state, sealed)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(plain, &a)
}

// ownParameter tells of parameters of the authorization request that are not for a configuration to set.
func ownParameter(name string) bool {
	return slices.Contains([]string{
		"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce",
		"code_challenge", "code_challenge_method", "request", "request_uri",
	}, name)
}

func (f *Flow) authorizationURL(p *provider, state string, a attempt) string {
	challenge := sha256.Sum256([]byte(a.Verifier))
	v := url.Values{
		"response_type":         {"code"},
		"client_id":             {f.config.ClientID},
		"redirect_uri":          {a.Origin + f.config.Callback},
		"scope":                 {f.scope()},
		"state":                 {state},
		"nonce":                 {a.Nonce},
		"code_challenge":        {strict.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}
	for _, name := range slices.Sorted(maps.Keys(f.config.Parameters)) {
		v.Set(name, f.config.Parameters[name])
	}
	return withQuery(p.Authorization, v)
}

func (f *Flow) scope() string {
	scopes := slices.DeleteFunc(slices.Clone(f.config.Scopes), func(s string) bool { return s == "openid" })
	return strings.Join(append([]string{"openid"}, scopes...), " ")
}

// withQuery adds to the query of an endpoint, which may have one of its own.
func withQuery(endpoint string, v url.Values) string {
	separator := "?"
	if strings.Contains(endpoint, "?") {
		separator = "&"
	}
	return endpoint + separator + v.Encode()
}

func redirect(reason, to string) Answer {
	return Answer{
		Status:  302,
		Headers: [][2]string{{"location", to}, {"cache-control", "no-store"}, {"referrer-policy", "no-referrer"}},
		Reason:  reason,
	}
}
