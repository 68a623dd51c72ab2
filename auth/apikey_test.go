package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/store"
)

var pepper = []byte("0123456789abcdef")

// keyTableOf has two entries, one of them with a pepper, and the consumers acme and other.
func tableOfKeys(keys ...Key) Table {
	provider := func(name, pepper string) Provider {
		return Provider{Name: name, APIKey: &APIKey{Places: []KeyPlace{{Header: "x-api-key"}}, Pepper: pepper, Headers: map[string]string{"x-consumer": "consumer"}}}
	}
	return Table{
		Rules: []Rule{
			{Name: "edge/plain", Providers: []Provider{provider("plain", "")}},
			{Name: "edge/peppered", Providers: []Provider{provider("peppered", "auth/pepper")}},
		},
		Consumers: []Consumer{{Name: "acme", Plan: "gold", Keys: keys}, {Name: "other"}},
		Secrets:   map[string][]byte{"auth/pepper": pepper, "consumers/acme": []byte("# two keys\n0123456789-made-elsewhere\n" + keyOfSecret + "\n")},
	}
}

var _, keyOfSecret = NewKey()

// try is what becomes of a key: the status, and the consumer and plan or the reason.
func try(t testing.TB, s *Service, rule, key string) string {
	t.Helper()
	r, err := s.Check(t.Context(), ask(rule, "", "x-api-key", key))
	if err != nil {
		t.Fatal(err)
	}
	a := flatten(r)
	if a.status != 200 {
		return fmt.Sprint(a.status, " ", a.meta["reason"])
	}
	if a.headers["x-consumer"] != a.meta["consumer"] || !slices.Contains(a.removed, "x-api-key") {
		t.Errorf("passes with %v, without %v", a.headers, a.removed)
	}
	return strings.TrimSpace(fmt.Sprint(a.meta["consumer"], " ", textOf(a.meta["plan"])))
}

func textOf(v any) any {
	if v == nil {
		return ""
	}
	return v
}

func TestKeysOfATable(t *testing.T) {
	_, plain := NewKey()
	_, peppered := NewKey()
	_, both := NewKey()
	_, unknown := NewKey()
	const foreign = "0123456789-of-a-hash"
	s := load(t, Options{}, tableOfKeys(
		Key{ID: KeyID(plain), Hash: HashKey(plain, nil)},
		Key{ID: KeyID(peppered), Hash: HashKey(peppered, pepper)},
		Key{ID: "foreign", Hash: HashKey(foreign, nil), Entries: []string{"plain"}},
		Key{ID: KeyID(both) + ".a", Hash: HashKey(both, nil), Entries: []string{"peppered"}},
		Key{Secret: "consumers/acme"},
		Key{Secret: "consumers/nothing"},
	))
	for _, test := range []struct {
		name, key       string
		plain, peppered string
	}{
		{"without pepper", plain, "acme gold", "401 key_unknown"},
		{"with pepper", peppered, "401 key_unknown", "acme gold"},
		{"made elsewhere", foreign, "acme gold", "401 key_unknown"},
		{"for the other entry", both, "401 key_unknown", "401 key_unknown"},
		{"of a secret", keyOfSecret, "acme gold", "acme gold"},
		{"of a secret, made elsewhere", "0123456789-made-elsewhere", "acme gold", "acme gold"},
		{"unknown", unknown, "401 key_unknown", "401 key_unknown"},
		{"unknown, made elsewhere", "0123456789-made-nowhere", "401 key_unknown", "401 key_unknown"},
		{"wrong checksum", plain[:len(plain)-1] + "!", "401 key_malformed", "401 key_malformed"},
		{"upper case", strings.ToUpper(plain), "401 key_unknown", "401 key_unknown"},
		{"cut off", plain[:len(plain)-1], "401 key_malformed", "401 key_malformed"},
		{"of another ID", keyPrefix + "abcdefgh23" + plain[len(keyPrefix)+idLength:], "401 key_malformed", "401 key_malformed"},
		{"short", "abc", "401 key_malformed", "401 key_malformed"},
		{"long", strings.Repeat("a", maxForeignKey+1), "401 key_malformed", "401 key_malformed"},
		{"two, joined", plain + "," + plain, "400 two_credentials", "400 two_credentials"},
		{"a space", plain + " " + plain, "401 key_malformed", "401 key_malformed"},
		{"not ASCII", plain + "é", "401 key_malformed", "401 key_malformed"},
		{"none", "", "401 no_credentials", "401 no_credentials"},
	} {
		for range 2 { // the second time it is remembered
			if got := try(t, s, "edge/plain", test.key); got != test.plain {
				t.Errorf("%s: got %s, want %s", test.name, got, test.plain)
			}
			if got := try(t, s, "edge/peppered", test.key); got != test.peppered {
				t.Errorf("%s, with pepper: got %s, want %s", test.name, got, test.peppered)
			}
		}
	}
}

