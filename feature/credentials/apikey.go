package credentials

import (
	_ "embed"
	"strings"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed apikey.md
var apiKeyDoc string

// APIKeyKind is the key apiKey of an auth entry.
var APIKeyKind = policy.Define[APIKey]("apiKey", policy.InAuth, apiKeyDoc)

// APIKey is what stands under apiKey: where keys stand in a request.
type APIKey struct {
	Header  policy.Names        `policy:"header" doc:"the header that holds the key, or several"`
	Query   policy.Names        `policy:"query" doc:"the query parameter that holds the key, or several"`
	Cookie  policy.Names        `policy:"cookie" doc:"the cookie that holds the key, or several"`
	Secret  *policy.SecretName  `policy:"secret" doc:"a secret of at least 16 random bytes that the hashes of keys are made with; default: hashes without one"`
	Forward bool                `policy:"forward" doc:"whether the backend gets to see the key; default: false"`
	Headers policy.ClaimHeaders `policy:"headers" doc:"headers for the backend, each with what it tells of the key: sub (its ID), consumer, name or plan"`
}

// Check holds the places against what may stand there.
func (k *APIKey) Check(c *policy.Check) {
	if len(k.places()) == 0 {
		c.Errorf("", "say where in a request the key stands").Hintf("write apiKey: {header: x-api-key}")
	}
	seen := map[auth.KeyPlace]bool{}
	check := func(path string, names policy.Names, place func(string) auth.KeyPlace) {
		for i, name := range names {
			at, p := names.At(path, i), place(name)
			switch err := auth.CheckPlace(p); {
			case err != nil:
				c.Errorf(at, "%v", err).Hintf("write a name of letters, digits and -, such as x-api-key")
			case seen[p]:
				c.Errorf(at, "%q stands here twice", name).Hintf("remove one of the two")
			case p.Header != "":
				if entry, taken := setElsewhere(c, p.Header); taken {
					c.Errorf(at, "the auth entry %q sets the header %q: what clients send under this name is removed", entry, p.Header).
						Hintf("choose another name for one of the two")
				}
			}
			seen[p] = true
		}
	}
	check("header", k.Header, headerPlace)
	check("query", k.Query, queryPlace)
	check("cookie", k.Cookie, cookiePlace)
	if k.Secret != nil {
		c.CompanionText("secret", string(*k.Secret), auth.CheckPepper)
	}
	k.Headers.Check(c, auth.CheckClaimHeader, "sub", "consumer", "name", "plan")
}

func headerPlace(name string) auth.KeyPlace { return auth.KeyPlace{Header: strings.ToLower(name)} }
func queryPlace(name string) auth.KeyPlace  { return auth.KeyPlace{Query: name} }
func cookiePlace(name string) auth.KeyPlace { return auth.KeyPlace{Cookie: name} }

func (k *APIKey) places() (all []auth.KeyPlace) {
	for _, name := range k.Header {
		all = append(all, headerPlace(name))
	}
	for _, name := range k.Query {
		all = append(all, queryPlace(name))
	}
	for _, name := range k.Cookie {
		all = append(all, cookiePlace(name))
	}
	return all
}

// Provider is the companion's half.
func (k *APIKey) Provider(name string) auth.Provider {
	p := &auth.APIKey{Places: k.places(), Forward: k.Forward, Headers: k.Headers.Lower()}
	if k.Secret != nil {
		p.Pepper = string(*k.Secret)
	}
	return auth.Provider{Name: name, APIKey: p}
}

// StripHeaders are those that only keys set.
func (k *APIKey) StripHeaders() []string { return k.Headers.StripHeaders() }

// PlanClaim is where the caller's plan stands: a key may be given one, as long as its consumer has none.
func (*APIKey) PlanClaim() string { return "plan" }

// NamesConsumers tells that each key is made for a consumer.
func (*APIKey) NamesConsumers() bool { return true }
