package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

type matchDoc struct {
	Path    *pathDoc            `policy:"path" doc:"a path prefix on segment borders, or {exact: …}, {regex: …}, {template: …}; with ignoreCase: true in whatever case; default /"`
	Methods []method            `policy:"methods" doc:"any of these methods; default all" schema:"some"`
	Headers map[string]valueDoc `policy:"headers" doc:"all of these headers: a text for the exact value, {regex: …} or {present: true}"`
	Query   map[string]valueDoc `policy:"query" doc:"all of these query parameters, written as headers are"`
	Source  []sourceRange       `policy:"source" doc:"any of these addresses of clients, or ranges of them: 10.0.0.0/8" schema:"some"`
	GRPC    *grpcDoc            `policy:"grpc" doc:"a gRPC service, or one method of it, instead of a path and methods"`
}

// badPath says why no request that Envoy has normalised could have such a path, and what to do.
func badPath(path string) (why, hint string) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Sprintf("a path begins with /, got %s", quote(path)), "write /" + cut(path)
	case strings.ContainsAny(path, "?#"):
		return "a path has no query and no fragment", "conditions on the query go under match.query"
	case strings.Contains(path, "//"):
		return fmt.Sprintf("the path %s has two slashes in a row: Envoy makes one of them before it matches", quote(path)), "write one"
	case strings.Contains(path, `\`):
		return fmt.Sprintf(`the path %s has a backslash: Envoy makes / of it before it matches`, quote(path)), "write /"
	case strings.Contains(path, "*"):
		hint = "a prefix covers all that is below it; for patterns write {template: …} or {regex: …}"
		return fmt.Sprintf("the * in the path %s would be taken as it stands", quote(path)), hint
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return fmt.Sprintf("the path %s has dot segments: Envoy resolves them before it matches", quote(path)), "write the path that they lead to"
		}
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f {
			return fmt.Sprintf("the path %s has characters that a request has to escape", quote(path)), "write them as %XX"
		}
	}
	return badEscape(path)
}

// badEscape is badPath for %XX: Envoy decodes what need not be escaped, and refuses what means another path to some.
func badEscape(path string) (why, hint string) {
	for i := range len(path) {
		if path[i] != '%' {
			continue
		}
		if i+2 >= len(path) {
			return fmt.Sprintf("the path %s has a %% without two hexadecimal digits", quote(path)), "write %25 for the character itself"
		}
		c, err := strconv.ParseUint(path[i+1:i+3], 16, 8)
		switch {
		case err != nil:
			return fmt.Sprintf("the path %s has a %% without two hexadecimal digits", quote(path)), "write %25 for the character itself"
		case c == '/' || c == '\\' || c == 0:
			return fmt.Sprintf("the path %s can't be matched: requests with %s are answered 400", quote(path), path[i:i+3]), "leave it out"
		case c < 0x80 && (isAlphanumeric(byte(c)) || strings.IndexByte("-._~", byte(c)) >= 0):
			return fmt.Sprintf("the path %s has %s: Envoy decodes it before it matches", quote(path), path[i:i+3]), "write " + string(rune(c))
		}
	}
	return "", ""
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

type method string

// DecodePolicy reads a method.
func (m *method) DecodePolicy(d *Decode, n *Node) {
	upper := strings.ToUpper(n.Text)
	switch {
	case n.Kind != Scalar || !IsToken(n.Text):
		d.Errorf(n, "want a method such as GET, got %s", n.shape())
	case upper != n.Text:
		d.Errorf(n, "methods are upper case, got %s", n.shape()).Hintf("write %s", cut(upper))
	}
	*m = method(upper)
}

// PolicySchema describes a method.
func (*method) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": "^[A-Z!#$%&'*+.^_`|~0-9-]+$", "examples": []string{"GET", "POST"}}
}

// IsToken tells whether s can be a method or the name of a header (a token of RFC 9110).
func IsToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// valueDoc is a condition on a header or query parameter as written.
type valueDoc ValueMatch

// DecodePolicy reads a condition.
func (v *valueDoc) DecodePolicy(d *Decode, n *Node) {
	v.Pos = n.Pos
	switch n.Kind {
	case Scalar:
		v.Exact = n.Text
		return
	case Map:
	default:
		d.Errorf(n, "want a text, or one of {exact: …}, {regex: …} and {present: true}, got %s", n.shape())
		return
	}
	var doc struct {
		Exact   *string `policy:"exact"`
		Regex   Regex   `policy:"regex"`
		Present *bool   `policy:"present"`
	}
	if !d.Decode(n, &doc) {
		return
	}
	if len(n.Keys) != 1 {
		d.Errorf(n, "want one of exact, regex and present, got %d keys", len(n.Keys))
		return
	}
	v.Regex, v.Present = string(doc.Regex), doc.Present
	if doc.Exact != nil {
		v.Exact = *doc.Exact
	}
}

// PolicySchema describes a condition.
func (*valueDoc) PolicySchema(s *Schemas) map[string]any {
	text := map[string]any{"type": []string{"string", "number", "boolean"}}
	return map[string]any{"oneOf": []any{text, OnlyKey("exact", text), OnlyKey("regex", s.Of(new(Regex))), OnlyKey("present", map[string]any{"type": "boolean"})}}
}

