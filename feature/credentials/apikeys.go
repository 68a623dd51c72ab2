package credentials

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed apikeys.md
var keysDoc string

// KeysKind is the key apiKeys of a consumer.
var KeysKind = policy.Define[Keys]("apiKeys", policy.InConsumer, keysDoc)

// Keys is what stands under apiKeys: the keys that are the consumer.
type Keys []Key

// Key is one of them: the hash of a key, or the secret that holds it.
type Key struct {
	ID      string             `policy:"id" doc:"the ID, the middle part of a key that legation made; it stands in logs"`
	Hash    string             `policy:"hash" doc:"what legation key hash prints"`
	Secret  *policy.SecretName `policy:"secret" doc:"in the place of id and hash: a secret that holds the key itself, or several, one a line"`
	Expires *Date              `policy:"expires" doc:"when the key ends: 2027-01-01 (as that day begins, UTC) or 2027-01-01T12:00:00Z; default: never"`
	Entries []string           `policy:"entries" doc:"the auth entries that take the key; default: all of apiKey"`
}

// Date is a day or a point in time.
type Date struct{ time.Time }

// DecodePolicy reads a day, or a point in time by RFC 3339.
func (t *Date) DecodePolicy(d *policy.Decode, n *policy.Node) {
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(form, n.Text); err == nil && n.Kind == policy.Scalar {
			t.Time = at.UTC()
			return
		}
	}
	d.Errorf(n, "want a day or a point in time").Hintf("write 2027-01-01, or 2027-01-01T12:00:00Z")
}

// PolicySchema describes both forms.
func (*Date) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": `^\d{4}-\d\d-\d\d([Tt].+)?$`, "description": "a day, or a point in time by RFC 3339"}
}

// Check holds the keys against the entries that shall take them, and against those of other consumers.
func (s *Keys) Check(c *policy.Check) {
	if len(*s) == 0 {
		c.Errorf("", "name at least one key").Hintf("write [{secret: consumers/%s}], or [{id: …, hash: …}] as legation key hash prints it", c.Entry().Name)
	}
	takers := takers(c)
	if len(takers) == 0 {
		c.Errorf("", "there is no auth entry that takes keys").Hintf("write auth: {keys: {apiKey: {header: x-api-key}}}")
	}
	for i := range *s {
		at := fmt.Sprintf("[%d]", i)
		k := &(*s)[i]
		switch {
		case k.Secret == nil && (k.ID == "" || k.Hash == ""):
			c.Errorf(at, "want id and hash, or secret").Hintf("legation key hash makes a key, and prints both")
		case k.Secret != nil && k.ID+k.Hash != "":
			c.Errorf(at, "want id and hash, or secret, not both")
		case k.Secret != nil:
			c.CompanionText(at+".secret", string(*k.Secret), func(content []byte) error {
				_, err := auth.SecretKeys(content)
				return err
			})
		default:
			k.checkHash(c, at, takers)
		}
		for j, name := range k.Entries {
			path := policy.Item(at+".entries", j)
			if _, takes := takers[name]; c.Ref(path, "auth", name) && !takes {
				c.Errorf(path, "the auth entry %q takes no keys", name).Hintf("name an entry of apiKey")
			}
		}
	}
}

// takers are the auth entries that take keys, by name.
func takers(c *policy.Check) map[string]*APIKey {
	return policy.Once(c, func() map[string]*APIKey {
		all := map[string]*APIKey{}
		for _, a := range c.Common().Auth {
			if k, ok := policy.Find[*APIKey](a.Settings); ok {
				all[a.Name] = k
			}
		}
		return all
	})
}

func (k *Key) checkHash(c *policy.Check, at string, takers map[string]*APIKey) {
	if strings.Trim(k.ID, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || len(k.ID) > 64 {
		c.Errorf(at+".id", "want at most 64 characters of a-z, 0-9, -, _ and .").Hintf("the ID of lgn_abc2345678_… is abc2345678")
	}
	if err := auth.CheckHash(k.Hash); err != nil {
		c.Errorf(at+".hash", "this is no hash of a key: %v", err).Hintf("legation key hash prints it").Hide()
		return
	}
	all := policy.Once(c, func() owners { return newOwners(c.Common()) })
	if first, taken := all[k.Hash]; taken && first.consumer != c.Entry().Name {
		p := c.Errorf(at+".hash", "the key is one of the consumer %q too", first.consumer).Hintf("nobody could tell who calls with it: make another").Hide()
		p.Also = append(p.Also, first.pos)
	}
	if first, taken := all[k.ID]; taken && first.key != k {
		p := c.Errorf(at+".id", "the ID %q is one of the consumer %q too", k.ID, first.consumer).Hintf("each key has an ID of its own")
		p.Also = append(p.Also, first.pos)
	}
	peppered := strings.HasPrefix(k.Hash, "hmac-")
	fits := func(name string, e *APIKey) bool {
		return (len(k.Entries) == 0 || slices.Contains(k.Entries, name)) && (e.Secret != nil) == peppered
	}
	for name, e := range takers {
		if fits(name, e) {
			return
		}
	}
	takes := func(name string) bool { return takers[name] != nil }
	if len(takers) == 0 || len(k.Entries) > 0 && !slices.ContainsFunc(k.Entries, takes) {
		return
	}
	if peppered {
		c.Errorf(at+".hash", "the hash was made with a secret, and no auth entry that takes the key has one").
			Hintf("write apiKey: {…, secret: NAME}, or make the hash without --secret-file")
		return
	}
	c.Errorf(at+".hash", "the hash was made without a secret, and each auth entry that takes the key has one").
		Hintf("make it with legation key hash --secret-file FILE")
}

// owners are the keys by ID and by hash, the first where there are several.
type owners map[string]owner

type owner struct {
	consumer string
	key      *Key
	pos      policy.Pos
}

func newOwners(m *policy.Common) owners {
	all := owners{}
	for _, consumer := range m.Consumers {
		for set, keys := range policy.Each[*Keys](consumer.Settings) {
			for i := range *keys {
				k := &(*keys)[i]
				for _, name := range []string{k.ID, k.Hash} {
					if _, taken := all[name]; !taken && name != "" {
						all[name] = owner{consumer.Name, k, set.Pos()}
					}
				}
			}
		}
	}
	return all
}

// APIKeys is the companion's half.
func (s *Keys) APIKeys() []auth.Key {
	var all []auth.Key
	for _, k := range *s {
		one := auth.Key{ID: k.ID, Hash: k.Hash, Entries: k.Entries}
		if k.Secret != nil {
			one.Secret = string(*k.Secret)
		}
		if k.Expires != nil {
			one.Expires = k.Expires.Time
		}
		all = append(all, one)
	}
	return all
}
