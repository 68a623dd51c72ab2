package auth

import (
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"iter"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/store"
)

// slate is a board that tests write on.
type slate struct {
	mu      sync.Mutex // guards entries
	entries map[string]store.Entry
	version atomic.Uint64
	gets    atomic.Int64
	unknown bool
	err     error // of Put
}

func (s *slate) Get(name string) (store.Entry, bool) {
	s.gets.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[name]
	return e, ok && (e.Expires.IsZero() || time.Now().Before(e.Expires))
}

func (s *slate) Entries() iter.Seq[store.Entry] {
	return func(yield func(store.Entry) bool) {
		for name := range s.entries {
			if e, ok := s.Get(name); ok && !yield(e) {
				return
			}
		}
	}
}

func (s *slate) Put(_ context.Context, e store.Entry) error {
	if s.err != nil {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[string]store.Entry{}
	}
	e.Written = time.Now()
	s.entries[e.Name] = e
	s.version.Add(1)
	return nil
}

func (s *slate) Known() bool     { return !s.unknown }
func (s *slate) Version() uint64 { return s.version.Load() }

// revoke fails the test where it doesn't work.
func revoke(t testing.TB, s *Service, name string) {
	t.Helper()
	if _, err := s.Revoke(t.Context(), Revocation{Name: name}); err != nil {
		t.Fatal(err)
	}
}

func TestRevocationStopsWhatItNames(t *testing.T) {
	rule := staticRule()
	table := Table{Rules: []Rule{rule}, Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/alice"}}}}
	now := time.Now().Unix()
	token := func(changes map[string]any) string { return rsaPair().sign(t, goodClaims(changes)) }
	plain := token(nil)
	for _, run := range []struct {
		name, token string
		stops       bool
	}{
		{"jti:idp/7", token(map[string]any{"jti": "7"}), true},
		{"jti:idp/7", token(map[string]any{"jti": "8"}), false},
		{"jti:idp/7", token(map[string]any{"jti": 7}), false},
		{"jti:other/7", token(map[string]any{"jti": "7"}), false},
		{"subject:idp/alice", plain, true},
		{"subject:idp/alice", token(map[string]any{"iat": now - 3600}), true},
		{"subject:idp/alice", token(map[string]any{"iat": nil}), true},
		{"subject:idp/alice", token(map[string]any{"iat": now + 2}), false}, // it was given later
		{"subject:idp/bob", plain, false},
		{"subject:other/alice", plain, false},
		{"consumer:acme", plain, true},
		{"consumer:acme", token(map[string]any{"iat": now + 2}), true},
		{"consumer:acme", token(map[string]any{"sub": "bob"}), false},
		{"consumer:alice", plain, false},
		{tokenMark(plain), plain, true},
		{tokenMark(plain), token(map[string]any{"jti": "9"}), false},
		{"session:7", token(map[string]any{"jti": "7"}), false},
	} {
		for _, seen := range []bool{false, true} {
			s := load(t, Options{Revoked: &slate{}}, table)
			c := dial(t, s)
			if seen {
				if got := check(t, c, ask(rule.ID(), "Bearer "+run.token)); got.status != 200 {
					t.Fatalf("%s: before: %+v", run.name, got)
				}
			}
			revoke(t, s, run.name)
			got, want := check(t, c, ask(rule.ID(), "Bearer "+run.token)), 200
			if run.stops {
				want = 401
			}
			if got.status != want || run.stops && (got.meta["reason"] != "revoked" || got.meta["consumer"] != nil ||
				!strings.HasSuffix(got.headers["www-authenticate"], `, error="invalid_token", error_description="the credentials have been revoked"`)) {
				t.Errorf("%s, seen before: %t: %+v, want %d", run.name, seen, got, want)
			}
			if _, err := s.Unrevoke(t.Context(), run.name); err != nil {
				t.Error(err)
			}
			if got := check(t, c, ask(rule.ID(), "Bearer "+run.token)); got.status != 200 {
				t.Errorf("%s, undone: %+v", run.name, got)
			}
		}
	}
}

// Of an ECDSA signature everybody can make a second one that is valid: it must not bring a revoked token back.
func TestRevokedTokenHasNoSecondSignature(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{Revoked: &slate{}}, Table{Rules: []Rule{rule}})
	token := ecPair().sign(t, goodClaims(nil))
	at := strings.LastIndexByte(token, '.') + 1
	signature := must(base64.RawURLEncoding.DecodeString(token[at:]))
	order := ecPair().private.Public().(*ecdsa.PublicKey).Params().N
	second := new(big.Int).Sub(order, new(big.Int).SetBytes(signature[32:]))
	other := token[:at] + b64(string(signature[:32])+string(second.FillBytes(make([]byte, 32))))
	c := dial(t, s)
	if got := check(t, c, ask(rule.ID(), "Bearer "+other)); got.status != 200 || other == token {
		t.Fatalf("the second signature is not valid: %+v", got)
	}
	r := TokenRevocation(token)
	revoke(t, s, r.Name)
	for _, raw := range []string{token, other} {
		if got := check(t, c, ask(rule.ID(), "Bearer "+raw)); got.status != 401 {
			t.Errorf("%+v", got)
		}
	}
}

