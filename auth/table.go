package auth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is a compiled [Table]; immutable.
type table struct {
	from      Table
	rules     map[string]*rule // by ID and by bare name
	sources   map[Metadata]*metadata
	consumers map[string]consumer  // by identity
	named     map[string]consumer  // by name
	keys      *keyTable            // of the consumers
	providers map[string]*provider // by content; Load takes over those that did not change, with their caches
	revoked   revocations
}

// consumer is who a caller is to limits and logs.
type consumer struct {
	name string
	plan string // "" = none
}

// consumer is that of an identity, whose name it has when nobody lists it.
func (t *table) consumer(identity string) consumer {
	if c, ok := t.consumers[identity]; ok {
		return c
	}
	return consumer{name: identity}
}

type rule struct {
	name      string
	providers []*provider
	all       bool
	limits    []string
	plan      PlanUse
	metadata  []string // claims
	demands   *demands // nil: any caller that is known may pass
	headers   []string // every header that any provider sets, sorted: what a client sends under them never passes
	challenge []string // of the providers, for WWW-Authenticate
	hidden    []From   // credentials that the backend isn't shown, of any provider: also of one that was not asked
	keepers   []keeper // whose cookies it isn't shown
}

// compiler turns a Table into a table, taking over what did not change.
type compiler struct {
	o         Options
	client    *http.Client // guarded
	poster    *http.Client // guarded, for questions with secrets: it follows no redirects
	log       *slog.Logger
	old       *table
	next      *table
	secrets   map[string][]byte
	remotes   map[origin]*remote
	used      map[origin]bool
	kept      map[*provider]bool // of old
	newRemote func(origin) *remote
	metrics   *metrics
	counts    bool
	passwords *passwords
	same      bool // the secrets are those of old: what it has of a rule holds
}

func (c *compiler) table(t Table) (*table, error) {
	c.same = maps.EqualFunc(t.Secrets, c.old.from.Secrets, bytes.Equal)
	c.next = &table{
		from:  Table{Rules: t.Rules, Consumers: t.Consumers, Secrets: maps.Clone(t.Secrets)},
		rules: make(map[string]*rule, 2*len(t.Rules)), sources: map[Metadata]*metadata{}, consumers: map[string]consumer{}, named: map[string]consumer{}, keys: newKeyTable(),
		providers: map[string]*provider{},
	}
	c.next.revoked.board, c.next.revoked.consumer = c.o.Revoked, c.next.consumer
	c.used, c.kept, c.secrets = map[origin]bool{}, map[*provider]bool{}, t.Secrets
	var problems []error
	for i := range t.Rules {
		r := &t.Rules[i]
		id := r.ID()
		compiled, known := c.next.rules[id]
		if !known {
			compiled = c.taken(id)
		}
		if compiled == nil {
			var err error
			if compiled, err = c.rule(*r); err != nil {
				problems = append(problems, fmt.Errorf("rule %q: %w", r.Name, err))
				continue
			}
		}
		c.next.rules[id], c.next.rules[r.Name] = compiled, compiled
	}
	if c.same && unchanged(t.Consumers, c.old.from.Consumers) && c.old.keys != nil {
		c.next.consumers, c.next.named, c.next.keys = c.old.consumers, c.old.named, c.old.keys
		return c.next, errors.Join(problems...)
	}
	for _, k := range t.Consumers {
		if err := c.consumer(k); err != nil {
			problems = append(problems, fmt.Errorf("consumer %q: %w", k.Name, err))
		}
	}
	return c.next, errors.Join(problems...)
}