func TestTablesWithBadKeysAreRefused(t *testing.T) {
	_, key := NewKey()
	good := HashKey(key, nil)
	for name, k := range map[string]Key{
		"no hash":            {ID: "a"},
		"both":               {ID: "a", Hash: good, Secret: "consumers/acme"},
		"no ID":              {Hash: good},
		"slash":              {ID: "a/b", Hash: good},
		"other form of hash": {ID: "a", Hash: "md5:00"},
		"short hash":         {ID: "a", Hash: good[:20]},
		"upper case":         {ID: "a", Hash: "sha256:" + strings.ToUpper(good[7:])},
		"secret with others": {Secret: "auth/pepper"},
	} {
		if err := New(Options{}).Load(tableOfKeys(k)); err == nil {
			t.Errorf("%s: was loaded", name)
		}
	}
	table := tableOfKeys(Key{ID: "a", Hash: good})
	table.Consumers[1].Keys = []Key{{ID: "b", Hash: good}}
	if err := New(Options{}).Load(table); err == nil {
		t.Error("one key of two consumers was loaded")
	}
	table = tableOfKeys()
	table.Secrets["auth/pepper"] = []byte("short")
	if err := New(Options{}).Load(table); err == nil {
		t.Error("a short pepper was loaded")
	}
}

func TestKeyWithoutItsPepperIsUndecided(t *testing.T) {
	table := tableOfKeys()
	delete(table.Secrets, "auth/pepper")
	if got := try(t, load(t, Options{}, table), "edge/peppered", keyOfSecret); got != "503 no_secret" {
		t.Errorf("got %s", got)
	}
}

func TestKeyLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := &slate{unknown: true}
		s := load(t, Options{Keys: keys}, tableOfKeys())
		made := must(s.MakeKey(t.Context(), KeyOrder{Consumer: "other", Plan: "free", Expires: time.Now().Add(time.Hour)}))
		want := func(what, rule, key, want string) {
			t.Helper()
			for range 2 {
				if got := try(t, s, rule, key); got != want {
					t.Errorf("%s: got %s, want %s", what, got, want)
				}
			}
		}
		want("made", "edge/plain", made.Key, "other free")
		want("made", "edge/peppered", made.Key, "other free")
		_, unknown := NewKey()
		want("before the board is known", "edge/plain", unknown, "503 no_key_store")
		want("made elsewhere, before the board is known", "edge/plain", "0123456789-made-nowhere", "401 key_unknown")
		keys.unknown = false
		want("unknown", "edge/plain", unknown, "401 key_unknown")
		want("of its ID", "edge/plain", withSecretOf(made.Key, unknown), "401 key_unknown")

		next := must(s.RotateKey(t.Context(), made.ID, 10*time.Minute))
		want("old", "edge/plain", made.Key, "other free")
		want("new", "edge/plain", next.Key, "other free")
		time.Sleep(10*time.Minute - time.Second)
		want("old, a second before its end", "edge/plain", made.Key, "other free")
		time.Sleep(time.Second)
		if got := try(t, s, "edge/plain", made.Key); got == "other free" {
			t.Error("the old key is good when its time is over")
		}
		must(s.RevokeKey(t.Context(), next.ID))
		want("revoked", "edge/plain", next.Key, "401 key_unknown")
		if _, err := s.RevokeKey(t.Context(), next.ID); !errors.Is(err, ErrNoKey) {
			t.Errorf("revoked twice: %v", err)
		}

		last := must(s.MakeKey(t.Context(), KeyOrder{Consumer: "other", Entries: []string{"peppered"}}))
		want("for one entry", "edge/peppered", last.Key, "other")
		want("for one entry", "edge/plain", last.Key, "401 key_unknown")
		table := tableOfKeys()
		table.Consumers = table.Consumers[:1]
		if err := s.Load(table); err != nil {
			t.Fatal(err)
		}
		want("without its consumer", "edge/peppered", last.Key, "401 key_consumer")
	})
}

func TestRevocationsOfKeysAndGuests(t *testing.T) {
	table := tableOfKeys(Key{Secret: "consumers/acme"})
	table.Rules[0].Providers = append(table.Rules[0].Providers, Provider{Name: "guests", Anonymous: &Anonymous{}})
	keys := new(slate)
	for _, test := range []struct{ name, key string }{
		{"key:plain/" + KeyID(keyOfSecret), keyOfSecret},
		{"subject:plain/" + KeyID(keyOfSecret), keyOfSecret},
		{"consumer:acme", keyOfSecret},
		{"subject:guests/anonymous", ""},
	} {
		s := load(t, Options{Keys: keys, Revoked: new(slate)}, table)
		status := func() int {
			q := ask("edge/plain", "")
			if test.key != "" {
				q.Attributes.Request.Http.Headers["x-api-key"] = test.key
			}
			return flatten(must(s.Check(t.Context(), q))).status
		}
		before := status()
		must(s.Revoke(t.Context(), Revocation{Name: test.name}))
		if after := status(); before != 200 || after != 401 {
			t.Errorf("%s: got %d, then %d", test.name, before, after)
		}
	}
}

