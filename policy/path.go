package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
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
	kinds, unknown := 0, false
	for i, key := range n.Keys {
		kind, ok := pathKinds[key.Text]
		switch {
		case key.Text == "ignoreCase":
			ignore = n.Items[i]
			d.Decode(ignore, &p.IgnoreCase)
		case !ok:
			d.Unknown(key, []string{"exact", "ignoreCase", "prefix", "regex", "template"})
			unknown = true
		default:
			p.read(d, n.Items[i], kind)
			kinds++
		}
	}
	if unknown {
		return
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

// badPath says why no request that Envoy has normalised could have such a path, and what to do.
func badPath(path string) (why, hint string) {
	switch {
	case !strings.HasPrefix(path, "/") && strings.ContainsAny(path, `^$*~(\`):
		return fmt.Sprintf("a path begins with /, got %s", quote(path)), "for patterns write {regex: …} or {template: …}"
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
