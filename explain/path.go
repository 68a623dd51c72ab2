package explain

import "strings"

// This file is Envoy's normal form of a path (RFC 3986 as browsers do it): dot segments are resolved, backslashes become
// slashes, escapes of characters that need none are decoded, characters that need one are escaped, and slashes in a row
// become one. The query stays as it is.

// normalPath is the normal form of a path with its query; ok is false for one that Envoy refuses: other than ASCII characters,
// escaped slashes and backslashes, NUL.
func normalPath(target string) (normal string, ok bool) {
	path, query := target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	if hasEscapedSlash(path) || strings.ContainsFunc(target, func(r rune) bool { return r > '~' }) {
		return "", false
	}
	path, ok = canonical(withoutDotParameters(path))
	return mergeSlashes(path) + query, ok
}

// hasEscapedSlash tells of an escaped slash or backslash.
func hasEscapedSlash(path string) bool {
	for i := 0; i+2 < len(path); i++ {
		if path[i] != '%' {
			continue
		}
		if c, ok := unhex(path[i+1], path[i+2]); ok && (c == '/' || c == '\\') {
			return true
		}
	}
	return false
}

// withoutDotParameters makes /..;x=1/ a dot segment like others.
func withoutDotParameters(path string) string {
	if !strings.Contains(path, ".;") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		switch {
		case strings.HasPrefix(s, "..;"):
			segments[i] = ".."
		case strings.HasPrefix(s, ".;"):
			segments[i] = "."
		}
	}
	return strings.Join(segments, "/")
}

// canonical resolves dot segments and settles what is escaped. An escaped NUL makes a path that Envoy refuses.
func canonical(path string) (string, bool) {
	out := make([]byte, 0, len(path)+1)
	if path == "" || !slash(path[0]) {
		out = append(out, '/')
	}
	ok := true
	for i := 0; i < len(path); {
		if n := dot(path, i); n > 0 && len(out) > 0 && out[len(out)-1] == '/' {
			if end, up := segment(path, i+n); end >= 0 {
				if up {
					out = parent(out)
				}
				i = end
				continue
			}
		}
		n := 1
		switch c := path[i]; {
		case c == '\\':
			out = append(out, '/')
		case c == '%' && i+2 < len(path):
			escaped, hex := unhex(path[i+1], path[i+2])
			switch {
			case !hex:
				out = append(out, c)
			case unreserved(escaped):
				out, n = append(out, escaped), 3
			default:
				out, n = append(out, path[i:i+3]...), 3
				ok = ok && escaped != 0
			}
		case c == '%':
			out = append(out, c)
		case escapes(c):
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
			ok = ok && c != 0
		default:
			out = append(out, c)
		}
		i += n
	}
	return string(out), ok
}

// dot is the length of a dot, as it is or escaped; 0 where there is none.
func dot(path string, i int) int {
	switch {
	case i < len(path) && path[i] == '.':
		return 1
	case i+2 < len(path) && path[i] == '%' && path[i+1] == '2' && path[i+2]|0x20 == 'e':
		return 3
	}
	return 0
}

// segment tells of what follows the dot that a segment begins with where the whole segment is one dot or two: where the
// next one begins, and whether it leads up. Of other segments end is -1.
func segment(path string, i int) (end int, up bool) {
	if i == len(path) {
		return i, false
	}
	if slash(path[i]) {
		return i + 1, false
	}
	n := dot(path, i)
	switch {
	case n == 0:
		return -1, false
	case i+n == len(path):
		return i + n, true
	case slash(path[i+n]):
		return i + n + 1, true
	}
	return -1, false
}

// parent takes the last segment away from a path that ends in a slash.
func parent(path []byte) []byte {
	for i := len(path) - 2; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i+1]
		}
	}
	return path[:1]
}

// mergeSlashes makes one slash of several in a row.
func mergeSlashes(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	merged := "/" + strings.Join(strings.FieldsFunc(path, func(r rune) bool { return r == '/' }), "/")
	if strings.HasSuffix(path, "/") {
		merged += "/" // of nothing but slashes Envoy makes two
	}
	return merged
}

func slash(c byte) bool { return c == '/' || c == '\\' }

// unreserved are the characters that never need to be escaped.
func unreserved(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("-._~", c) >= 0
}

// escapes tells of characters that can't stand in a path as they are.
func escapes(c byte) bool { return c <= ' ' || c >= 0x7f || strings.IndexByte("\"#<>?^`{|}", c) >= 0 }

const upperHex = "0123456789ABCDEF"

func unhex(high, low byte) (byte, bool) {
	h, l := hexDigit(high), hexDigit(low)
	return byte(h<<4 | l&15), h >= 0 && l >= 0
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// withoutQuery is the path alone.
func withoutQuery(target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		return target[:i]
	}
	return target
}
