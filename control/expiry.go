package control

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/legation/legation/policy"
)

// NearEnd is how long before its end a certificate is warned of.
const NearEnd = 14 * 24 * time.Hour

// Secret is what may be shown of a secret that is served.
type Secret struct {
	ID      string    `json:"id"`               // "certificate/tls/example": see [policy.Secret.ID]
	Names   []string  `json:"names,omitempty"`  // that the certificate is for; of authorities, their own
	Expires time.Time `json:"expires,omitzero"` // zero for what is no certificate
}

// secretsOf is what may be shown of a policy's secrets.
func secretsOf(m *policy.Model) []Secret {
	var list []Secret
	for _, s := range m.Secrets {
		list = append(list, secretOf(s))
	}
	return list
}

func secretOf(s *policy.Secret) Secret {
	shown := Secret{ID: s.ID()}
	if s.Kind == policy.OpaqueSecret || s.Kind == policy.CompanionSecret {
		return shown
	}
	for _, c := range chain(s.Value) {
		switch {
		case s.Kind == policy.AuthoritySecret:
			shown.Names = append(shown.Names, c.Subject.String())
			if c.NotAfter.After(shown.Expires) { // bundles have old ones beside the new
				shown.Expires = c.NotAfter
			}
		case shown.Expires.IsZero():
			shown.Names, shown.Expires = namesOf(c), c.NotAfter
		case c.NotAfter.Before(shown.Expires): // a chain is as long as its shortest part
			shown.Expires = c.NotAfter
		}
	}
	return shown
}

// chain is the certificates of a PEM text.
func chain(text []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
	return all
}

// namesOf is the names that a certificate is for.
func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	return names
}

// Expiring warns, at the line that refers to it, of each certificate of a policy that ends soon or has ended; now is
// the time.
func Expiring(m *policy.Model, now time.Time) policy.Problems {
	if m == nil {
		return nil
	}
	var near policy.Problems
	for _, s := range m.Secrets {
		ends := secretOf(s).Expires
		if ends.IsZero() || now.Before(ends.Add(-NearEnd)) {
			continue
		}
		p := &policy.Problem{Pos: s.Pos, Warning: true, Message: fmt.Sprintf("%s expires on %s", s.ID(), when(ends))}
		if !now.Before(ends) {
			p.Message = fmt.Sprintf("%s expired on %s: the other side refuses it", s.ID(), when(ends))
		}
		near = append(near, p.Hintf("renew it: the new one is served as soon as its files are there"))
	}
	return near
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// tellExpiring tells the log of certificates near their end: when they are new, and once a day.
func (c *Controller) tellExpiring(o Outcome) {
	if !o.Changed && o.Read.Sub(c.told) < 24*time.Hour {
		return
	}
	c.told = o.Read
	for _, s := range o.Secrets {
		if !s.Expires.IsZero() && !o.Read.Before(s.Expires.Add(-NearEnd)) {
			c.o.Log.Warn("certificate expires", "secret", s.ID, "names", s.Names, "on", when(s.Expires), "expired", !o.Read.Before(s.Expires))
		}
	}
}