// unchanged tells whether two lists are the very same.
func unchanged[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// taken is the rule of an ID, which stands for all that it says, as it was compiled before; nil for none.
func (c *compiler) taken(id string) *rule {
	r := c.old.rules[id]
	if r == nil || !c.same {
		return nil
	}
	for _, p := range r.providers {
		if c.kept[p] {
			continue // the rules of most routes have the same ones
		}
		c.kept[p] = true
		c.next.providers[p.content] = p
		if w, ok := p.way.(*tokens); ok {
			if keys, fetched := w.source.(*remote); fetched {
				c.used[keys.origin] = true
			}
		}
	}
	if r.demands != nil {
		for _, s := range r.demands.sources {
			c.next.sources[s.of] = s
		}
	}
	return r
}

func (c *compiler) consumer(k Consumer) error {
	if err := checkName(k.Name, "/"); err != nil {
		return err
	}
	if k.Plan != "" {
		if err := checkName(k.Plan, ""); err != nil {
			return fmt.Errorf("plan: %w", err)
		}
	}
	for _, id := range k.Identities {
		if !strings.Contains(id, "/") {
			return fmt.Errorf("identity %q is not provider/value", id)
		}
		if other, ok := c.next.consumers[id]; ok && other.name != k.Name {
			return fmt.Errorf("identity %q is consumer %q too", id, other.name)
		}
		c.next.consumers[id] = consumer{k.Name, k.Plan}
	}
	c.next.named[k.Name] = consumer{k.Name, k.Plan}
	return c.keys(k)
}

func (c *compiler) rule(r Rule) (*rule, error) {
	if err := checkName(r.Name, "@"); err != nil {
		return nil, err
	}
	if len(r.Providers) == 0 {
		return nil, errors.New("no provider")
	}
	if (len(r.Limits) > 0 || r.Plan != NoPlan) && !c.counts {
		return nil, errors.New("has limits or plans, but nothing here counts them")
	}
	if !slices.Contains([]PlanUse{NoPlan, PlanOptional, PlanRequired}, r.Plan) {
		return nil, fmt.Errorf("there is no use of plans %q", r.Plan)
	}
	if err := checkMetadata(r.Metadata); err != nil {
		return nil, err
	}
	compiled := &rule{name: r.Name, all: r.All, limits: slices.Clone(r.Limits), plan: r.Plan, metadata: slices.Clone(r.Metadata)}
	if len(r.Authorize) > 0 {
		var err error
		if compiled.demands, err = newDemands(r.Authorize, c.metadata); err != nil {
			return nil, err
		}
	}
	for _, p := range r.Providers {
		cp, err := c.provider(p)
		if err != nil {
			return nil, fmt.Errorf("provider %q: %w", p.Name, err)
		}
		compiled.providers = append(compiled.providers, cp)
		for _, h := range cp.reading.headers {
			compiled.headers = append(compiled.headers, h.name)
		}
		if h, ok := cp.way.(hider); ok {
			for _, f := range h.hides() {
				if !slices.Contains(compiled.hidden, f) {
					compiled.hidden = append(compiled.hidden, f)
				}
			}
		}
		if k, ok := cp.way.(keeper); ok {
			compiled.keepers = append(compiled.keepers, k)
		}
		if ch := cp.way.challenge(); ch != "" && !slices.Contains(compiled.challenge, ch) {
			compiled.challenge = append(compiled.challenge, ch)
		}
	}
	slices.Sort(compiled.headers)
	compiled.headers = slices.Compact(compiled.headers)
	return compiled, nil
}

func (c *compiler) provider(p Provider) (*provider, error) {
	if err := checkName(p.Name, "/"); err != nil {
		return nil, err
	}
	content, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	key := string(content)
	if known, ok := c.next.providers[key]; ok {
		return known, nil
	}
	var compiled *provider
	for _, k := range kinds {
		if !k.is(p) {
			continue
		}
		if compiled != nil {
			return nil, errors.New("says two ways to accept callers")
		}
		compiled = &provider{name: p.Name, kind: kindOf(p), allowed: c.metrics.allowed(p.Name, kindOf(p)), content: key}
		switch compiled.way, err = k.compile(c, p, compiled); {
		case errors.Is(err, errNoSecret): // the others may be asked all the same
			compiled.way = shut{}
		case err != nil:
			return nil, err
		}
	}
	if compiled == nil {
		return nil, errors.New("says no way to accept anyone")
	}
	if old, ok := c.old.providers[key]; ok && old.way.same(compiled.way) {
		compiled = old
	}
	c.next.providers[key] = compiled
	return compiled, nil
}

// metadata is a source that was compiled before, with what it has fetched, or a new one.
func (c *compiler) metadata(m Metadata) (*metadata, error) {
	s := c.next.sources[m]
	if s == nil {
		s = c.old.sources[m]
	}
	if s == nil {
		var err error
		if s, err = newMetadata(m, c.client, c.log); err != nil {
			return nil, err
		}
	}
	c.next.sources[m] = s
	return s, nil
}

// kinds are the ways to accept callers that there are.
var kinds = []struct {
	is      func(Provider) bool
	compile func(*compiler, Provider, *provider) (way, error)
}{
	{func(p Provider) bool { return p.JWT != nil }, compileJWT},
	{func(p Provider) bool { return p.Introspection != nil }, compileIntrospection},
	{func(p Provider) bool { return p.OIDC != nil }, compileOIDC},
	{func(p Provider) bool { return p.APIKey != nil }, compileAPIKey},
	{func(p Provider) bool { return p.Basic != nil }, compileBasic},
	{func(p Provider) bool { return p.MTLS != nil }, compileMTLS},
	{func(p Provider) bool { return p.Anonymous != nil }, compileAnonymous},
}

// secret is what a provider refers to by name.
func (c *compiler) secret(name string) ([]byte, error) {
	if v := c.secrets[name]; len(v) > 0 {
		return v, nil
	}
	return nil, errNoSecret
}

var errNoSecret = errors.New("a secret is not there")

func (c *compiler) source(j JWKS, issuer string) (keySource, error) {
	said := 0
	for _, is := range []bool{j.URL != "", len(j.Keys) > 0, j.Discover} {
		if is {
			said++
		}
	}
	if said != 1 {
		return nil, errors.New("needs either a JWKS URL or keys")
	}
	if len(j.Keys) > 0 {
		k, err := parseKeySet(j.Keys)
		return fixed{k}, err
	}
	from := origin{url: j.URL}
	err := checkURL(j.URL)
	if j.Discover {
		from, err = discovery(issuer)
	}
	if err != nil {
		return nil, err
	}
	r, ok := c.remotes[from]
	if !ok {
		r = c.newRemote(from)
		c.remotes[from] = r
	}
	c.used[from] = true
	return r, nil
}

func newReading(r Reading) (reading, error) {
	compiled := reading{consumer: cmp.Or(r.Consumer, "sub"), plan: r.Plan}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		if err := checkHeader(name); err != nil {
			return reading{}, err
		}
		if r.Headers[name] == "" {
			return reading{}, fmt.Errorf("header %q names no claim", name)
		}
		compiled.headers = append(compiled.headers, claimHeader{name: name, claim: r.Headers[name]})
	}
	return compiled, nil
}

