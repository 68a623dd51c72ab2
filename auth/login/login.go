// Package login logs browsers in at an OpenID Connect provider and keeps their sessions: the authorization code flow with
// PKCE, state and nonce, an opaque cookie, and a sealed record behind it that every replica reads. The core of auth calls
// it for each request of a route that names a login, and answers what it is told to answer.
//
// A request goes through three doors. [Flow.Look] tells at once what needs no waiting: nobody is logged in, or a session
// is known from a moment ago. [Flow.Handle] waits, for the records or for the provider: it finds a session, and serves
// the two paths that are the login's own. A request that turns out to need somebody gets [Flow.Challenge].
//
// Two things are kept, and neither can be used by who reads it. A login that is under way is kept by the browser alone,
// in a sealed cookie, so that a flood of anonymous requests writes nothing. A session is a record under the hash of its
// cookie, sealed with a key that is made of the client's secret and of the cookie: Redis alone tells nothing, and neither
// do Redis and the secret. Another secret ends all sessions.
//
// The back-channel and front-channel logouts of OpenID Connect are not served: a provider that ends somebody's session
// is noticed at the next refresh, or at the end of the session's lifetime.
package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Config is one way to log in.
type Config struct {
	Name     string // of the entry: part of the records' names and of the keys that seal
	Issuer   string // of the ID tokens, and where the provider is discovered: https, or http on loopback
	ClientID string
	// Secret authenticates the client at the provider, and the keys that seal cookies and records come from it. At
	// least 16 bytes.
	Secret     []byte
	Scopes     []string          // asked for; openid always is. Refresh tokens mostly want offline_access
	Parameters map[string]string // added to the authorization request, such as audience or prompt
	UserInfo   bool              // adds what the userinfo endpoint tells to the claims; the ID token's own stay

	Callback    string // path that the provider sends browsers back to; default /oauth2/callback
	Logout      string // path that ends a session; default /oauth2/logout
	AfterLogout string // path that follows on it; default / where the provider logs out as well, else a page that says so

	// Idle is how long a session lasts without a request, by default 1 h, and Lifetime how long in all, by default 12 h.
	// Idle may be cut short by a minute, or by a quarter of itself: uses are not written down one by one.
	Idle, Lifetime time.Duration
	Cookie         string // name; default legation-<entry>. On https it gets the prefix __Host-
}

// Options are what a flow works with.
type Options struct {
	Client  *http.Client // asks the provider, and guards which addresses are asked. Redirects are never followed
	Records Records
	// Verify returns the claims of an ID token whose signature by a key of the set at jwks, iss, aud and exp are good.
	// Numbers in them are json.Number. It may wait for keys. A token that belongs to another login is told apart here.
	Verify func(ctx context.Context, idToken, jwks string) (map[string]any, error)
	// Revoked tells whether a session that began then has been ended, by its ID or with all of the subject's. It is asked
	// for each request; nil revokes nothing.
	Revoked func(subject, id string, began time.Time) bool
	Now     func() time.Time // default time.Now; the time of a request comes with it
	Log     *slog.Logger     // default: none
}

// Records are what all replicas share. Each method is one atomic step, and values end by themselves after their ttl.
type Records interface {
	// Get returns nil when there is no such record.
	Get(ctx context.Context, name string) ([]byte, error)
	// Add writes a record that isn't there yet, and tells whether it did.
	Add(ctx context.Context, name string, value []byte, ttl time.Duration) (bool, error)
	// Replace writes a record that is there still, and tells whether it did: a logout is never undone by a late refresh.
	Replace(ctx context.Context, name string, value []byte, ttl time.Duration) (bool, error)
	// Extend sets when a record ends, and tells whether there is one.
	Extend(ctx context.Context, name string, ttl time.Duration) (bool, error)
	Delete(ctx context.Context, names ...string) error
}

// Request is what a flow needs to know of a request.
type Request struct {
	Method string
	Scheme string // as the browser sees it
	Host   string // with the port, if any
	Path   string // with the query
	// Header returns the value of a header, whose name is given in lower case. Several Cookie headers have to come joined by
	// "; ", which is what Envoy does.
	Header func(name string) string
}

// Outcome is what becomes of a request: a session, an answer, or neither when nobody is logged in.
type Outcome struct {
	Claims  map[string]any // of the ID token, and of userinfo; not to be changed. nil = nobody is logged in
	ID      string         // of the session, for logs and to revoke it by: the cookie can't be made of it
	Began   time.Time      // of the session
	Expires time.Time      // the end of its lifetime, whatever its use
	Answer  *Answer        // nil = the request goes on
	// Ended is the ID of a session that this request ended: Revoked should know of it, at every replica.
	Ended string
}

// Answer is an answer to a request.
type Answer struct {
	Status  int
	Headers [][2]string // names in lower case; set-cookie may be there several times
	Body    string
	Reason  string // for the log, of a fixed set; nothing of it reaches the client
}

// Flow is a compiled [Config]. Its methods may be called from anywhere at the same time.
type Flow struct {
	config    Config
	options   Options
	client    *http.Client // options.Client, without redirects
	base      string       // of the cookies' names, without __Host-
	keys      keys
	provider  atomic.Pointer[provider]
	cache     cache
	flights   singleflight.Group // what is asked once for all requests that wait for it
	exchanges chan struct{}      // holds one for each code that is being exchanged
}