// Who can write into the store has a key of its own, and no pepper.
func TestKeysStayTheirConsumers(t *testing.T) {
	keys := new(slate)
	s := load(t, Options{Keys: keys}, tableOfKeys())
	made := must(s.MakeKey(t.Context(), KeyOrder{Consumer: "other", Entries: []string{"peppered"}}))
	e, _ := keys.Get(made.ID)
	if got := try(t, s, "edge/peppered", made.Key); got != "other" {
		t.Fatalf("got %q", got)
	}
	for name, change := range map[string]func(*sharedKey){
		"consumer": func(k *sharedKey) { k.Consumer = "acme" },
		"plan":     func(k *sharedKey) { k.Plan = "gold" },
		"entries":  func(k *sharedKey) { k.Entries = nil },
		"created":  func(k *sharedKey) { k.Created = k.Created.Add(time.Hour) },
	} {
		var k sharedKey
		if err := json.Unmarshal(e.Value, &k); err != nil {
			t.Fatal(err)
		}
		change(&k)
		if err := s.putKey(t.Context(), made.ID, k, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if got := try(t, s, "edge/peppered", made.Key); got != "401 key_unknown" {
			t.Errorf("another %s: got %q", name, got)
		}
	}
}

func TestKeysInCookiesAreHidden(t *testing.T) {
	table := tableOfKeys(Key{Secret: "consumers/acme"})
	table.Rules = []Rule{{Name: "edge/cookie", Providers: []Provider{{Name: "plain", APIKey: &APIKey{Places: []KeyPlace{{Cookie: "key"}}}}}}}
	c := dial(t, load(t, Options{}, table))
	for _, cookie := range []string{"key=", "key =", " key\t= "} {
		got := check(t, c, ask("edge/cookie", "", "cookie", "a=1; "+cookie+keyOfSecret+"; b = 2"))
		if got.status != 200 || got.headers["cookie"] != "a=1; b = 2" {
			t.Errorf("%q: got %d, and the backend %q", cookie, got.status, got.headers["cookie"])
		}
	}
}

// interrupted is a board on which something else is done before an entry is written.
type interrupted struct {
	*slate
	before func(name string)
}

func (b interrupted) Put(ctx context.Context, e store.Entry) error {
	b.before(e.Name)
	return b.slate.Put(ctx, e)
}

func TestRotationBringsNoRevokedKeyBack(t *testing.T) {
	keys := interrupted{slate: new(slate), before: func(string) {}}
	s := load(t, Options{Keys: &keys}, tableOfKeys())
	old := must(s.MakeKey(t.Context(), KeyOrder{Consumer: "other"}))
	var made string
	keys.before = func(name string) {
		made, keys.before = name, func(string) {}
		must(s.RevokeKey(t.Context(), old.ID))
	}
	if _, err := s.RotateKey(t.Context(), old.ID, time.Hour); !errors.Is(err, ErrNoKey) {
		t.Errorf("got %v, want that there is no such key", err)
	}
	if got := try(t, s, "edge/plain", old.Key); got != "401 key_unknown" {
		t.Errorf("the revoked key: %s", got)
	}
	if _, _, err := s.shared(made); !errors.Is(err, ErrNoKey) {
		t.Errorf("the key that nobody was told: %v", err)
	}
}

// withSecretOf is a key with the ID of one and the secret of another.
func withSecretOf(key, other string) string {
	body := key[:len(keyPrefix)+idLength+1] + other[len(keyPrefix)+idLength+1:len(other)-sumLength]
	return body + keyChecksum(body)
}

func TestKeysOfTheTableEndToTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, key := NewKey()
		s := load(t, Options{}, tableOfKeys(Key{ID: "a", Hash: HashKey(key, nil), Expires: time.Now().Add(time.Minute)}))
		time.Sleep(time.Minute - 1)
		got := []string{try(t, s, "edge/plain", key)}
		time.Sleep(time.Nanosecond)
		got = append(got, try(t, s, "edge/plain", key), try(t, load(t, Options{}, tableOfKeys(Key{ID: "a", Hash: HashKey(key, nil), Expires: time.Now()})), "edge/plain", key))
		if diff := cmp.Diff([]string{"acme gold", "401 key_expired", "401 key_expired"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestListedKeysHoldNoSecret(t *testing.T) {
	keys := new(slate)
	_, written := NewKey()
	s := load(t, Options{Keys: keys}, tableOfKeys(Key{ID: "written", Hash: HashKey(written, nil)}))
	made := must(s.MakeKey(t.Context(), KeyOrder{Consumer: "acme", Name: "ci"}))
	gone := must(s.MakeKey(t.Context(), KeyOrder{Consumer: "other"}))
	must(s.RevokeKey(t.Context(), gone.ID))
	all := must(s.ListKeys(""))
	want := []KeyInfo{{ID: "written", Consumer: "acme", Policy: true}, made.KeyInfo}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
	if got := must(s.ListKeys("other")); len(got) != 0 {
		t.Errorf("other has %v", got)
	}
	for e := range keys.Entries() {
		if secret := made.Key[len(keyPrefix)+idLength+1:]; strings.Contains(fmt.Sprint(all)+string(e.Value)+e.Name, secret) {
			t.Error("the secret of a key is kept or listed")
		}
	}
}

func TestOrdersThatCanNotBe(t *testing.T) {
	down := errors.New("down")
	keys := new(slate)
	s := load(t, Options{Keys: keys}, tableOfKeys(Key{ID: "written", Hash: HashKey(keyOfSecret, nil)}))
	for name, order := range map[string]KeyOrder{
		"no consumer":        {Consumer: "nobody"},
		"identity":           {Consumer: "plain/a"},
		"plan of the policy": {Consumer: "acme", Plan: "free"},
		"unknown entry":      {Consumer: "acme", Entries: []string{"nothing"}},
		"entry twice":        {Consumer: "acme", Entries: []string{"plain", "plain"}},
		"over":               {Consumer: "acme", Expires: time.Now()},
		"name in two lines":  {Consumer: "acme", Name: "a\nb"},
		"long name":          {Consumer: "acme", Name: strings.Repeat("a", maxKeyName+1)},
	} {
		if _, err := s.MakeKey(t.Context(), order); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.RevokeKey(t.Context(), "written"); !errors.Is(err, ErrOrder) {
		t.Errorf("revoke a key of the policy: %v", err)
	}
	if _, err := s.RotateKey(t.Context(), "abcdefgh23", 0); !errors.Is(err, ErrNoKey) {
		t.Errorf("rotate no key: %v", err)
	}
	if _, err := load(t, Options{}, tableOfKeys()).MakeKey(t.Context(), KeyOrder{Consumer: "acme"}); !errors.Is(err, ErrNoKeys) {
		t.Errorf("without a board: %v", err)
	}
	keys.err = down
	if _, err := s.MakeKey(t.Context(), KeyOrder{Consumer: "acme"}); !errors.Is(err, down) {
		t.Errorf("with a store that is down: %v", err)
	}
}

func TestNewKeysDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id, key := NewKey()
		if KeyID(key) != id || CheckKey(key) != nil || len(key) != keyLength || seen[id] || seen[key] {
			t.Fatalf("%s of %s", key, id)
		}
		seen[id], seen[key] = true, true
	}
}

func TestTypingErrorsAreSeen(t *testing.T) {
	_, key := NewKey()
	for i := len(keyPrefix); i < len(key); i++ {
		other := []byte(key)
		other[i] = 'a'
		if key[i] == 'a' {
			other[i] = 'b'
		}
		if CheckKey(string(other)) == nil {
			t.Errorf("%s passes for %s", other, key)
		}
	}
}

func TestRememberedKeyCostsLittle(t *testing.T) {
	s := load(t, Options{Keys: new(slate)}, tableOfKeys(Key{Secret: "consumers/acme"}))
	d := newDecision()
	q := ask("edge/peppered", "", "x-api-key", keyOfSecret)
	d.read(q)
	now := time.Now()
	look := func() {
		d.outcome = outcome{}
		d.begin(s.table.Load(), now)
	}
	look()
	if d.grant == nil {
		t.Fatal("the key is not good")
	}
	if n := testing.AllocsPerRun(100, look); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAPIKey(b *testing.B) {
	s := load(b, Options{Keys: new(slate)}, tableOfKeys(Key{Secret: "consumers/acme"}))
	for name, rule := range map[string]string{"plain": "edge/plain", "peppered": "edge/peppered"} {
		b.Run(name, func(b *testing.B) {
			d := newDecision()
			d.read(ask(rule, "", "x-api-key", keyOfSecret))
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				d.outcome = outcome{}
				d.begin(s.table.Load(), now)
			}
			if d.grant == nil {
				b.Fatal("the key is not good")
			}
		})
	}
}
