package auth

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/legation/legation/store"
)

// APIKey accepts keys that were made for consumers: those that the table has, and those of [Options.Keys].
type APIKey struct {
	Places  []KeyPlace        `json:"places"`            // where a key may stand; at least one
	Pepper  string            `json:"pepper,omitempty"`  // the secret that the hashes are made with; "" = none
	Forward bool              `json:"forward,omitempty"` // backends get to see the key
	Headers map[string]string `json:"headers,omitempty"` // request header (lower case) -> claim: sub, consumer, name, plan
}

// KeyPlace is where a key may stand: exactly one of the three.
type KeyPlace struct {
	Header string `json:"header,omitempty"` // in lower case
	Query  string `json:"query,omitempty"`
	Cookie string `json:"cookie,omitempty"`
}

// Key is an API key that the table has: the ID and the hash of one, or a secret that holds keys themselves. Keys of a secret
// that legation did not make have the name of their consumer for an ID.
type Key struct {
	ID      string
	Hash    string // by [HashKey]
	Secret  string // one of [Table.Secrets]
	Expires time.Time
	Entries []string // the providers that take it; none: all that take keys
}

var (
	errKeyMalformed = newRefusal("key_malformed", "the API key is malformed")
	errKeyUnknown   = newRefusal("key_unknown", "the API key is not known")
	errKeyExpired   = newRefusal("key_expired", "the API key is expired")
	errKeyConsumer  = newRefusal("key_consumer", "whom the API key was made for is not a consumer any more")
)

// apiKey is a key that is good, but for its end.
type apiKey struct {
	id       string
	consumer string
	plan     string    // "" = none
	name     string    // "" = none
	created  time.Time // zero: not known
	expires  time.Time
	entries  []string
}

// takenBy tells whether the provider of that name takes the key.
func (k *apiKey) takenBy(provider string) bool {
	return len(k.entries) == 0 || slices.Contains(k.entries, provider)
}

// keyTable is the keys of a table. What a lookup in a map tells of a hash tells nothing of the key.
type keyTable struct {
	hashed  map[keyHash]*apiKey
	secrets map[[sha256.Size]byte]*apiKey // of secrets, by a hash that is kept nowhere
	listed  []*apiKey
}

func newKeyTable() *keyTable {
	return &keyTable{hashed: map[keyHash]*apiKey{}, secrets: map[[sha256.Size]byte]*apiKey{}}
}

