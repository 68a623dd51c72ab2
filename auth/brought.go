package auth

import "strings"

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
