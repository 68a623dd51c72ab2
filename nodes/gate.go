package nodes

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/xds"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Options are the settings of a Gate.
type Options struct {
	Path       string // of the nodes file
	NeedTokens bool   // no client certificate can be checked here: a file without tokens would let nobody in
	Log        *slog.Logger
	Changed    func()                          // called after each change of the rules, when set
	Refused    func(address string, err error) // told, when set, of each token that is not accepted
	Transport  http.RoundTripper               // for tests: fetches keys
}

// Gate tells which groups Envoys may join.
type Gate struct {
	o     Options
	log   *slog.Logger
	auth  *auth.Service
	rules atomic.Pointer[rules]

	mu    sync.Mutex // guards what follows
	seen  string     // the files as they were looked at last, or why they could not be
	tried string     // the same, of those that were read last
	wrong error      // with the file as it is now; the last good one is in use
}

// rule names the one rule by which tokens are judged.
const rule = "xds"

// New makes a gate by a file, which has to be good. It starts nothing.
func New(o Options) (*Gate, error) {
	g := &Gate{o: o, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler))}
	g.auth = auth.New(auth.Options{Log: g.log, Transport: o.Transport})
	g.seen = g.state()
	g.tried = g.seen
	return g, g.load()
}

// Tokens tells whether tokens are taken, so that an Envoy need not have a certificate.
func (g *Gate) Tokens() bool { return g.rules.Load().issuer != nil }

var errNoTokens = errors.New("no tokens: section, and there is no --tls-ca: nobody could join")

// load reads the file anew; when it is bad, all stays as it was.
func (g *Gate) load() error {
	next, err := read(g.o.Path)
	if err != nil {
		return err
	}
	if g.o.NeedTokens && next.issuer == nil {
		return errNoTokens
	}
	var table auth.Table
	if next.issuer != nil {
		table.Rules = []auth.Rule{{Name: rule, Providers: []auth.Provider{{Name: "tokens", JWT: next.issuer}}}}
	}
	if err := g.auth.Load(table); err != nil {
		return err
	}
	g.rules.Store(next)
	return nil
}

// interval is how often the file is looked at.
const interval = time.Second

// Run follows the file, and fetches keys, until ctx ends.
func (g *Gate) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = g.auth.Run(ctx) }) // it gives no error
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.look()
		}
	}
}

// look reads the file again when it, or the keys that it refers to, have changed and been the same for an interval.
func (g *Gate) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.state()
	still := now == g.seen // else somebody may be in the middle of writing
	g.seen = now
	if now == g.tried || !still {
		return
	}
	g.tried = now
	if g.wrong = g.load(); g.wrong != nil { // told once for each change
		g.log.Error("nodes file not read again: the last good one stays in use", "file", g.o.Path, "error", g.wrong)
		return
	}
	g.log.Info("nodes file read again", "file", g.o.Path, "groups", len(g.rules.Load().groups), "tokens", g.Tokens())
	if g.o.Changed != nil {
		g.o.Changed()
	}
}

// Wrong is what keeps the file as it is now from being used, nil when it is in use.
func (g *Gate) Wrong() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wrong
}

// Health is the state of the keys that are fetched to judge tokens.
func (g *Gate) Health() []auth.JWKSHealth { return g.auth.Health() }

// state tells one state of the files from another: what is in them, which is little, or why they can't be read.
func (g *Gate) state() string {
	all := []string{g.o.Path}
	text, err := readFile(g.o.Path)
	if err != nil {
		return err.Error()
	}
	all = append(all, string(text))
	if r, err := read(g.o.Path); err == nil && r.issuer != nil {
		all = append(all, string(r.issuer.JWKS.Keys))
	} else if err != nil {
		all = append(all, err.Error())
	}
	return strings.Join(all, "\x00")
}

// Identify tells who is behind a stream: what the certificate names, and what the token does. A token that is not good
// refuses the stream, whatever the certificate says.
func (g *Gate) Identify(ctx context.Context) (xds.Identity, error) {
	r := g.rules.Load()
	p, ok := peer.FromContext(ctx)
	if !ok {
		return xds.Identity{}, errNothing
	}
	tls, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return xds.Identity{}, errPlain
	}
	var who xds.Identity
	shown := len(tls.State.VerifiedChains) > 0
	if shown {
		var err error
		if who, err = xds.ByCertificate(ctx); err != nil {
			return who, err
		}
		if r.groups != nil {
			who.Groups = r.certified(tls)
		}
	}
	raw, err := bearer(ctx)
	switch {
	case err != nil:
		return xds.Identity{}, err
	case raw != "" && r.issuer != nil:
		return g.withToken(ctx, who, r, raw)
	case !shown:
		return xds.Identity{}, errNothing
	}
	return who, nil
}

// The refusals. What exactly is wrong with a token is not for those who show it.
var (
	errNothing = status.Error(codes.Unauthenticated, "neither a client certificate nor a token was shown")
	errPlain   = status.Error(codes.Unauthenticated, "the connection is not by TLS")
	errHeader  = status.Error(codes.Unauthenticated, "want one header authorization: Bearer TOKEN")
	errToken   = status.Error(codes.Unauthenticated, "the token is not accepted")
	errLater   = status.Error(codes.Unavailable, "the token can't be judged now")
)

// certified is the groups whose patterns one of the names of a certificate is of.
func (r *rules) certified(tls credentials.TLSInfo) []string {
	leaf := tls.State.VerifiedChains[0][0]
	var groups []string
	for name, patterns := range r.groups {
		if slices.ContainsFunc(patterns, func(p pattern) bool {
			return slices.ContainsFunc(leaf.URIs, p.matchURI) || slices.ContainsFunc(leaf.DNSNames, p.matchDNS)
		}) {
			groups = append(groups, name)
		}
	}
	slices.Sort(groups)
	return groups
}

// bearer is the token that came with the stream, "" for none.
func bearer(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) == 0 {
		return "", nil
	}
	scheme, raw, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "bearer") || raw == "" {
		return "", errHeader
	}
	return raw, nil
}

func (g *Gate) withToken(ctx context.Context, who xds.Identity, r *rules, raw string) (xds.Identity, error) {
	claims, expires, err := g.auth.Verify(ctx, rule, raw)
	if err != nil {
		if g.o.Refused != nil {
			g.o.Refused(addressOf(ctx), err)
		}
		if errors.Is(err, auth.ErrUndecided) {
			return xds.Identity{}, errLater
		}
		return xds.Identity{}, errToken
	}
	who.Groups = slices.Concat(who.Groups, groupsIn(claims[r.claim]))
	if who.Until.IsZero() || expires.Before(who.Until) {
		who.Until = expires
	}
	return who, nil
}

// groupsIn is the groups of a claim, a text or a list of texts; none when it is anything else.
func groupsIn(claim any) []string {
	list, ok := claim.([]any)
	if !ok {
		list = []any{claim}
	}
	var groups []string
	for _, v := range list {
		name, ok := v.(string)
		if !ok || name == "" || !utf8.ValidString(name) {
			return nil
		}
		groups = append(groups, name)
	}
	return groups
}

func addressOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
