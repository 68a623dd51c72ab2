package auth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/legation/legation/expr"
)

// Metadata is what is fetched about a caller before the rules are judged, as metadata.NAME: the JSON object that a URL
// answers; null where it answers 404. Whatever else it answers closes the route, with 503.
type Metadata struct {
	Name string `json:"name"`
	// URL is https, or http to loopback. Its path and query may hold {consumer} and {claims.PATH}, of which a text, a number
	// or a bool is put in, percent-encoded.
	URL     string        `json:"url"`
	Cache   time.Duration `json:"cache,omitempty"`   // how long an answer is good for, 1 s to 1 h; 0 = 60 s
	Timeout time.Duration `json:"timeout,omitempty"` // up to 100 ms; 0 = 50 ms
}

// Bounds of what is fetched.
const (
	maxAnswer     = 64 << 10 // bytes of a JSON object
	maxAnswers    = 4096     // that one Metadata keeps
	maxKept       = 8 << 20  // bytes of those
	maxFetches    = 32       // of one Metadata at once
	maxKey        = 256      // bytes of a value that is put into a URL
	brokenFor     = time.Second
	defaultCache  = time.Minute
	longestCache  = time.Hour
	defaultWait   = 50 * time.Millisecond
	longestWait   = 100 * time.Millisecond
	shortestCache = time.Second
)

func (f *flaws) metadata(all []Metadata) {
	if len(all) > maxMetadata {
		f.add("metadata", "ask one place for all of it", "%d entries, more than %d: a request may have to wait for each", len(all), maxMetadata)
	}
	for i, m := range all {
		at := "metadata." + m.Name
		if err := checkName(m.Name, "."); err != nil {
			f.err("metadata", "", err)
		}
		if slices.ContainsFunc(all[:i], func(o Metadata) bool { return o.Name == m.Name }) {
			f.add(at, "", "stands here twice")
		}
		if _, err := parseTemplate(m.URL); err != nil {
			f.err(at+".url", "", err)
		}
		if m.Cache != 0 && (m.Cache < shortestCache || m.Cache > longestCache) {
			f.add(at+".cache", "", "want from 1s to 1h, got %s", m.Cache)
		}
		if m.Timeout < 0 || m.Timeout > longestWait {
			f.add(at+".timeout", "", "want at most 100ms, since the request waits, got %s", m.Timeout)
		}
	}
}

// template is a URL with places for what is known of a caller.
type template []piece

// piece is a text, or the place of a value: the consumer, or that of a claim.
type piece struct {
	text, claim string
	consumer    bool
}

// parseTemplate reads the URL of a Metadata. No caller may choose whom we ask, so places stand behind the host.
func parseTemplate(raw string) (template, error) {
	var t template
	sample := ""
	for rest := raw; rest != ""; {
		text, after, open := strings.Cut(rest, "{")
		name, behind, closed := strings.Cut(after, "}")
		if strings.Contains(text, "}") || open && !closed {
			return nil, fmt.Errorf("a brace has no other half")
		}
		if t, sample = append(t, piece{text: text}), sample+text; !open {
			break
		}
		place := piece{consumer: name == "consumer"}
		if claim, ok := strings.CutPrefix(name, "claims."); ok {
			place.claim = claim
		}
		switch {
		case !place.consumer && place.claim == "":
			return nil, fmt.Errorf("{%s} is not known: want {consumer} or {claims.NAME}", name)
		case strings.Count(sample, "/") < 3:
			return nil, fmt.Errorf("{%s} may stand in the path and the query only", name)
		}
		t, sample, rest = append(t, place), sample+"x", behind
	}
	return t, checkSource(sample)
}

// checkSource tells whether there may be something to fetch at a URL, as far as its text says.
func checkSource(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "" || len(raw) > 2048:
		return fetchError("want a URL such as https://accounts.internal/v1/{consumer}")
	case u.User != nil || u.Fragment != "":
		return fetchError("the URL may not hold a user or a fragment")
	}
	address, notLiteral := netip.ParseAddr(u.Hostname())
	loopback := u.Hostname() == "localhost" || notLiteral == nil && address.Unmap().IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return fetchError("the URL has to be https (http to loopback only)")
	}
	if notLiteral == nil && checkAddress(address) != nil {
		return fetchError("a link-local, metadata, multicast or reserved address is never asked")
	}
	return nil
}

// fill gives the URL for a caller; it is not ok where the caller lacks a value, or has one that might be another path.
func (t template) fill(f *expr.Facts) (string, bool) {
	var b strings.Builder
	for _, p := range t {
		text, ok := f.Consumer, true
		if p.claim != "" {
			text, ok = exactText(claims(f.Identity).find(p.claim))
		}
		switch {
		case p.claim == "" && !p.consumer:
			b.WriteString(p.text)
		case !ok || !isKey(text):
			return "", false
		default:
			b.WriteString(strings.ReplaceAll(url.QueryEscape(text), "+", "%20"))
		}
	}
	return b.String(), true
}

