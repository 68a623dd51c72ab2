package auth

import (
	"slices"

	"github.com/legation/legation/policy"
)

// host is a setting of an auth entry that takes callers who bring no credentials.
type host interface{ TakesGuests() bool }

// certifier is a setting of an auth entry that knows callers by the certificates that they show to the listener.
type certifier interface{ NeedsCertificates() bool }

// verifier is a setting of a listener that may verify the certificates of clients.
type verifier interface{ VerifiesClients() bool }

func verifiesClients(l *policy.Listener) bool {
	v, ok := policy.Find[verifier](l.Settings)
	return ok && v.VerifiesClients()
}

// checkEntry refuses an entry that could not do in this place what it is for.
func (s *Setting) checkEntry(c *policy.Check, at, name string) {
	i := slices.IndexFunc(c.Common().Auth, func(a *policy.Auth) bool { return a.Name == name })
	if i < 0 {
		return
	}
	settings := c.Common().Auth[i].Settings
	if h, ok := policy.Find[host](settings); ok && h.TakesGuests() && s.All {
		c.Errorf(at, "the auth entry %q takes callers without credentials: no caller can satisfy it beside others", name).
			Hintf("take it out of the list; in auth: [idp, %s] it takes those who bring nothing", name)
	}
	r := c.Route()
	if k, ok := policy.Find[certifier](settings); !ok || !k.NeedsCertificates() || r == nil {
		return
	}
	for _, l := range r.Gateway.Listeners {
		if r.On(l) && !verifiesClients(l) {
			p := c.Errorf(at, "the auth entry %q goes by the certificates of clients, and the listener %q of the route %q asks for none", name, l.Name, r.Name).
				Hintf("write tls: {clientCertificates: {ca: …}} in the listener, or name those that ask with listeners: […] in the route")
			p.Also = append(p.Also, l.Pos)
		}
	}
}
