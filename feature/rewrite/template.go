package rewrite

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/legation/legation/policy"
)

// checkTemplate holds the template against the one that the route matches: its variables, and what they can be.
func (s *Setting) checkTemplate(c *policy.Check, match policy.PathMatch) {
	if match.Kind != policy.PathTemplate {
		c.Errorf("template", "the route does not match a template whose variables could be used").
			Hintf("write `match: {path: {template: …}}`, or `rewrite: {path: …}` for a path without variables")
		return
	}
	pattern, names := templatePattern(match.Value)
	list, err := templateTokens(s.Template, names)
	if err == nil {
		found, _ := groups(pattern)
		err = made(list, found)
	}
	if err != nil {
		c.Errorf("template", "%v", err)
	}
}

// stars are the wildcards of a template, and what they take: one segment, or all that is left. Envoy's leave out some
// characters.
var stars = strings.NewReplacer(`\*\*`, ".*", `\*`, "[^/]+")

// templatePattern is a template of a match as a regular expression, whose groups are the variables, and their names.
func templatePattern(template string) (pattern string, names []string) {
	pattern = "^"
	for {
		before, after, more := strings.Cut(template, "{")
		pattern += stars.Replace(regexp.QuoteMeta(before))
		if !more {
			return pattern + "$", names
		}
		variable, rest, _ := strings.Cut(after, "}")
		name, takes, has := strings.Cut(variable, "=")
		if !has {
			takes = "*"
		}
		names = append(names, name)
		pattern += "(" + stars.Replace(regexp.QuoteMeta(takes)) + ")"
		template = rest
	}
}

// templateLiteral is what Envoy takes in a rewrite beside variables: no = and no *.
var templateLiteral = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()+,;:@/-]|%[0-9A-Fa-f]{2})+$`)

// templateTokens reads the template of a rewrite; names are the variables of the match.
func templateTokens(template string, names []string) ([]token, error) {
	var list []token
	for {
		text, after, more := strings.Cut(template, "{")
		if text != "" && !templateLiteral.MatchString(text) {
			return nil, fmt.Errorf("%q holds characters that Envoy takes in no template", text)
		}
		if text != "" {
			list = append(list, token{text: text})
		}
		if !more {
			return list, nil
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			return nil, fmt.Errorf("there is a { without its }")
		}
		t, err := variable(name, names)
		if err != nil {
			return nil, err
		}
		list, template = append(list, t), rest
	}
}

// variable finds a variable among those of the match.
func variable(name string, names []string) (token, error) {
	for i, n := range names {
		if n == name {
			return token{group: i + 1, shown: "{" + name + "}"}, nil
		}
	}
	if len(names) == 0 {
		return token{}, fmt.Errorf("{%s} is no variable of the route's template, which has none", name)
	}
	return token{}, fmt.Errorf("{%s} is no variable of the route's template, which has {%s}", name, strings.Join(names, "}, {"))
}
