package auth

import (
	"slices"
	"strings"
)

// hidden is where credentials stand that backends must not see, whoever the caller is found to be.
type hidden struct {
	headers []string
	queries []string // names of parameters
	cookies []string
	basic   bool // an authorization header of that scheme
}

// hider is a way whose credentials stop here.
type hider interface{ hides() hidden }

func (h *hidden) add(o hidden) {
	h.headers = append(h.headers, o.headers...)
	h.queries = append(h.queries, o.queries...)
	h.cookies = append(h.cookies, o.cookies...)
	h.basic = h.basic || o.basic
}

// appendHidden takes the credentials out of the request that the backend gets.
func (d *decision) appendHidden(b []byte) []byte {
	h := &d.rule.hidden
	for i, name := range h.headers {
		if !slices.Contains(h.headers[:i], name) {
			b = appendText(b, okRemove, name)
		}
	}
	if h.basic && isBasic(d.header("authorization")) {
		b = appendText(b, okRemove, "authorization")
	}
	for i, name := range h.queries {
		if slices.Contains(h.queries[:i], name) {
			continue
		}
		for range parameters(d.path, name) {
			b = appendText(b, okRemoveQuery, name)
			break
		}
	}
	if len(h.cookies) == 0 {
		return b
	}
	switch rest, changed := withoutCookies(d.header("cookie"), h.cookies); {
	case changed && rest == "":
		b = appendText(b, okRemove, "cookie")
	case changed:
		b = appendHeader(b, okHeaders, "cookie", rest)
	}
	return b
}

// parameters yields the values of a query parameter, as they stand. Its name has to stand as it is: another reader may not
// take an escaped one for it.
func parameters(path, name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		_, rest, more := strings.Cut(path, "?")
		for more {
			var one string
			one, rest, more = strings.Cut(rest, "&")
			if key, value, _ := strings.Cut(one, "="); key == name && !yield(value) {
				return
			}
		}
	}
}

// cookies yields the values of a cookie. Envoy tells of two Cookie headers of HTTP/1.1 joined by a comma, which clients may
// not send: what then looks like the cookie is given as it is, with its comma.
func cookies(header, name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for more := header != ""; more; {
			var one string
			one, header, more = strings.Cut(header, ";")
			key, value, _ := strings.Cut(strings.Trim(one, " \t"), "=")
			switch {
			case strings.Trim(key, " \t") == name:
				value = strings.Trim(value, " \t")
			case strings.Contains(one, ","+name+"="):
				value = one
			default:
				continue
			}
			if !yield(value) {
				return
			}
		}
	}
}

// withoutCookies is a Cookie header without those of the names.
func withoutCookies(header string, names []string) (rest string, changed bool) {
	if !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(header, name) }) {
		return header, false
	}
	var kept []string
	for one := range strings.SplitSeq(header, ";") {
		one = strings.Trim(one, " \t")
		name, _, _ := strings.Cut(one, "=")
		if slices.Contains(names, strings.Trim(name, " \t")) {
			changed = true
			continue
		}
		kept = append(kept, one)
	}
	return strings.Join(kept, "; "), changed
}
