package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Basic accepts names and passwords (RFC 7617) of a file in the form of htpasswd.
type Basic struct {
	Users   string            `json:"users"`             // the secret that the file is
	Realm   string            `json:"realm,omitempty"`   // shown to people; "" = the provider's name
	Forward bool              `json:"forward,omitempty"` // backends get to see the password
	Headers map[string]string `json:"headers,omitempty"` // request header (lower case) -> claim: sub
}

var (
	errBasicMalformed = newRefusal("password_malformed", "the credentials are malformed")
	errBasicWrong     = newRefusal("password_wrong", "the name or the password is wrong")
)

// maxPassword is the most bytes of a name and a password in base64.
const maxPassword = 2 << 10

// passwordWay is the way of a [Basic].
type passwordWay struct {
	*provider
	realm     string
	forward   bool
	users     map[string]user
	decoys    []string // hashes that are tried where there is no such user, so that it takes as long
	passwords *passwords
}

// user is one of the file.
type user struct {
	hash  string
	grant *grant
}

func compileBasic(c *compiler, p Provider, to *provider) (_ way, err error) {
	w := &passwordWay{provider: to, realm: p.Basic.Realm, forward: p.Basic.Forward, users: map[string]user{}, passwords: c.passwords}
	if w.realm == "" {
		w.realm = p.Name
	}
	if err := CheckRealm(w.realm); err != nil {
		return nil, err
	}
	if to.reading, err = newReading(Reading{Headers: p.Basic.Headers}); err != nil {
		return nil, err
	}
	content, err := c.secret(p.Basic.Users)
	if err != nil {
		return nil, err
	}
	hashes, err := ParseUsers(content)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", p.Basic.Users, err)
	}
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		g, err := to.newGrant(claims{"sub": name}, time.Time{})
		if err != nil {
			return nil, err
		}
		w.users[name] = user{hashes[name], g}
		w.decoys = append(w.decoys, hashes[name])
	}
	return w, nil
}

// CheckRealm tells why a text can't be a realm.
func CheckRealm(realm string) error {
	if !plainText(realm) || strings.ContainsAny(realm, `"\`) {
		return errors.New("the realm has to be visible ASCII, without quotes and backslashes")
	}
	return nil
}

func (w *passwordWay) challenge() string { return `Basic realm="` + w.realm + `", charset="UTF-8"` }

func (w *passwordWay) same(other way) bool {
	o, ok := other.(*passwordWay)
	return ok && maps.EqualFunc(w.users, o.users, func(a, b user) bool { return a.hash == b.hash })
}

func (w *passwordWay) hides() hidden { return hidden{basic: !w.forward} }

// isBasic tells whether the authorization header is of that scheme.
func isBasic(authorization string) bool {
	scheme, _, _ := strings.Cut(authorization, " ")
	return strings.EqualFold(scheme, "basic")
}

func (w *passwordWay) look(d *decision, now time.Time) finding {
	authorization := d.header("authorization")
	if !isBasic(authorization) {
		return finding{}
	}
	name, password, ok := readBasic(authorization)
	if !ok {
		return finding{err: errBasicMalformed}
	}
	known, there := w.users[name]
	t := trial{hash: known.hash, password: password}
	if !there {
		t.hash = w.decoys[int(sumOf(name)[0])%len(w.decoys)]
	}
	t.sum = w.passwords.sum(t.hash, name, password)
	if there && w.passwords.good(t.sum, now) {
		return finding{grant: known.grant}
	}
	return finding{work: &guess{by: w.passwords, trial: t, grant: known.grant}}
}

// readBasic takes a name and a password apart. The name ends at the first colon; neither has control characters.
func readBasic(authorization string) (name, password string, ok bool) {
	_, encoded, _ := strings.Cut(authorization, " ")
	if len(encoded) > maxPassword {
		return "", "", false
	}
	text, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || !utf8.Valid(text) || strings.ContainsAny(encoded, "\r\n") || strings.ContainsFunc(string(text), unicode.IsControl) {
		return "", "", false
	}
	return strings.Cut(string(text), ":")
}

// ParseUsers reads lines of name:hash, as htpasswd writes them. Empty lines and those that begin with # are left out. What it
// says of a line holds nothing of it.
func ParseUsers(content []byte) (hashes map[string]string, err error) {
	hashes = map[string]string{}
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		switch {
		case !ok:
			return nil, fmt.Errorf("line %d: want NAME:HASH", n)
		case name == "" || scalar(name) == "":
			return nil, fmt.Errorf("line %d: the name is empty, or could be taken for another", n)
		case hashes[name] != "":
			return nil, fmt.Errorf("line %d: the name stands in the file twice", n)
		}
		if err := checkPasswordHash(hash); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		hashes[name] = hash
	}
	if len(hashes) == 0 {
		return nil, errors.New("holds no user")
	}
	return hashes, nil
}
