// Package identities is the keys of a consumer that tell what it is known by: jwt, the names in tokens, and identities, those
// of auth entries of any kind. feature/auth asks it for the identities.
package identities

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"

	"github.com/legation/legation/policy"
)

//go:embed identities.md
var doc string

//go:embed jwt.md
var jwtDoc string

// Kind is the key identities, JWTKind the key jwt of a consumer.
var (
	Kind    = policy.Define[Identities]("identities", policy.InConsumer, doc)
	JWTKind = policy.Define[Identities]("jwt", policy.InConsumer, jwtDoc)
)

// Identities is what stands under either key: by auth entry, the names there that are the consumer.
type Identities map[string]policy.Names

// Check holds the names against the auth entries, and against the other consumers: an identity is one of them.
func (s *Identities) Check(c *policy.Check) {
	if len(*s) == 0 {
		c.Errorf("", "name at least one identity").Hintf("write {idp: alice} with the name of an auth entry")
	}
	for _, entry := range slices.Sorted(maps.Keys(*s)) {
		if c.Ref(entry, "auth", entry) {
			checkEntry(c, entry)
		}
		names := (*s)[entry]
		if len(names) == 0 {
			c.Errorf(entry, "name at least one identity")
		}
		seen := make(map[string]bool, len(names))
		for i, name := range names {
			at := place{entry, i, len(names)}
			switch {
			case name == "":
				c.Errorf(at.path(), "want the name that callers have there, got nothing")
			case seen[name]:
				c.Errorf(at.path(), "the identity %q stands here twice", entry+"/"+name).Hintf("remove one of the two")
			default:
				checkUnique(c, at, entry+"/"+name)
			}
			seen[name] = true
		}
	}
}

// keyed is the setting of an auth entry that tells whose its credentials are.
type keyed interface{ NamesConsumers() bool }

// checkEntry refuses what the entry can't give: names in tokens where there are none, and names where credentials are made
// for a consumer.
func checkEntry(c *policy.Check, entry string) {
	i := slices.IndexFunc(c.Common().Auth, func(a *policy.Auth) bool { return a.Name == entry })
	if i < 0 {
		return
	}
	settings := c.Common().Auth[i].Settings
	if k, ok := policy.Find[keyed](settings); ok && k.NamesConsumers() {
		c.Errorf(entry, "the keys that the auth entry %q takes are made for a consumer each", entry).
			Hintf("write apiKeys in the consumer, or make keys with legation key create --consumer %s", c.Entry().Name)
		return
	}
	if c.Set().Kind.Key == JWTKind.Key && len(settings) > 0 && !settings.Has(JWTKind.Key) {
		c.Errorf(entry, "the auth entry %q takes no tokens", entry).Hintf("write identities: {%s: …}", entry)
	}
}

// place is where a name stands below the setting.
type place struct {
	entry    string
	i, among int
}

func (p place) path() string {
	if p.among == 1 {
		return p.entry
	}
	return fmt.Sprintf("%s[%d]", p.entry, p.i)
}

// owners are the consumers that identities belong to, the first by name where there are several.
type owners map[string]owner

type owner struct {
	consumer string
	pos      policy.Pos
}

func newOwners(m *policy.Common) owners {
	all := owners{}
	for _, c := range m.Consumers {
		for set, ids := range policy.Each[*Identities](c.Settings) {
			for _, id := range ids.Identities() {
				if _, taken := all[id]; !taken {
					all[id] = owner{c.Name, set.Pos()}
				}
			}
		}
	}
	return all
}

// checkUnique refuses an identity that is another consumer's too; it is told at the later name.
func checkUnique(c *policy.Check, at place, identity string) {
	first, ok := policy.Once(c, func() owners { return newOwners(c.Common()) })[identity]
	if !ok || first.consumer == c.Entry().Name {
		return
	}
	p := c.Errorf(at.path(), "the identity %q is the consumer %q too", identity, first.consumer).
		Hintf("an identity belongs to one consumer: remove it from %q or %q", first.consumer, c.Entry().Name)
	p.Also = append(p.Also, first.pos)
}

// Identities are the names, each with the auth entry before it, so that equal names of two issuers stay apart.
func (s *Identities) Identities() []string {
	var ids []string
	for _, entry := range slices.Sorted(maps.Keys(*s)) {
		for _, name := range (*s)[entry] {
			ids = append(ids, entry+"/"+name)
		}
	}
	return ids
}