// keys takes in the keys of a consumer.
func (c *compiler) keys(of Consumer) error {
	for _, k := range of.Keys {
		if (k.Secret == "") == (k.Hash == "") {
			return errors.New("a key needs either a hash or a secret")
		}
		if err := c.key(of.Name, k); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) key(consumer string, k Key) error {
	made := apiKey{id: k.ID, consumer: consumer, expires: k.Expires, entries: slices.Clone(k.Entries)}
	t := c.next.keys
	if k.Hash != "" {
		if err := checkName(k.ID, "/"); err != nil {
			return fmt.Errorf("key: %w", err)
		}
		hash, err := parseHash(k.Hash)
		if err != nil {
			return fmt.Errorf("key %q: %w", k.ID, err)
		}
		if other := t.hashed[hash]; other != nil && other.consumer != consumer {
			return fmt.Errorf("key %q is consumer %q's too", k.ID, other.consumer)
		}
		t.hashed[hash] = &made
		t.listed = append(t.listed, &made)
		return nil
	}
	content, err := c.secret(k.Secret)
	if err != nil {
		return nil // nobody has these keys until the secret is there
	}
	keys, err := SecretKeys(content)
	if err != nil {
		return fmt.Errorf("secret %s: %w", k.Secret, err)
	}
	for _, key := range keys {
		one := made
		one.id = cmp.Or(KeyID(key), consumer)
		if other := t.secrets[sumOf(key)]; other != nil && other.consumer != consumer {
			return fmt.Errorf("secret %s: a key is consumer %q's too", k.Secret, other.consumer)
		}
		t.secrets[sumOf(key)] = &one
		t.listed = append(t.listed, &one)
	}
	return nil
}

// keyWay is the way of an [APIKey].
type keyWay struct {
	*provider
	places  []KeyPlace
	pepper  []byte
	forward bool
	board   store.Board // nil: none but the table's

	mu    sync.RWMutex // guards what follows
	of    *table
	at    uint64                       // version of the board
	known map[[sha256.Size]byte]*grant // of good keys only, so that their number bounds it
}

func compileAPIKey(c *compiler, p Provider, to *provider) (_ way, err error) {
	w := &keyWay{provider: to, places: slices.Clone(p.APIKey.Places), forward: p.APIKey.Forward, board: c.o.Keys}
	if len(w.places) == 0 {
		return nil, errors.New("names no place where a key may stand")
	}
	for _, place := range w.places {
		if err := place.check(); err != nil {
			return nil, err
		}
	}
	if to.reading, err = newReading(Reading{Plan: "plan", Headers: p.APIKey.Headers}); err != nil {
		return nil, err
	}
	if p.APIKey.Pepper == "" {
		return w, nil
	}
	if w.pepper, err = c.secret(p.APIKey.Pepper); err != nil {
		return nil, err
	}
	if err := CheckPepper(w.pepper); err != nil {
		return nil, fmt.Errorf("secret %s: %w", p.APIKey.Pepper, err)
	}
	return w, nil
}

// check tells why no key can stand there.
func (p KeyPlace) check() error {
	set := 0
	for _, name := range []string{p.Header, p.Query, p.Cookie} {
		if name != "" {
			set++
		}
	}
	switch {
	case set != 1:
		return errors.New("a place is one of header, query and cookie")
	case p.Header != "":
		if headerName(p.Header) && (Steers(p.Header) || checkHeader(p.Header) != nil) {
			return fmt.Errorf("the header %q is for something else than keys", p.Header)
		}
		return checkHeader(p.Header)
	case !httpToken(p.Query+p.Cookie) || strings.ContainsAny(p.Query, "+%&#"):
		return fmt.Errorf("%q is no name of a query parameter or a cookie that every reader understands alike", p.Query+p.Cookie)
	}
	return nil
}

func (w *keyWay) challenge() string { return `ApiKey realm="` + w.name + `"` }

func (w *keyWay) same(other way) bool {
	o, ok := other.(*keyWay)
	return ok && subtle.ConstantTimeCompare(w.pepper, o.pepper) == 1
}

func (w *keyWay) hides() (list []From) {
	if w.forward {
		return nil
	}
	for _, p := range w.places {
		list = append(list, From{Header: p.Header, Query: p.Query, Cookie: p.Cookie})
	}
	return list
}

func (w *keyWay) look(d *decision, now time.Time) finding {
	raw, err := w.find(d)
	if raw == "" || err != nil {
		return finding{err: err}
	}
	g, err := w.grantOf(d, raw, now)
	return finding{grant: g, err: err}
}

// find gives the one key that the request brings, "" for none.
func (w *keyWay) find(d *decision) (key string, err error) {
	found := 0
	take := func(value string) bool {
		key = value
		found++
		return true
	}
	for _, p := range w.places {
		switch {
		case p.Header != "":
			if value := d.header(p.Header); value != "" {
				take(value)
			}
		case p.Query != "":
			parameters(d.path, p.Query)(func(value string) bool {
				if plain, err := url.QueryUnescape(value); err == nil {
					value = plain
				}
				return take(value)
			})
		default:
			cookies(d.header("cookie"), p.Cookie)(take)
		}
	}
	switch {
	case found == 0:
		return "", nil
	case found > 1 || strings.IndexByte(key, ',') >= 0: // Envoy joins two headers with a comma
		return "", denyTwoKeys
	case key == "":
		return "", errKeyMalformed
	}
	return key, nil
}

// grantOf is what a key gives.
func (w *keyWay) grantOf(d *decision, key string, now time.Time) (*grant, error) {
	var version uint64
	if w.board != nil {
		version = w.board.Version() // before anything is read, so that nothing is kept for longer than it is good
	}
	sum := d.tokenSum(key)
	if g := w.remembered(d.table, version, sum); g != nil {
		if !g.expires.IsZero() && !now.Before(g.expires) {
			return nil, errKeyExpired
		}
		return g, nil
	}
	k, err := w.recall(d.table, key, sum)
	if err != nil {
		return nil, err
	}
	if !k.expires.IsZero() && !now.Before(k.expires) {
		return nil, errKeyExpired
	}
	if _, there := d.table.named[k.consumer]; !there {
		return nil, errKeyConsumer
	}
	g, err := w.newGrant(claims{"sub": k.id, "consumer": k.consumer, "plan": k.plan, "name": k.name}, k.expires)
	if err != nil {
		return nil, err
	}
	g.consumer, g.issued = k.consumer, k.created
	g.marks = append(g.marks, "key:"+g.identity)
	w.remember(d.table, version, sum, g)
	return g, nil
}

// recall finds a key among those that there are.
func (w *keyWay) recall(t *table, key string, sum *[sha256.Size]byte) (*apiKey, error) {
	id, err := keyID(key)
	if err != nil {
		return nil, err
	}
	hash := keyHash{sum: *sum}
	if len(w.pepper) > 0 {
		hash = hashKey(key, w.pepper)
	}
	k := t.keys.hashed[hash]
	if k == nil {
		k = t.keys.secrets[*sum]
	}
	if k == nil && id != "" && w.board != nil {
		if k = recallShared(w.board, id, key, w.pepper); k == nil && !w.board.Known() {
			return nil, denyNoBoard
		}
	}
	if k == nil || !k.takenBy(w.name) {
		return nil, errKeyUnknown
	}
	return k, nil
}

func (w *keyWay) remembered(t *table, version uint64, sum *[sha256.Size]byte) *grant {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.of != t || w.at != version {
		return nil
	}
	return w.known[*sum]
}

func (w *keyWay) remember(t *table, version uint64, sum *[sha256.Size]byte, g *grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of != t || w.at != version {
		w.of, w.at, w.known = t, version, map[[sha256.Size]byte]*grant{}
	}
	w.known[*sum] = g
}

// sharedKey is what the board has under the ID of a key. One that was revoked keeps its place, so that no late write brings
// the key back.
type sharedKey struct {
	Consumer string    `json:"consumer,omitempty"`
	Entries  []string  `json:"entries,omitempty"`
	Plan     string    `json:"plan,omitempty"`
	Name     string    `json:"name,omitempty"`
	Hashes   []string  `json:"hashes,omitempty"` // by hash, one for each pepper of the providers that take it
	Created  time.Time `json:"created,omitzero"`
	Revoked  time.Time `json:"revoked,omitzero"`
}

// hash is that of a key together with what it was made for: who can write into the store, but knows no pepper, can't give
// a key to another consumer either.
func (s sharedKey) hash(key string, pepper []byte) string {
	s.Hashes = nil
	made, err := json.Marshal(s)
	if err != nil {
		panic(err) // texts and times of this century: cannot happen
	}
	return HashKey(key+string(made), pepper)
}

// decoy is looked at in the place of a key that is not there, so that to look takes as long.
var decoy = func() []byte {
	_, key := NewKey()
	b, err := json.Marshal(sharedKey{Consumer: "nobody", Hashes: []string{HashKey(key, nil)}, Created: time.Unix(0, 0).UTC()})
	if err != nil {
		panic(err) // texts only: cannot happen
	}
	return b
}()

func recallShared(board store.Board, id, key string, pepper []byte) *apiKey {
	e, there := board.Get(id)
	if !there {
		e.Value = decoy
	}
	var s sharedKey
	if json.Unmarshal(e.Value, &s) != nil || !s.Revoked.IsZero() {
		return nil
	}
	hash, good := s.hash(key, pepper), false
	for _, h := range s.Hashes {
		good = good || subtle.ConstantTimeCompare([]byte(h), []byte(hash)) == 1
	}
	if !there || !good {
		return nil
	}
	return &apiKey{id: id, consumer: s.Consumer, plan: s.Plan, name: s.Name, created: s.Created, expires: e.Expires, entries: s.Entries}
}
