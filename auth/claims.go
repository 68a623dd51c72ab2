package auth

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

type claims map[string]any

// maxDate is the end of the year 9999, in seconds.
const maxDate = 253402300799

// terms are what claims have to keep to.
type terms struct {
	audiences   []string      // one of these; empty: any
	skew        time.Duration // how far clocks may differ
	maxLifetime time.Duration // from "iat" to "exp"; 0: any
	endless     bool          // "exp" may be missing
}

func newTerms(audiences []string, skew, maxLifetime time.Duration) (terms, error) {
	t := terms{audiences: slices.Clone(audiences), skew: cmp.Or(skew, 30*time.Second), maxLifetime: maxLifetime}
	if t.skew < 0 || t.skew > maxSkew {
		return t, errors.New("skew must lie between 0 and 10m")
	}
	if maxLifetime < 0 {
		return t, errors.New("maxLifetime must not be negative")
	}
	return t, nil
}

// checkSubject refuses a subject that is no text.
func (c claims) checkSubject() error {
	if sub, ok := c["sub"]; ok {
		if _, ok := sub.(string); !ok {
			return errClaims
		}
	}
	return nil
}

// checkTimes applies the rules of RFC 7519. It returns when what is claimed ends, skew included; zero for never.
func (c claims) checkTimes(t *terms, now time.Time) (expires time.Time, err error) {
	exp, set, ok := c.date("exp")
	if !ok || !set && !t.endless {
		return time.Time{}, errClaims
	}
	if set {
		expires = exp.Add(t.skew)
		if !now.Before(expires) {
			return time.Time{}, errExpired
		}
	}
	for _, name := range []string{"nbf", "iat"} {
		from, set, ok := c.date(name)
		if !ok || !set && name == "iat" && t.maxLifetime > 0 {
			return time.Time{}, errClaims
		}
		if set && from.After(now.Add(t.skew)) {
			return time.Time{}, errEarly
		}
		if name == "iat" && t.maxLifetime > 0 && exp.Sub(from) > t.maxLifetime {
			return time.Time{}, errLifetime
		}
	}
	return expires, nil
}

// checkAudience reads "aud" even where any will do, so that a wrong type never passes.
func (c claims) checkAudience(accepted []string) error {
	var named []string
	switch aud := c["aud"].(type) {
	case nil:
		if _, ok := c["aud"]; ok { // null
			return errClaims
		}
	case string:
		named = []string{aud}
	case []any:
		for _, v := range aud {
			s, ok := v.(string)
			if !ok {
				return errClaims
			}
			named = append(named, s)
		}
	default:
		return errClaims
	}
	if len(accepted) > 0 && !slices.ContainsFunc(named, func(s string) bool { return slices.Contains(accepted, s) }) {
		return errAudience
	}
	return nil
}

// date reads a NumericDate: seconds, maybe with a fraction.
func (c claims) date(name string) (t time.Time, set, ok bool) {
	v, set := c[name]
	if !set {
		return time.Time{}, false, true
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, true, false
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > maxDate {
		return time.Time{}, true, false
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, true
}

// find looks a claim up: a claim of exactly that name (names such as "https://example.com/tenant" have dots of their
// own), else a path into nested objects.
func (c claims) find(path string) any {
	if v, ok := c[path]; ok {
		return v
	}
	name, rest, nested := strings.Cut(path, ".")
	if !nested {
		return nil
	}
	inner, ok := c[name].(map[string]any)
	if !ok {
		return nil
	}
	return claims(inner).find(rest)
}

// maxValue is the most bytes of a claim that becomes a header, a consumer or a part of a limit's key.
const maxValue = 4 << 10

// text is a claim as the value of a header: strings, numbers and booleans, arrays of them joined by commas. Commas
// within an element, and percent signs, are escaped (%2C, %25), so that the text "a,b" and the array of a and b differ.
// It is "" for all that a reader could take for something else: objects, control characters, spaces around.
func (c claims) text(path string) string {
	v := c.find(path)
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	parts := make([]string, len(list))
	for i, e := range list {
		if parts[i] = escapeElement.Replace(scalar(e)); parts[i] == "" {
			return ""
		}
	}
	if s := strings.Join(parts, ","); len(s) <= maxValue {
		return s
	}
	return ""
}

var escapeElement = strings.NewReplacer(",", "%2C", "%", "%25")

func scalar(v any) string {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case json.Number:
		s = v.String()
	case bool:
		s = strconv.FormatBool(v)
	}
	if len(s) > maxValue || !cleanValue(s) {
		return ""
	}
	return s
}

// cleanValue tells whether a header value reaches every reader as it is, and people see what it says: without control
// characters (U+0085 is a line end to some), other line ends, and marks that turn the direction of what follows.
func cleanValue(s string) bool {
	if plainText(s) {
		return true
	}
	return strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 || unicode.Is(unicode.Bidi_Control, r)
	})
}

// plainText tells whether s is visible ASCII, with spaces only between: what most values are.
func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < '!' && (s[i] != ' ' || i == 0 || i == len(s)-1) || s[i] > '~' {
			return false
		}
	}
	return true
}

// plan is a claim that names a plan: a text. Anything else names none.
func (c claims) plan(path string) string {
	if s, ok := c.find(path).(string); ok && path != "" {
		return scalar(s)
	}
	return ""
}

// name is a claim that names somebody: a string, or a whole number. Anything else names nobody.
func (c claims) name(path string) string {
	v := c.find(path)
	switch v := v.(type) {
	case string:
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE-") {
			return ""
		}
	default:
		return ""
	}
	return scalar(v)
}