func TestRevocationsNotKnownYet(t *testing.T) {
	rule := staticRule()
	board := &slate{unknown: true}
	s := load(t, Options{Revoked: board}, Table{Rules: []Rule{rule}})
	c := dial(t, s)
	for name, want := range map[string]struct {
		authorization, reason string
		status                int
	}{
		"good":    {"Bearer " + rsaPair().sign(t, goodClaims(nil)), "revocations_unknown", 503},
		"bad":     {"Bearer x", "token_malformed", 401},
		"nothing": {"", "no_credentials", 401},
	} {
		if got := check(t, c, ask(rule.ID(), want.authorization)); got.status != want.status || got.meta["reason"] != want.reason {
			t.Errorf("%s: %+v", name, got)
		}
	}
	board.unknown = false
	if got := check(t, c, ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil)))); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestGoodGrantsAreLookedUpOnceForEachChange(t *testing.T) {
	rule := staticRule()
	board := &slate{}
	s := load(t, Options{Revoked: board}, Table{Rules: []Rule{rule}})
	q := ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil)))
	looks := func() int64 {
		before := board.gets.Load()
		for range 3 {
			if got := must(s.Check(t.Context(), q)); got.GetOkResponse() == nil {
				t.Error(got)
			}
		}
		return board.gets.Load() - before
	}
	first := looks()
	if again := looks(); first == 0 || again != 0 {
		t.Errorf("looked up %d times, and %d more", first, again)
	}
	revoke(t, s, "subject:idp/bob")
	if got := looks(); got != first {
		t.Errorf("looked up %d times after a change, want %d", got, first)
	}
	if err := s.Load(Table{Rules: []Rule{rule}, Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/alice"}}}}); err != nil {
		t.Fatal(err)
	}
	if got := looks(); got != first { // other consumers, which may be revoked
		t.Errorf("looked up %d times after a load, want %d", got, first)
	}
}

func TestConsumerThatWasRevokedBeforeItsIdentityWasListed(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{Revoked: &slate{}}, Table{Rules: []Rule{rule}})
	q := ask(rule.ID(), "Bearer "+rsaPair().sign(t, goodClaims(nil)))
	revoke(t, s, "consumer:acme")
	for _, consumers := range [][]Consumer{nil, {{Name: "acme", Identities: []string{"idp/alice"}}}} {
		if err := s.Load(Table{Rules: []Rule{rule}, Consumers: consumers}); err != nil {
			t.Fatal(err)
		}
		if got := must(s.Check(t.Context(), q)); (got.GetOkResponse() == nil) != (consumers != nil) {
			t.Errorf("%v: %v", consumers, got)
		}
	}
}

func TestRevokedAmongSeveral(t *testing.T) {
	any, all := staticRule(), staticRule()
	second := all.Providers[0]
	second.Name = "second"
	any.Providers, all.Providers = append(any.Providers, second), append(all.Providers, second)
	all.Name, all.All = "edge/all", true
	s := load(t, Options{Revoked: &slate{}}, Table{Rules: []Rule{any, all}})
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	revoke(t, s, "subject:second/alice")
	c := dial(t, s)
	for _, want := range []struct {
		rule   Rule
		status int
	}{{any, 200}, {all, 401}} {
		if got := check(t, c, ask(want.rule.ID(), token)); got.status != want.status {
			t.Errorf("%s: %+v", want.rule.Name, got)
		}
	}
	revoke(t, s, "subject:idp/alice")
	if got := check(t, c, ask(any.ID(), token)); got.status != 401 || got.meta["reason"] != "revoked" {
		t.Errorf("both are revoked: %+v", got)
	}
}

