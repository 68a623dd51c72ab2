package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// pathDoc is a path to match as written: a prefix, or a map that says which kind it is.
type pathDoc PathMatch

var pathKinds = map[string]PathKind{"prefix": PathPrefix, "exact": PathExact, "regex": PathRegex, "template": PathTemplate}

// DecodePolicy reads a path to match.
func (p *pathDoc) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Map {
		p.read(d, n, PathPrefix)
		return
	}
	var ignore *Node
	kinds := 0
	for i, key := range n.Keys {
		kind, ok := pathKinds[key.Text]
		switch {
		case key.Text == "ignoreCase":
			ignore = n.Items[i]
			d.Decode(ignore, &p.IgnoreCase)
		case !ok:
			d.unknown(key, []string{"exact", "ignoreCase", "prefix", "regex", "template"})
			kinds++
		default:
			p.read(d, n.Items[i], kind)
			kinds++
		}
	}
	if kinds != 1 {
		d.Errorf(n, "want one of prefix, exact, regex and template, got %d of them", kinds)
		return
	}
	switch {
	case !p.IgnoreCase:
	case p.Kind == PathRegex:
		d.Errorf(ignore, "a regular expression says by itself that case does not count").Hintf("begin it with (?i)")
	case p.Kind == PathTemplate:
		d.Errorf(ignore, "in a template case always counts").Hintf("write a regex that begins with (?i)")
	default:
		p.IgnoreCase = strings.ToLower(p.Value) != strings.ToUpper(p.Value) // where there is no letter, it says nothing
	}
}

// read takes one path.
func (p *pathDoc) read(d *Decode, n *Node, kind PathKind) {
	if n.Kind != Scalar {
		d.Errorf(n, "want a path such as /v1/orders, got %s", n.shape())
		return
	}
	text := n.Text
	switch kind {
	case PathRegex:
		if err := CheckRegex(text); err != nil {
			d.Errorf(n, "%v", err)
		}
	case PathTemplate:
		if why, hint := badTemplate(text); why != "" {
			d.Errorf(n, "%s", why).Hint = hint
		}
	default:
		if why, hint := badPath(text); why != "" {
			d.Errorf(n, "%s", why).Hint = hint
		}
	}
	if kind == PathPrefix && len(text) > 1 {
		text = strings.TrimSuffix(text, "/")
	}
	p.Kind, p.Value = kind, text
}

// PolicySchema describes a path to match.
func (*pathDoc) PolicySchema(s *Schemas) map[string]any {
	path := map[string]any{"type": "string", "pattern": "^/[^?#]*$"}
	cased := func(key string) map[string]any {
		form := OnlyKey(key, path)
		form["properties"].(map[string]any)["ignoreCase"] = map[string]any{"type": "boolean"}
		return form
	}
	template := map[string]any{
		"type": "string", "maxLength": maxTemplate, "pattern": "^/[^?#]*$",
		"description": "a path with variables: /users/{id}/files/{rest=**}",
	}
	return map[string]any{"oneOf": []any{path, cased("prefix"), cased("exact"), OnlyKey("regex", s.Of(new(Regex))), OnlyKey("template", template)}}
}

// Bounds of a template, of which Envoy makes a regular expression.
const (
	maxTemplate  = 1024
	maxVariables = 5
	maxVariable  = 16 // characters of a name
)

var (
	variableName = regexp.MustCompile("^[a-zA-Z][a-zA-Z0-9_]*$")
	templateText = regexp.MustCompile("^[a-zA-Z0-9._~%!$&'()+,;:@=/-]*$") // what Envoy takes beside variables
)