// checkName refuses names that could be taken for something else, or could not be told in a header or a log.
func checkName(name, without string) error {
	if name == "" || len(name) > 256 || !utf8.ValidString(name) {
		return errors.New("the name is empty, too long, or not UTF-8")
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '"' || r == '\\' || strings.ContainsRune(without, r) {
			return fmt.Errorf("the name may not hold %q", r)
		}
	}
	return nil
}

// checkMetadata refuses claims that Envoy could not be told under their names.
func checkMetadata(claims []string) error {
	for i, name := range claims {
		if name == "" || !utf8.ValidString(name) || slices.Contains(claims[:i], name) {
			return fmt.Errorf("metadata: the claim %q is empty, not UTF-8, or stands twice", name)
		}
	}
	return nil
}

// reserved are headers that steer the connection, the route or the credentials.
var reserved = []string{
	"host", "authorization", "connection", "content-length", "keep-alive", "te", "trailer",
	"transfer-encoding", "upgrade", "proxy-connection",
}

// checkHeader tells whether a claim may be sent on under that header name.
func checkHeader(name string) error {
	if !headerName(name) {
		return fmt.Errorf("header %q: only lower-case letters, digits and - make a header name", name)
	}
	if slices.Contains(reserved, name) || strings.HasPrefix(name, "x-envoy-") {
		return fmt.Errorf("header %q may not be set from a claim", name)
	}
	return nil
}

func headerName(name string) bool {
	return name != "" && len(name) <= 128 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
