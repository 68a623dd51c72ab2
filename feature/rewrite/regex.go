package rewrite

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/legation/legation/policy"
)

// Regex replaces the path where a pattern matches it.
type Regex struct {
	Pattern      policy.Regex `policy:"pattern,required" doc:"RE2 for the whole path, from ^ to $; other paths stay as they are"`
	Substitution string       `policy:"substitution" doc:"the new path; \\1 to \\9 are the groups"`
}

// check makes sure that whatever path a client sends, the new one is in normal form too: Envoy normalises before it
// matches and asks auth, not after, so that a /../ that the rewrite puts together would lead the backend elsewhere.
func (r *Regex) check(c *policy.Check) {
	if _, err := regexp.Compile(string(r.Pattern)); err != nil || r.Pattern == "" {
		return // reported where it was read
	}
	found, whole := groups(string(r.Pattern))
	if !whole {
		c.Errorf("regex.pattern", "want a pattern for the whole path, from ^ to $").
			Hintf(`take what stays into groups, such as "^/old/([^/]+)(/.*)?$": what is cut out can leave /../ behind`)
		return
	}
	list, err := tokens(r.Substitution, len(found)-1)
	if err == nil {
		err = made(list, found)
	}
	if err != nil {
		c.Errorf("regex.substitution", "%v", err)
	}
}

// token is a piece of a new path: text, or a group of the old one by its number.
type token struct {
	text  string
	group int
	shown string // the group as written; "" for text
}

// literal is what may stand in a substitution beside groups: no percent sign without its two digits.
var literal = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})+$`)

func tokens(substitution string, groups int) ([]token, error) {
	var list []token
	text, rest, more := strings.Cut(substitution, `\`)
	for {
		if text != "" && !literal.MatchString(text) {
			return nil, fmt.Errorf("%q holds characters that cannot stand in a path", text)
		}
		if text != "" {
			list = append(list, token{text: text})
		}
		if !more {
			return list, nil
		}
		if rest == "" || rest[0] < '0' || rest[0] > '9' {
			return nil, fmt.Errorf(`a backslash stands before the number of a group: \1`)
		}
		n := int(rest[0] - '0')
		if n > groups {
			return nil, fmt.Errorf(`\%d: the pattern has %d groups; they stand in parentheses`, n, groups)
		}
		list = append(list, token{group: n, shown: `\` + rest[:1]})
		text, rest, more = strings.Cut(rest[1:], `\`)
	}
}

// made tells what can be wrong with the path that a substitution makes.
func made(list []token, groups []group) error {
	var p newPath
	for i, t := range list {
		if err := p.add(t, groups, i == len(list)-1); err != nil {
			return err
		}
	}
	return p.end()
}

// newPath is what is known of a path while a substitution makes it.
type newPath struct {
	begun   bool
	segment string // the last one as far as it is text
	solid   bool   // it has something of the old path, so that it is neither empty nor dots
}

func (p *newPath) add(t token, groups []group, isLast bool) error {
	if t.shown == "" {
		return p.addText(t.text)
	}
	g := groups[t.group]
	switch {
	case g.word():
	case g.partial:
		return fmt.Errorf("%s can be a part of a segment, such as ..: let it begin and end at slashes, or be of [A-Za-z0-9_-]+ only", t.shown)
	case (g.empty || g.open) && !isLast:
		return fmt.Errorf("%s can be empty or end with a slash: it can stand at the end only", t.shown)
	case g.slash && (g.plain || g.empty && !p.begun):
		return noSlash()
	case g.slash:
		return p.addSegments()
	}
	if !p.begun {
		return noSlash()
	}
	if g.empty && dots(p.segment) && !p.solid {
		return badSegment()
	}
	p.solid = true
	return nil
}

// addSegments adds a group that begins with a slash.
func (p *newPath) addSegments() error {
	if p.begun && p.segment == "" && !p.solid || dots(p.segment) && !p.solid {
		return badSegment()
	}
	p.begun, p.solid = true, true
	return nil
}

func (p *newPath) addText(text string) error {
	for i := range len(text) {
		switch {
		case text[i] != '/' && !p.begun:
			return noSlash()
		case text[i] != '/':
			p.segment += text[i : i+1]
		case p.begun && !p.solid && (p.segment == "" || dots(p.segment)):
			return badSegment()
		default:
			*p = newPath{begun: true}
		}
	}
	return nil
}

func (p *newPath) end() error {
	switch {
	case !p.begun:
		return noSlash()
	case !p.solid && dots(p.segment):
		return badSegment()
	}
	return nil
}

func dots(segment string) bool { return segment == "." || segment == ".." }

func noSlash() error {
	return fmt.Errorf(`the new path would not always begin with a slash: begin with /, or with a group such as (/.+)`)
}

func badSegment() error {
	return fmt.Errorf("the new path could hold empty or dotted segments, which servers read in different ways")
}
