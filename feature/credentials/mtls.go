package credentials

import (
	_ "embed"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

//go:embed mtls.md
var mtlsDoc string

// MTLSKind is the key mtls of an auth entry.
var MTLSKind = policy.Define[MTLS]("mtls", policy.InAuth, mtlsDoc)

// MTLS is what stands under mtls: what of a client's certificate names the caller.
type MTLS struct {
	Identity Identity            `policy:"identity,required" doc:"what names the caller: spiffe, dns, email, subject or fingerprint"`
	Allow    []string            `policy:"allow" doc:"the names that are accepted, * for any text; default: all that the listener's authority has signed"`
	Headers  policy.ClaimHeaders `policy:"headers" doc:"headers for the backend, each with what it tells of the certificate: sub (the name), subject, issuer, uri, dns, email, fingerprint, serial or notAfter"`
}

// Identity is what of a certificate names the caller.
type Identity string

// Values are the choices.
func (Identity) Values() []string {
	return []string{"spiffe", "dns", "email", "subject", "fingerprint"}
}

// Check holds the patterns against the names that there can be.
func (m *MTLS) Check(c *policy.Check) {
	if m.Allow != nil && len(m.Allow) == 0 {
		c.Errorf("allow", "name at least one").Hintf("leave allow out for all that the authority has signed")
	}
	for i, pattern := range m.Allow {
		if err := auth.CheckPattern(auth.CertificateName(m.Identity), pattern); err != nil {
			c.Errorf(policy.Item("allow", i), "%v", err)
		}
	}
	m.Headers.Check(c, auth.CheckClaimHeader, "sub", "subject", "issuer", "uri", "dns", "email", "fingerprint", "serial", "notAfter")
}

// Provider is the companion's half.
func (m *MTLS) Provider(name string) auth.Provider {
	return auth.Provider{Name: name, MTLS: &auth.MTLS{
		Identity: auth.CertificateName(m.Identity), Allow: m.Allow, Headers: m.Headers.Lower(),
	}}
}

// StripHeaders are those that only certificates set.
func (m *MTLS) StripHeaders() []string { return m.Headers.StripHeaders() }

// NeedsCertificates tells that callers are known on listeners alone that verify clients.
func (*MTLS) NeedsCertificates() bool { return true }
