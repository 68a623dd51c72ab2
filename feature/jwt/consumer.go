package jwt

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"

	"github.com/legation/legation/policy"
)

//go:embed consumer.md
var consumerDoc string

// ConsumerKind is the key jwt of a consumer.
var ConsumerKind = policy.Define[Identities]("jwt", policy.InConsumer, consumerDoc)

// Identities is what stands under jwt in a consumer: by auth entry, the names in its tokens that are the consumer.
type Identities map[string]Names

// Names is one name or a list of them.
type Names []string

// DecodePolicy reads one name or a list.
func (s *Names) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar {
		*s = make(Names, 1)
		d.Decode(n, &(*s)[0])
		return
	}
	d.Decode(n, (*[]string)(s))
}

// PolicySchema describes both forms.
func (*Names) PolicySchema(*policy.Schemas) map[string]any {
	name := map[string]any{"type": "string", "minLength": 1}
	return map[string]any{"oneOf": []any{name, map[string]any{"type": "array", "minItems": 1, "items": name}}}
}

// Check holds the names against the auth entries, and against the other consumers: an identity is one of them.
func (s *Identities) Check(c *policy.Check) {
	if len(*s) == 0 {
		c.Errorf("", "name at least one identity").Hintf("write {idp: alice} with the name of an auth entry")
	}
	for _, entry := range slices.Sorted(maps.Keys(*s)) {
		c.Ref(entry, "auth", entry)
		names := (*s)[entry]
		if len(names) == 0 {
			c.Errorf(entry, "name at least one identity")
		}
		for i, name := range names {
			at := entry
			if len(names) > 1 {
				at = fmt.Sprintf("%s[%d]", entry, i)
			}
			if name == "" {
				c.Errorf(at, "want the name that tokens have, got nothing")
				continue
			}
			checkUnique(c, at, entry, name, slices.Contains(names[:i], name))
		}
	}
}

func checkUnique(c *policy.Check, at, entry, name string, twice bool) {
	if twice {
		c.Errorf(at, "the identity %q stands here twice", entry+"/"+name).Hintf("remove one of the two")
		return
	}
	for _, other := range c.Model().Consumers {
		if other.Name >= c.Entry().Name {
			return // told at the later name
		}
		for set, ids := range policy.Each[*Identities](other.Settings) {
			if slices.Contains((*ids)[entry], name) {
				p := c.Errorf(at, "the identity %q is the consumer %q too", entry+"/"+name, other.Name).
					Hintf("an identity belongs to one consumer: remove it from %q or %q", other.Name, c.Entry().Name)
				p.Also = append(p.Also, set.Pos())
			}
		}
	}
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
