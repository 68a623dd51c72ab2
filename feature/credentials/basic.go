package credentials

import (
	_ "embed"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed basic.md
var basicDoc string

// BasicKind is the key basic of an auth entry.
var BasicKind = policy.Define[Basic]("basic", policy.InAuth, basicDoc)

// Basic is what stands under basic: whose names and passwords are good.
type Basic struct {
	Secret  policy.SecretName   `policy:"secret,required" doc:"the secret that lists the users: lines of NAME:HASH, as htpasswd -nB writes them"`
	Realm   string              `policy:"realm" doc:"what browsers show when they ask for the password; default: the name of the entry"`
	Forward bool                `policy:"forward" doc:"whether the backend gets to see the password; default: false"`
	Headers policy.ClaimHeaders `policy:"headers" doc:"headers for the backend, each with what it tells of the user: sub (the name)"`
}

// Check holds the setting against what the companion takes.
func (b *Basic) Check(c *policy.Check) {
	if b.Secret != "" {
		c.CompanionText("secret", string(b.Secret), func(content []byte) error {
			_, err := auth.ParseUsers(content)
			return err
		})
	}
	if b.Realm != "" {
		if err := auth.CheckRealm(b.Realm); err != nil {
			c.Errorf("realm", "%v", err)
		}
	}
	b.Headers.Check(c, auth.CheckClaimHeader, "sub")
}

// Provider is the companion's half.
func (b *Basic) Provider(name string) auth.Provider {
	return auth.Provider{Name: name, Basic: &auth.Basic{
		Users: string(b.Secret), Realm: b.Realm, Forward: b.Forward, Headers: b.Headers.Lower(),
	}}
}

// StripHeaders are those that only users' names set.
func (b *Basic) StripHeaders() []string { return b.Headers.StripHeaders() }
