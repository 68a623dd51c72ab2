package jwt

import (
	"strings"

	"github.com/legation/legation/policy"
)

// Demands tells whose tokens are accepted, for whom, and where they are brought.
func (j *JWT) Demands() string {
	return "a token of " + either(j.Issuer) + j.Audiences.demand() + " " + j.From.demand()
}

// Demands tells who is asked about tokens, for whom they have to be, and where they are brought.
func (i *Introspection) Demands() string {
	url, _ := policy.Show("url", i.URL)
	return "a token that " + url + " calls active" + i.Audiences.demand() + " " + i.From.demand()
}

func (a Audiences) demand() string {
	if a.Any {
		return " for any audience"
	}
	return " for " + either(a.Names)
}

// demand is the places of a token in words.
func (f From) demand() string {
	if len(f) == 0 {
		f = From{{Header: "authorization"}}
	}
	var all []string
	for _, p := range f.companion() {
		switch {
		case p.Header != "":
			all = append(all, strings.TrimSuffix("the header "+p.Header+": "+p.Prefix, ": "))
		case p.Query != "":
			all = append(all, "the query parameter "+p.Query)
		default:
			all = append(all, "the cookie "+p.Cookie)
		}
	}
	return "in " + either(all)
}

// either joins alternatives, some of many.
func either(all []string) string {
	const most = 4
	if len(all) > most {
		return strings.Join(all[:most], " or ") + " or others"
	}
	return strings.Join(all, " or ")
}
