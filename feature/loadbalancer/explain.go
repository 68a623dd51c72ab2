package loadbalancer

import (
	"fmt"
	"strings"

	"github.com/legation/legation/envoy"
)

// Explain tells how an endpoint is chosen.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	text := c.Service.Name + ": " + s.method().key()
	switch {
	case s.RingHash != nil:
		text += " by " + s.RingHash.By.String()
	case s.Maglev != nil:
		text += " by " + s.Maglev.By.String()
	}
	return []envoy.Fact{c.Fact(envoy.Connected, text)}
}

// ExplainWithout tells the default.
func (s *Setting) ExplainWithout(c envoy.ExplainContext) []envoy.Fact {
	return []envoy.Fact{{Stage: envoy.Connected, Topic: Kind.Key, Text: fmt.Sprintf("%s: %s (default)", c.Service.Name, s.method().key())}}
}

// String is what is hashed, in words: the first of these that a request has.
func (b By) String() string {
	var parts []string
	for _, h := range b {
		switch {
		case h.Header != "":
			parts = append(parts, "header "+h.Header)
		case h.Cookie != nil:
			parts = append(parts, "cookie "+h.Cookie.Name)
		case h.Query != "":
			parts = append(parts, "query "+h.Query)
		default:
			parts = append(parts, "ip")
		}
	}
	return strings.Join(parts, ", else ")
}
