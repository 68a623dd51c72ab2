package credentials

import (
	"strings"

	"github.com/legation/legation/policy"
)

// Demands tells where the key is brought.
func (k *APIKey) Demands() string {
	var places []string
	for _, place := range []struct {
		what  string
		names policy.Names
	}{{"the header ", k.Header}, {"the query parameter ", k.Query}, {"the cookie ", k.Cookie}} {
		for _, name := range place.names {
			places = append(places, place.what+name)
		}
	}
	return "a key in " + strings.Join(places, " or ")
}

// Demands tells that a password is asked for.
func (*Basic) Demands() string { return "a name and a password" }

// Demands tells what of the certificate names the caller, and which names may.
func (m *MTLS) Demands() string {
	const most = 4
	text := "a client certificate, named by its " + string(m.Identity)
	switch {
	case len(m.Allow) > most:
		return text + ": " + strings.Join(m.Allow[:most], " or ") + " or others"
	case len(m.Allow) > 0:
		return text + ": " + strings.Join(m.Allow, " or ")
	}
	return text
}

// Demands tells that nothing has to be shown.
func (*Anonymous) Demands() string { return "nothing, for guests" }