// maxExchanges bounds how many codes are exchanged at a time: whoever began a login may make codes up.
const maxExchanges = 64

// New checks the configuration. The flow answers 503 to logins until [Flow.Run] has asked the provider.
func New(c Config, o Options) (*Flow, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("login %s: %w", c.Name, err)
	}
	if o.Client == nil || o.Records == nil || o.Verify == nil {
		return nil, fmt.Errorf("login %s: a client, records and a verifier are needed", c.Name)
	}
	if o.Revoked == nil {
		o.Revoked = func(string, string, time.Time) bool { return false }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	keys, err := newKeys(c.Secret, c.Name+"\x00"+c.Issuer+"\x00"+c.ClientID)
	if err != nil {
		return nil, fmt.Errorf("login %s: %w", c.Name, err)
	}
	client := *o.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	f := &Flow{config: c, options: o, client: &client, base: c.Cookie, keys: keys, exchanges: make(chan struct{}, maxExchanges)}
	return f, nil
}

// Check tells what makes no sense.
func (c Config) Check() error { return c.complete() }

// complete fills in the defaults, and refuses what makes no sense.
func (c *Config) complete() error {
	setDefault(&c.Callback, "/oauth2/callback")
	setDefault(&c.Logout, "/oauth2/logout")
	setDefault(&c.Idle, time.Hour)
	setDefault(&c.Lifetime, 12*time.Hour)
	setDefault(&c.Cookie, "legation-"+strings.Map(cookieRune, c.Name))
	switch {
	case c.Name == "":
		return errors.New("it needs a name")
	case c.ClientID == "":
		return errors.New("it needs a client ID")
	case len(c.Secret) < 16:
		return errors.New("it needs a client secret of at least 16 bytes")
	case c.Idle < time.Minute || c.Lifetime < c.Idle:
		return errors.New("a session lasts a minute at least, and its lifetime is no shorter than it may be idle")
	case strings.Map(cookieRune, c.Cookie) != c.Cookie || strings.HasPrefix(c.Cookie, "__") || len(c.Cookie) > 64:
		return errors.New("the cookie's name is of up to 64 letters, digits, - and _, and doesn't begin with __")
	case c.Callback == c.Logout:
		return errors.New("callback and logout need a path each")
	}
	for _, path := range []string{c.Callback, c.Logout} {
		if !localPath(path) || strings.ContainsAny(path, "?#") {
			return fmt.Errorf("%q is no path", path)
		}
	}
	if c.AfterLogout != "" && !localPath(c.AfterLogout) {
		return fmt.Errorf("%q is no path", c.AfterLogout)
	}
	if strings.Contains(c.Issuer, "?") {
		return errors.New("an issuer has no query")
	}
	for name := range c.Parameters {
		if ownParameter(name) {
			return fmt.Errorf("the parameter %s is the login's own", name)
		}
	}
	return checkEndpoint(c.Issuer)
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Look tells what becomes of a request as far as that needs no waiting. Where it does, [Flow.Handle] tells.
func (f *Flow) Look(q Request, now time.Time) (o Outcome, waits bool) {
	if f.owns(q) {
		return Outcome{}, true
	}
	b := f.cookies(q)
	if b.session == "" {
		return Outcome{}, false
	}
	l := f.cache.get(sumOf(b.session))
	if l == nil {
		return Outcome{}, f.keys.made(b.session)
	}
	if l.session == nil {
		return Outcome{}, false
	}
	if l.stale(now) || f.over(l, now) || l.refreshDue(now) || f.extendDue(l, now) {
		return Outcome{}, true
	}
	return f.somebody(l), false
}

// Handle tells what becomes of a request. An error says that this can't be told now, which is a 503.
func (f *Flow) Handle(ctx context.Context, q Request, now time.Time) (Outcome, error) {
	if f.owns(q) {
		return f.serve(ctx, q, now), nil
	}
	b := f.browser(q)
	if b.session == "" {
		return Outcome{}, nil
	}
	l, err := f.resume(ctx, b.session, now)
	if err != nil {
		return Outcome{}, err
	}
	if l == nil {
		return Outcome{}, nil
	}
	return f.somebody(l), nil
}

// owns tells whether the request goes to a path of the login's own.
func (f *Flow) owns(q Request) bool {
	path, _, _ := strings.Cut(q.Path, "?")
	return path == f.config.Callback || path == f.config.Logout
}

// serve answers requests to the login's own paths.
func (f *Flow) serve(ctx context.Context, q Request, now time.Time) Outcome {
	b := f.browser(q)
	if b.origin == "" {
		return answered(pageInsecure.answer())
	}
	path, query, _ := strings.Cut(q.Path, "?")
	if path == f.config.Callback {
		return f.callback(ctx, q, b, query, now)
	}
	return f.logout(ctx, q, b, now)
}

func answered(a Answer) Outcome { return Outcome{Answer: &a} }

func (f *Flow) somebody(l *live) Outcome {
	return Outcome{Claims: l.session.Claims, ID: l.id, Began: l.session.Began, Expires: l.session.Began.Add(f.config.Lifetime)}
}
