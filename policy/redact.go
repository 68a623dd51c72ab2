package policy

import (
	"bytes"
	"regexp"
	"strings"
)

// secretLines tells which lines of a file hold what should not be shown again: values of keys that are named as
// secrets, whatever the language knows of them, private keys, and URLs with a user or a query. It goes by the text and
// not by the tree: a file that is not YAML has secrets too. What is indented below such a key goes with it. Each line
// is reported by its number, from 1. In a file of cases the tokens that a run makes are none, nor are queries.
func secretLines(content []byte, cases bool, report func(line int)) {
	s := scan{deeper: -1, cases: cases}
	number := 0
	for line := range bytes.Lines(content) {
		number++
		if s.secret(line) {
			report(number)
		}
	}
}

// scan is the reading of one file.
type scan struct {
	cases  bool // of a file of cases
	deeper int  // lines indented deeper than this belong to a secret; -1: none
	list   bool // so do list items in that very column
	places bool // but for the first of them, as long as they say where keys are looked for
	pem    bool // within a private key
}

func (s *scan) secret(line []byte) bool {
	text := bytes.TrimSpace(line)
	indent := len(line) - len(bytes.TrimLeft(line, " "))
	switch {
	case s.pem || bytes.Contains(text, []byte("PRIVATE KEY-----")):
		s.pem = !bytes.Contains(text, []byte("-----END"))
		return true
	case s.deeper >= 0 && (len(text) == 0 || indent > s.deeper || s.list && indent == s.deeper && text[0] == '-'):
		s.places = s.places && (len(text) == 0 || isPlaces(lonePlace.Find(text)))
		return !s.places
	}
	s.deeper, s.places = -1, false
	if holdsKey(text, s.cases) {
		s.deeper, s.list = indent, text[0] != '-' && text[len(text)-1] == ':'
		s.places = string(text) == "apiKey:"
		return !s.places
	}
	return !s.cases && holdsURL(text)
}

// holdsKey tells whether one of the keys on a line is named as secrets are.
func holdsKey(line []byte, cases bool) bool {
	for {
		at := bytes.IndexByte(line, ':')
		if at < 0 {
			return false
		}
		before := bytes.TrimRight(line[:at], " \t\"'")
		start := bytes.LastIndexAny(before, " \t{[,\"'?") + 1
		if isSecret(before[start:], line[at+1:]) && !(cases && string(before[start:]) == "token") {
			return true
		}
		line = line[at+1:]
	}
}

// secretWords are parts of names of secrets, in lower case without dashes and underscores.
var secretWords = [][]byte{
	[]byte("secret"), []byte("password"), []byte("passwd"), []byte("passphrase"), []byte("token"), []byte("apikey"),
	[]byte("privatekey"), []byte("accesskey"), []byte("signingkey"), []byte("credential"),
}

// isSecret tells whether a key that has a value after it is named as secrets are; k, d and the others are those of JSON
// web keys.
func isSecret(name, value []byte) bool {
	var plain [64]byte // the name in lower case, without dashes and underscores
	n := 0
	for _, c := range name {
		switch {
		case c == '-' || c == '_':
		case n == len(plain):
			return false
		default:
			plain[n] = c | 0x20
			n++
		}
	}
	name = plain[:n]
	switch string(name) {
	case "key", "pass", "pwd", "authorization", "proxyauthorization":
		return !harmless(value)
	case "secret":
		return !harmless(value) && !refers(value)
	case "apikey":
		return !harmless(value) && !isPlaces(mapOfPlaces.Find(value))
	case "k", "d", "p", "q", "dp", "dq", "qi":
		value = bytes.Trim(value, " \t\"'")
		return len(value) >= 16 && bytes.IndexFunc(value[:16], notBase64) < 0
	}
	for _, word := range secretWords {
		if bytes.Contains(name, word) {
			return !harmless(value)
		}
	}
	return false
}

// An auth entry's apiKey says where keys are looked for, {header: x-api-key}, which is no secret. What has any other form may
// be a key: so is what stands under a name that is not even a slip of these, or is not a plain word.
var (
	placeKeys   = []string{"header", "query", "cookie", "forward"}
	placeKey    = regexp.MustCompile(`([A-Za-z]+) *:`)
	mapOfPlaces = regexp.MustCompile(`^ *\{ *` + onePlace + `(?: *, *` + onePlace + `)* *\}`)
	lonePlace   = regexp.MustCompile(`^` + onePlace + `$`)
)

const (
	// placeWord is what headers, parameters and cookies are called: digits are more likely those of a key.
	placeWord = `["']?[A-Za-z][A-Za-z_-]{0,31}["']?`
	onePlace  = `[A-Za-z]+ *: +(?:` + placeWord + `|\[ *` + placeWord + `(?: *, *` + placeWord + `)* *\])`
)

// isPlaces tells whether all keys of a text are such places, or slips of one.
func isPlaces(text []byte) bool {
	for _, key := range placeKey.FindAllSubmatch(text, -1) {
		if nearest(string(key[1]), placeKeys) == "" {
			return false
		}
	}
	return len(text) > 0
}

// harmless tells whether a value is one that says nothing: allowCredentials: true.
func harmless(value []byte) bool {
	switch string(firstWord(value)) {
	case "true", "false", "off", "null":
		return true
	}
	return false
}

// refers tells whether a value is the name of a secret beyond doubt, such as tls/example: a password would not be two
// parts in lower case.
func refers(value []byte) bool {
	word := firstWord(value)
	return bytes.IndexByte(word, '/') > 0 && len(word) <= 48 && isSecretName(string(word))
}

func firstWord(value []byte) []byte {
	value = bytes.TrimLeft(value, " \t\"'")
	if end := bytes.IndexAny(value, " \t\"',}#\r\n"); end >= 0 {
		value = value[:end]
	}
	return value
}

func notBase64(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '+' && r != '/'
}

// holdsURL tells whether a line has a URL with a query, or a user and a password before an @.
func holdsURL(line []byte) bool {
	for rest := line; ; {
		_, after, ok := bytes.Cut(rest, []byte("://"))
		if !ok {
			break
		}
		url, _, _ := bytes.Cut(after, []byte{' '})
		if bytes.ContainsAny(url, "@?") {
			return true
		}
		rest = after[len(url):]
	}
	for rest := line; ; {
		before, after, ok := bytes.Cut(rest, []byte{'@'})
		if !ok {
			return false
		}
		if bytes.IndexByte(before[bytes.LastIndexAny(before, " \t\"'{[,")+1:], ':') > 0 {
			return true
		}
		rest = after
	}
}

// Show is a value as people may see it: without the user and the query of a URL. It is false, and nothing, where the key is
// named as those of secrets are.
func Show(key, value string) (string, bool) {
	if isSecret([]byte(key), []byte(value)) {
		return "", false
	}
	return redact(value), true
}

// redact takes the user and the query out of a text that may be a URL.
func redact(s string) string {
	scheme, rest, isURL := strings.Cut(s, "://")
	if isURL {
		scheme += "://"
	} else {
		scheme, rest = "", s
	}
	if at := strings.LastIndexByte(rest, '@'); at > 0 {
		rest = "…" + rest[at:]
	}
	if query := strings.IndexByte(rest, '?'); query >= 0 && isURL {
		rest = rest[:query] + "?…"
	}
	return scheme + rest
}
