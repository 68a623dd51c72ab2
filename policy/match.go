package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

type matchDoc struct {
	Path    *pathDoc            `policy:"path" doc:"a path prefix on segment borders, or {exact: …}, {regex: …}, {template: …}; with ignoreCase: true in whatever case; default /"`
	Methods []method            `policy:"methods" doc:"any of these methods; default all" schema:"some"`
	Headers map[string]valueDoc `policy:"headers" doc:"all of these headers: a text for the exact value, {regex: …} or {present: true}"`
	Query   map[string]valueDoc `policy:"query" doc:"all of these query parameters, written as headers are"`
	Source  []Range             `policy:"source" doc:"any of these addresses of clients, or ranges of them: 10.0.0.0/8" schema:"some"`
	GRPC    *grpcDoc            `policy:"grpc" doc:"a gRPC service, or one method of it, instead of a path and methods"`
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

// grpcDoc is a gRPC service or method as written.
type grpcDoc struct {
	Service string `policy:"service,required" doc:"its full name, such as orders.v1.Orders"`
	Method  string `policy:"method"`
}

const (
	grpcService = "^[a-zA-Z_][a-zA-Z0-9_]*([.][a-zA-Z_][a-zA-Z0-9_]*)*$"
	grpcMethod  = "^[a-zA-Z_][a-zA-Z0-9_]*$"
)

var (
	isGRPCService = regexp.MustCompile(grpcService).MatchString
	isGRPCMethod  = regexp.MustCompile(grpcMethod).MatchString
)

// DecodePolicy reads a gRPC service or method.
func (g *grpcDoc) DecodePolicy(d *Decode, n *Node) {
	if !d.Decode(n, g) {
		return
	}
	if !isGRPCService(g.Service) {
		p := d.Errorf(n.Get("service"), "%s can't be a gRPC service", quote(g.Service))
		p.Hintf("write its full name, as orders.v1.Orders; a method goes under method")
	}
	if method := n.Get("method"); method != nil && !isGRPCMethod(g.Method) {
		d.Errorf(method, "%s can't be a method of gRPC", quote(g.Method)).Hintf("write its name, as GetOrder")
	}
}

// PolicySchema describes a gRPC service or method.
func (*grpcDoc) PolicySchema(*Schemas) map[string]any {
	out := OnlyKey("service", map[string]any{"type": "string", "pattern": grpcService, "description": "with its package: orders.v1.Orders"})
	out["properties"].(map[string]any)["method"] = map[string]any{"type": "string", "pattern": grpcMethod, "description": "default all of the service"}
	return out
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

func (l *loader) sources(ranges []Range, n *Node) []netip.Prefix {
	if n != nil && n.Kind == List && len(n.Items) == 0 {
		l.report(n, "", false, "name at least one address").Hintf("leave source out for any")
	}
	if len(ranges) > maxSources {
		l.report(n, "", false, "%d ranges, more than %d", len(ranges), maxSources)
		return nil
	}
	var all []netip.Prefix
	seen := make(map[Range]bool, len(ranges))
	for i, r := range ranges {
		switch prefix := netip.Prefix(r); {
		case !prefix.IsValid(): // told while it was decoded
		case seen[r]:
			l.report(n, fmt.Sprintf("[%d]", i), false, "%s stands here twice", r)
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
