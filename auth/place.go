package auth

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// places are where a way reads its token; none is Authorization: Bearer alone.
type places []From

var bearerHeader = From{Header: "authorization", Prefix: "Bearer"}

func newPlaces(from []From) (places, error) {
	for i, f := range from {
		if err := f.check(); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(from[:i], func(o From) bool { return o.Header == f.Header && o.Query == f.Query && o.Cookie == f.Cookie }) {
			return nil, errors.New("the place stands here twice")
		}
	}
	if len(from) == 1 && from[0] == bearerHeader {
		return nil, nil
	}
	return slices.Clone(from), nil
}

func (f From) check() error {
	told := 0
	for _, name := range []string{f.Header, f.Query, f.Cookie} {
		if name != "" {
			told++
		}
	}
	switch {
	case told != 1:
		return errors.New("want one of header, query and cookie")
	case f.Header != "" && !headerName(f.Header):
		return fmt.Errorf("%q is no name of a header in lower case", f.Header)
	case f.Header == "cookie" || f.Header == "authorization" && f.Prefix == "":
		return fmt.Errorf("the header %s holds more than a token", f.Header)
	case f.Prefix != "" && (f.Header == "" || !httpToken(f.Prefix)):
		return fmt.Errorf("%q is no prefix of a header", f.Prefix)
	case f.Cookie != "" && !httpToken(f.Cookie):
		return fmt.Errorf("%q is no name of a cookie", f.Cookie)
	case strings.ContainsFunc(f.Query, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("&=#%+;", r) }):
		return fmt.Errorf("%q is no name of a query parameter", f.Query)
	}
	return nil
}

// all is the places, with the one that stands for none.
func (p places) all() []From {
	if len(p) == 0 {
		return []From{bearerHeader}
	}
	return p
}

// read is the token that a request brings, "" when it brings none. More than one is refused, even if all are the same:
// the backend could read another than the one that was verified.
func (p places) read(d *decision) (raw string, err error) {
	if len(p) == 0 {
		return d.bearer()
	}
	count := 0
	for _, f := range p {
		found, n := f.read(d)
		if count += n; n > 0 {
			raw = found
		}
	}
	switch {
	case count == 0:
		return "", nil
	case count > 1:
		return "", denyTwoPlaces
	case raw == "" || len(raw) > maxToken:
		return "", errMalformed
	}
	return raw, nil
}

// read is the last token that stands in the place, and how many there are.
func (f From) read(d *decision) (raw string, count int) {
	switch {
	case f.Header != "":
		return f.inHeader(d.header(f.Header))
	case f.Query != "":
		for name, value := range queryPairs(d.path) {
			if decoded, ok := unescape(name); ok && decoded == f.Query {
				raw, _ = unescape(value) // "" is malformed
				count++
			}
		}
	default:
		for _, piece := range cookiePairs(d.header("cookie")) {
			if name, value := cutCookie(piece); name == f.Cookie {
				raw = value
				count++
			}
		}
	}
	return raw, count
}

// inHeader reads the header's value. Envoy joins several with commas, and no token has one.
func (f From) inHeader(value string) (raw string, count int) {
	if value == "" {
		return "", 0
	}
	if f.Prefix == "" {
		return value, 1 + strings.Count(value, ",")
	}
	scheme, raw, _ := strings.Cut(value, " ")
	if f.Header != bearerHeader.Header && several(value) {
		return "", 2
	}
	if !strings.EqualFold(scheme, f.Prefix) {
		return "", 0
	}
	return raw, 1
}

// queryPairs gives the names and values of a path's query as they stand there.
func queryPairs(path string) func(yield func(name, value string) bool) {
	return func(yield func(string, string) bool) {
		_, query, _ := strings.Cut(path, "?")
		for query != "" {
			var pair string
			pair, query, _ = strings.Cut(query, "&")
			name, value, _ := strings.Cut(pair, "=")
			if !yield(name, value) {
				return
			}
		}
	}
}

// unescape decodes a part of a query once; what is no escape is no part of a token.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	decoded, err := url.QueryUnescape(s)
	return decoded, err == nil
}

// cookiePairs are the name=value pieces of the header. Envoy joins several headers with commas: one with a name and "=" behind
// it begins a cookie. Values are not supposed to hold commas at all (RFC 6265, 4.1.1).
func cookiePairs(header string) []string {
	var all []string
	for piece := range strings.SplitSeq(header, ";") {
		from := len(all)
		for part := range strings.SplitSeq(piece, ",") {
			name, _, pair := strings.Cut(strings.Trim(part, " \t"), "=")
			if last := len(all) - 1; last >= from && !(pair && httpToken(name)) {
				all[last] += "," + part
				continue
			}
			all = append(all, part)
		}
	}
	for i, c := range all {
		all[i] = strings.Trim(c, " \t")
	}
	return slices.DeleteFunc(all, func(c string) bool { return c == "" })
}

// cutCookie takes a piece apart as lenient readers do: they leave out spaces around the equals sign.
func cutCookie(piece string) (name, value string) {
	name, value, _ = strings.Cut(piece, "=")
	return strings.TrimRight(name, " \t"), strings.TrimLeft(value, " \t")
}

// appendHidden has Envoy take credentials out of the request that the backend gets.
func (d *decision) appendHidden(b []byte) []byte {
	if len(d.rule.hidden) == 0 && len(d.rule.keepers) == 0 {
		return b
	}
	came := d.header("cookie")
	cookies := came
	for _, k := range d.rule.keepers {
		cookies = k.others(cookies)
	}
	pieces := cookiePairs(cookies)
	kept := pieces
	for _, f := range d.rule.hidden {
		_, count := f.read(d)
		switch {
		case count == 0:
		case f.Header != "":
			b = appendText(b, okRemove, f.Header)
		case f.Query != "":
			b = f.appendQuery(b, d.path)
		default:
			kept = slices.DeleteFunc(slices.Clone(kept), func(piece string) bool {
				name, _ := cutCookie(piece)
				return name == f.Cookie
			})
		}
	}
	if len(kept) < len(pieces) {
		cookies = strings.Join(kept, "; ")
	}
	switch cookies {
	case came:
		return b
	case "":
		return appendText(b, okRemove, "cookie")
	default:
		return appendHeader(b, okHeaders, "cookie", cookies)
	}
}

// appendQuery names the parameter as it stands in the path: Envoy compares without decoding.
func (f From) appendQuery(b []byte, path string) []byte {
	for name := range queryPairs(path) {
		if decoded, ok := unescape(name); ok && decoded == f.Query {
			b = appendText(b, okRemoveQuery, name)
		}
	}
	return b
}