// isKey tells whether a value stands for itself in a URL, also for servers that decode it and then look for dots.
func isKey(s string) bool {
	if s == "" || len(s) > maxKey || !cleanValue(s) {
		return false
	}
	for segment := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '/' || r == '\\' }) {
		if segment == "." {
			return false
		}
	}
	return !strings.Contains(s, "..")
}

// metadata is a compiled [Metadata], with what it has fetched.
type metadata struct {
	of       Metadata
	name     string
	template template
	keep     time.Duration
	timeout  time.Duration
	client   *http.Client
	log      *slog.Logger

	flights singleflight.Group // by URL
	room    chan struct{}      // holds one for each fetch
	broken  atomic.Bool        // the last fetch went wrong: told once
	mu      sync.Mutex
	answers generations
}

// record is what a URL answered.
type record struct {
	value any // a map[string]any, or nil
	bad   bool
	until time.Time
	bytes int
}

// newMetadata compiles a Metadata without flaws. client is one of [newClient]: it asks no address that is no place of
// metadata. A redirect is followed by nobody, since the URL holds what a caller has chosen.
func newMetadata(m Metadata, client *http.Client, log *slog.Logger) (*metadata, error) {
	t, err := parseTemplate(m.URL)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", m.Name, err)
	}
	direct := *client
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ready := &metadata{
		of: m, name: m.Name, template: t, keep: m.Cache, timeout: m.Timeout, client: &direct, log: log,
		room: make(chan struct{}, maxFetches),
	}
	if ready.keep == 0 {
		ready.keep = defaultCache
	}
	if ready.timeout == 0 {
		ready.timeout = defaultWait
	}
	return ready, nil
}

// lookup is what has to be asked for one caller.
type lookup struct {
	of  *metadata
	url string
}

// lookup is the one for a caller; not ok where the caller lacks what the URL needs.
func (m *metadata) lookup(f *expr.Facts) (lookup, bool) {
	at, ok := m.template.fill(f)
	return lookup{m, at}, ok
}

// cached gives what was fetched before, and is still good: also that it could not be had, a moment ago.
func (l lookup) cached(now time.Time) (*record, bool) {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	a := l.of.answers.get(l.url)
	return a, a != nil && now.Before(a.until)
}

// fetch asks for it, for all that want the same at once, and returns when cached has it, or the context ends.
func (l lookup) fetch(ctx context.Context) {
	done := l.of.flights.DoChan(l.url, func() (any, error) {
		l.of.refresh(context.WithoutCancel(ctx), l.url) // for others, too
		return nil, nil
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// refresh fetches once and keeps the outcome. A failure is kept for a moment, so that a place in trouble isn't asked by
// each request.
func (m *metadata) refresh(ctx context.Context, at string) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	a, err := m.get(ctx, at)
	now := time.Now()
	if err != nil {
		a = &record{bad: true, until: now.Add(min(brokenFor, m.keep))}
		if !m.broken.Swap(true) {
			m.log.Warn("metadata fetch went wrong", "metadata", m.name, "error", err)
		}
	} else {
		a.until = now.Add(m.keep)
		if m.broken.Swap(false) {
			m.log.Info("metadata fetched again", "metadata", m.name)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers.put(at, a)
}

// get asks the URL.
func (m *metadata) get(ctx context.Context, at string) (*record, error) {
	select {
	case m.room <- struct{}{}:
		defer func() { <-m.room }()
	case <-ctx.Done():
		return nil, fetchError("too many fetches at once")
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fetchError("the URL is not valid")
	}
	q.Header.Set("Accept", "application/json")
	r, err := m.client.Do(q)
	if err != nil {
		return nil, m.plain(ctx, err)
	}
	defer r.Body.Close()
	switch r.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return &record{}, nil
	default:
		return nil, fmt.Errorf("answered %d", r.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	if err != nil {
		return nil, m.plain(ctx, err)
	}
	if len(body) > maxAnswer {
		return nil, fetchError("answered more than 64 KiB")
	}
	value, err := strictObject(body)
	if err != nil {
		return nil, err
	}
	return &record{value: value, bytes: len(body)}, nil
}

func (m *metadata) plain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer within %s", m.timeout)
	}
	return plain(err)
}

// generations keeps answers within bounds: when the young ones are half of what may be kept, they become the old ones,
// and the old ones are forgotten.
type generations struct {
	young, old map[string]*record
	bytes      int // of the young ones, their URLs included
}

func (g *generations) get(at string) *record {
	if a := g.young[at]; a != nil {
		return a
	}
	return g.old[at]
}

func (g *generations) put(at string, a *record) {
	size := len(at) + a.bytes
	if g.young == nil || len(g.young) >= maxAnswers/2 || g.bytes+size > maxKept/2 {
		g.old, g.young, g.bytes = g.young, map[string]*record{}, 0
	}
	g.young[at] = a
	g.bytes += size
}