func TestRevoking(t *testing.T) {
	ctx := t.Context()
	rule := staticRule()
	board := &slate{}
	s := load(t, Options{Revoked: board}, Table{Rules: []Rule{rule}, Consumers: []Consumer{{Name: "acme", Identities: []string{"idp/alice"}}}})
	hash := "token:" + strings.Repeat("0a", 32)
	for _, name := range []string{
		"", "jti", "jti:", "jti:idp", "jti:idp/", "jti:/7", "subject:alice", "key:7", "consumer:", "consumer:idp/alice", "session:", "nobody:x",
		"token:", "token:eyJ.eyJ.AAA", strings.ToUpper(hash), hash + "0", "session:\xff", "session:" + strings.Repeat("x", 5000), "Consumer:acme",
	} {
		if _, err := s.Revoke(ctx, Revocation{Name: name}); !errors.Is(err, ErrRevocation) || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for what, r := range map[string]Revocation{
		"over":   {Name: "session:x", Until: time.Now()},
		"lines":  {Name: "session:x", Reason: "a\nb"},
		"reason": {Name: "session:x", Reason: strings.Repeat("x", 2000)},
	} {
		if _, err := s.Revoke(ctx, r); !errors.Is(err, ErrRevocation) {
			t.Errorf("%s: %v", what, err)
		}
	}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	for name, noted := range map[string]bool{
		hash: false, "jti:idp/a/b": false, "jti:ipd/7": true, "subject:idp/x": false, "subject:ipd/x": true, "consumer:acme": false,
		"consumer:acne": true, "key:ipd/7": true, "session:x:y/z": false,
	} {
		r, err := s.Revoke(ctx, Revocation{Name: name, Reason: "left", Until: until})
		if err != nil || r.Name != name || r.Reason != "left" || r.Since.IsZero() || !r.Until.Equal(until) || (r.Note != "") != noted {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
	all, err := s.Revocations()
	if err != nil || len(all) != 9 || all[0].Since.Before(all[8].Since) {
		t.Errorf("%+v %v", all, err)
	}
	for range 2 {
		_, err = s.Unrevoke(ctx, hash)
	}
	if all, _ := s.Revocations(); len(all) != 8 || !errors.Is(err, ErrNotRevoked) {
		t.Errorf("%d are left; %v", len(all), err)
	}
	board.err = store.ErrUnavailable
	if _, err := s.Revoke(ctx, Revocation{Name: "session:z"}); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	none := New(Options{})
	_, first := none.Revoke(ctx, Revocation{Name: "session:x"})
	_, second := none.Unrevoke(ctx, "session:x")
	_, third := none.Revocations()
	for _, err := range []error{first, second, third} {
		if !errors.Is(err, ErrNoBoard) {
			t.Error(err)
		}
	}
}

func TestRevocationOutlivesItsToken(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	r := TokenRevocation(rsaPair().sign(t, goodClaims(map[string]any{"exp": exp.Unix()})))
	if want := exp.Add(maxSkew); !r.Until.Equal(want) {
		t.Errorf("%+v, want until %s", r, want)
	}
	for _, raw := range []string{"opaque", "a.b.c", rsaPair().sign(t, goodClaims(map[string]any{"exp": nil})), "x.y"} {
		if r := TokenRevocation(raw); !r.Until.IsZero() {
			t.Errorf("%s: %+v", raw, r)
		}
	}
	names := map[string]string{}
	for _, raw := range []string{"opaque", "opaquf", "a.b", "a.b.c", "a.b.c.d", "a.b.c.e"} {
		r := TokenRevocation(raw)
		if other, ok := names[r.Name]; ok || strings.Contains(r.Name, raw) {
			t.Errorf("%s has the name of %s", raw, other)
		}
		names[r.Name] = raw
	}
	got := map[string]time.Duration{}
	for _, name := range []string{r.Name, "jti:a/b", "session:a", "subject:a/b", "consumer:a", "key:a/b"} {
		kind, _, _ := strings.Cut(name, ":")
		got[kind] = must(Lasting(name))
	}
	const month = 30 * 24 * time.Hour
	want := map[string]time.Duration{"token": month, "jti": month, "session": month, "subject": 0, "consumer": 0, "key": 0}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// BenchmarkRevoked is what the check costs a request whose grant was found good before.
func BenchmarkRevoked(b *testing.B) {
	board := &slate{}
	r := revocations{board: board, consumer: (&table{}).consumer}
	g := &grant{identity: "idp/alice"}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.check(g); err != nil {
			b.Fatal(err)
		}
	}
}