// badTemplate says why Envoy would not take a template, or why no request has a path like it, and what to do.
func badTemplate(template string) (why, hint string) {
	switch {
	case len(template) > maxTemplate:
		return fmt.Sprintf("the template is %d bytes long; want at most %d", len(template), maxTemplate), "write a prefix"
	case !strings.HasPrefix(template, "/"):
		return badPath(template)
	}
	t := &templateCheck{template: template}
	path := ""
	for rest, more := template[1:], true; more; {
		end := segmentEnd(rest)
		var segment string
		segment, rest, more = rest[:end], rest[min(end+1, len(rest)):], end < len(rest)
		plain, why, hint := t.segment(segment, !more)
		if why != "" {
			return why, hint
		}
		path += "/" + plain
	}
	if len(t.names) > maxVariables {
		return fmt.Sprintf("the template has %d variables; Envoy takes %d", len(t.names), maxVariables), "write * for those whose values are not needed"
	}
	if why, hint := badPath(path); why != "" {
		return strings.ReplaceAll(why, quote(path), quote(template)), hint
	}
	if !templateText.MatchString(path) {
		return fmt.Sprintf("the template %s has characters that Envoy takes in no template", quote(template)), "write a regex"
	}
	return "", ""
}

// segmentEnd is where the next slash stands that is not within a variable.
func segmentEnd(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			depth--
		case '/':
			if depth <= 0 {
				return i
			}
		}
	}
	return len(s)
}

// templateCheck is the check of one template.
type templateCheck struct {
	template string
	names    []string
}

// segment checks what stands between two slashes, and gives a text that it matches.
func (t *templateCheck) segment(s string, last bool) (plain, why, hint string) {
	before, after, variable := strings.Cut(s, "{")
	if !variable {
		if strings.Contains(s, "}") {
			return "", t.says("has a } without its {"), "write a variable as {name}"
		}
		return t.stars(s, last)
	}
	inner, behind, closed := strings.Cut(after, "}")
	text, _, _ := strings.Cut(behind, "{")
	name, pattern, has := strings.Cut(inner, "=")
	switch {
	case !closed || strings.Contains(inner, "{"):
		return "", t.says("has a { without its }"), "write a variable as {name}"
	case strings.Contains(before+text, "}"):
		return "", t.says("has a } without its {"), "write a variable as {name}"
	case strings.ContainsAny(before+behind, "{*"):
		return "", t.says("has several variables or * between two slashes"), "Envoy takes one there; for other patterns write {regex: …}"
	case !variableName.MatchString(name) || len(name) > maxVariable:
		return "", fmt.Sprintf("%s can't be the name of a variable", quote(name)), fmt.Sprintf("a name is up to %d letters, digits and _, and begins with a letter", maxVariable)
	case slices.Contains(t.names, name):
		return "", fmt.Sprintf("the variable %s stands in the template twice", quote(name)), "give one of the two another name"
	case has && pattern == "":
		return "", fmt.Sprintf("the variable %s matches nothing", quote(name)), fmt.Sprintf("write {%s}, or {%[1]s=**} for all that is left", name)
	}
	t.names = append(t.names, name)
	if !has || pattern == "*" {
		return before + "x" + behind, "", ""
	}
	if before+behind != "" {
		return "", fmt.Sprintf("the variable %s can't say what it takes with a text around it", quote(name)), fmt.Sprintf("write {%s} there, or a regex", name)
	}
	parts := strings.Split(pattern, "/")
	for i, part := range parts {
		if part != "*" && part != "**" && strings.Contains(part, "*") {
			return "", fmt.Sprintf("the variable %s has a * beside a text", quote(name)), "write whole parts: {file=images/*}"
		}
		if parts[i], why, hint = t.stars(part, last && i == len(parts)-1); why != "" {
			return "", why, hint
		}
	}
	return strings.Join(parts, "/"), "", ""
}

// stars checks a segment without a variable.
func (t *templateCheck) stars(s string, last bool) (plain, why, hint string) {
	star := "*"
	if strings.Contains(s, "**") {
		star = "**"
	}
	plain = strings.Replace(s, star, "x", 1)
	switch {
	case plain == s || s == "*":
	case strings.Contains(plain, "*"):
		return "", t.says("has several variables or * between two slashes"), "Envoy takes one there; for other patterns write {regex: …}"
	case !last && star == "**":
		return "", t.says("goes on after **, which takes all that is left"), "write * for one segment"
	case !last:
		return "", t.says("has a * beside a text before the last slash"), "name it: {name} may have a text around it anywhere"
	}
	return plain, "", ""
}

func (t *templateCheck) says(what string) string {
	return "the template " + quote(t.template) + " " + what
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
