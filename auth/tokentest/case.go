package tokentest

import (
	"encoding/json"
	"maps"
	"time"
)

// Case is one token, or a request with other headers than the usual.
type Case struct {
	Name  string
	Point string // of RFC 8725 that it tries, "3.1"; empty: of no one in particular

	Token string   // sent as Authorization: Bearer
	Lines []string // in its place: header lines as they go over the wire
	Query string   // of the request

	Want int // the status: 401 with WWW-Authenticate, 400 for what holds two tokens, 200 for a good one
	// Wire is the status over HTTP, where that differs: its reader refuses the bytes, or takes spaces away. 0 = Want.
	Wire int
}

// Request is the header lines over the wire.
func (c Case) Request() []string {
	if c.Lines != nil {
		return c.Lines
	}
	return []string{"Authorization: Bearer " + c.Token}
}

// Status is the status over HTTP.
func (c Case) Status() int {
	if c.Wire != 0 {
		return c.Wire
	}
	return c.Want
}

// Tokens are the cases that differ in the token alone, made now: some have an age of seconds.
func Tokens() []Case {
	var all []Case
	for _, of := range []func() []Case{algorithms, confusions, signatures, forms, headers, claimForms, times, parties, sizes} {
		for _, c := range of() {
			if c.Want == 0 {
				c.Want = 401
			}
			all = append(all, c)
		}
	}
	return append(all, goodTokens()...)
}

// All are the tokens and the requests.
func All() []Case { return append(Tokens(), requests()...) }

// Good is a token that is accepted.
func Good() string { return signed(header, claims(nil), rs256) }

// Strangers is a token that is good but for its key, which is one of [StrangersJWKS].
func Strangers() string {
	return signed(`{"alg":"RS256","kid":"stranger-1","typ":"JWT"}`, claims(nil), strangers)
}

// header is that of a good token.
const header = `{"alg":"RS256","kid":"rsa-1","typ":"JWT"}`

// claims are those of a good token with changes: nil takes one away.
func claims(changes map[string]any) string {
	now := time.Now().Unix()
	c := map[string]any{"iss": Issuer, "sub": "alice", "aud": Audience, "iat": now, "exp": now + 3600}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return string(must(json.Marshal(c)))
}

// with is the claims of a good token and further members as they are written.
func with(members string) string {
	good := claims(nil)
	return good[:len(good)-1] + "," + members + "}"
}

// less is with, without one of the claims.
func less(name, members string) string {
	good := claims(map[string]any{name: nil})
	return good[:len(good)-1] + "," + members + "}"
}

// claiming is a token of the good key with such claims.
func claiming(changes map[string]any) string { return signed(header, claims(changes), rs256) }

// saying is a token of the good key with such a header.
func saying(header string) string { return signed(header, claims(nil), rs256) }