// decodeMatch makes the conditions of a route from what stands under match.
func (l *loader) decodeMatch(doc *matchDoc, n *Node) Match {
	m := Match{Path: PathMatch{Kind: PathPrefix, Value: "/"}}
	if doc.Path != nil {
		m.Path = PathMatch(*doc.Path)
	}
	if doc.GRPC != nil {
		l.grpcMatch(&m, doc, n)
	}
	m.Source = l.sources(doc.Source, n.Get("source"))
	seen := make(map[method]bool, len(doc.Methods))
	for i, one := range doc.Methods {
		if seen[one] {
			l.report(n, fmt.Sprintf("methods[%d]", i), false, "the method %s stands here twice", one)
			continue
		}
		seen[one] = true
		m.Methods = append(m.Methods, string(one))
	}
	if methods := n.Get("methods"); methods != nil && methods.Kind == List && len(methods.Items) == 0 {
		l.report(methods, "", false, "name at least one method").Hintf("leave methods out for any")
	}
	slices.Sort(m.Methods)
	m.Headers = l.headerMatches(doc.Headers, n.Get("headers"))
	m.Query = l.queryMatches(doc.Query, n.Get("query"))
	return m
}

// grpcMatch puts a gRPC service or method into the path and method that it is called by.
func (l *loader) grpcMatch(m *Match, doc *matchDoc, n *Node) {
	for _, key := range []string{"path", "methods"} {
		if n.Get(key) != nil {
			l.report(n, key, false, "match.grpc stands for the path and the method: %s can't stand beside it", key).Hintf("remove one of the two")
		}
	}
	m.GRPC, m.Path, doc.Methods = true, PathMatch{Kind: PathPrefix, Value: "/" + doc.GRPC.Service}, []method{"POST"}
	if doc.GRPC.Method != "" {
		m.Path = PathMatch{Kind: PathExact, Value: m.Path.Value + "/" + doc.GRPC.Method}
	}
}

// maxSources is how many ranges a route may ask for, and the routes of a host together: Envoy finds them by each.
const maxSources = 1000

func (l *loader) sources(ranges []sourceRange, n *Node) []netip.Prefix {
	if n != nil && n.Kind == List && len(n.Items) == 0 {
		l.report(n, "", false, "name at least one address").Hintf("leave source out for any")
	}
	if len(ranges) > maxSources {
		l.report(n, "", false, "%d ranges, more than %d", len(ranges), maxSources)
		return nil
	}
	var all []netip.Prefix
	seen := make(map[sourceRange]bool, len(ranges))
	for i, r := range ranges {
		switch prefix := netip.Prefix(r); {
		case !prefix.IsValid(): // told while it was decoded
		case seen[r]:
			l.report(n, fmt.Sprintf("[%d]", i), false, "the range %s stands here twice", prefix)
		default:
			seen[r] = true
			all = append(all, prefix)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all
}

func (l *loader) headerMatches(doc map[string]valueDoc, n *Node) []ValueMatch {
	if n == nil || n.Kind != Map {
		return nil
	}
	var matches []ValueMatch
	seen := make(map[string]*Node, len(doc))
	for _, key := range n.Keys {
		v, name := doc[key.Text], strings.ToLower(key.Text)
		switch first := seen[name]; {
		case strings.HasPrefix(name, ":") || name == "host":
			l.reportKey(key, "%s is no header to match", quote(key.Text)).Hintf("use hostnames, match.path or match.methods")
			continue
		case !IsToken(name):
			l.reportKey(key, "%s can't be the name of a header", quote(key.Text))
			continue
		case first != nil:
			l.reportKey(key, "the header %s stands here twice: case does not count", quote(name)).also(first.Pos)
			continue
		}
		seen[name] = key
		v.Name = name
		matches = append(matches, ValueMatch(v))
	}
	slices.SortFunc(matches, byName)
	return matches
}

// queryMatches reads conditions on the query, which Envoy compares as the client has written it.
func (l *loader) queryMatches(doc map[string]valueDoc, n *Node) []ValueMatch {
	if n == nil || n.Kind != Map {
		return nil
	}
	matches := make([]ValueMatch, 0, len(doc))
	for i, key := range n.Keys {
		v := doc[key.Text]
		if escaped := escapeQuery(key.Text, "&=#"); escaped != key.Text {
			l.reportKey(key, "the parameter %s would never match: the query is compared as clients write it, escaped", quote(key.Text)).
				Hintf("write %s", quote(escaped))
		}
		if escaped := escapeQuery(v.Exact, "&#"); escaped != v.Exact {
			l.report(n.Items[i], "", false, "the value %s would never match: the query is compared as clients write it, escaped", quote(v.Exact)).
				Hintf("write %s", quote(escaped))
		}
		v.Name = key.Text
		matches = append(matches, ValueMatch(v))
	}
	slices.SortFunc(matches, byName)
	return matches
}

// escapeQuery escapes what can't stand in a query, or would end a part of it.
func escapeQuery(text, ends string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(ends, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func byName(a, b ValueMatch) int { return cmp.Compare(a.Name, b.Name) }
