package auth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/legation/legation/expr"
)

// MaxDemands bounds the scopes, the claims, the values of a claim and the rules of an [Authorization].
const MaxDemands = 64

// Further bounds of it.
const (
	maxWord     = 256 // bytes of a scope, and of a claim's path
	maxMetadata = 4   // each may cost a request a call
)

// Flaw is something wrong with an [Authorization].
type Flaw struct {
	At         string // as policies write the way to it: "rules[0].deny.status"
	Text, Hint string
	Expression *ExpressionError // where the flaw is in an expression; else nil
}

// Error gives the flaw on one line.
func (f *Flaw) Error() string { return f.At + ": " + f.Text }

// flaws gathers them.
type flaws []*Flaw

func (f *flaws) add(at, hint, format string, args ...any) {
	*f = append(*f, &Flaw{At: at, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (f *flaws) err(at, hint string, err error) {
	if err != nil {
		f.add(at, hint, "%v", err)
	}
}

// Flaws tells all that is wrong with a.
func (a *Authorization) Flaws() []*Flaw {
	var all flaws
	all.err("", "", checkName(a.Name, ""))
	all.scopes(a.Scopes)
	all.claims(a.Claims)
	all.rules(a.Rules)
	all.metadata(a.Metadata)
	all.reply("deny", a.Deny)
	return all
}

func (f *flaws) many(at string, n int) bool {
	if n > MaxDemands {
		f.add(at, "a rule can hold a list: identity.tenant in ['a', 'b']", "%d entries, more than %d", n, MaxDemands)
	}
	return n > MaxDemands
}

func (f *flaws) scopes(scopes []string) {
	if f.many("scopes", len(scopes)) {
		return
	}
	for i, scope := range scopes {
		at := fmt.Sprintf("scopes[%d]", i)
		switch {
		case strings.Contains(scope, " "):
			f.add(at, "write a list: ["+strings.Join(strings.Fields(scope), ", ")+"]", "a scope has no spaces, %q is several", scope)
		case !isScope(scope):
			f.add(at, "", "%q is not a scope: want visible ASCII without quotes and backslashes, at most %d bytes", scope, maxWord)
		case slices.Contains(scopes[:i], scope):
			f.add(at, "remove one of the two", "the scope %q stands here twice", scope)
		}
	}
}

// isScope is RFC 6749's scope-token.
func isScope(s string) bool {
	return s != "" && len(s) <= maxWord && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' })
}

func (f *flaws) claims(demands map[string][]string) {
	if f.many("claims", len(demands)) {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(demands)) {
		at, values := "claims."+path, demands[path]
		switch {
		case path == "" || len(path) > maxWord || !utf8.ValidString(path):
			f.add("claims", "", "%.64q is not the path of a claim", path)
		case len(values) == 0:
			f.add(at, "leave the claim out, or name what it may be", "no value at all is allowed")
		case f.many(at, len(values)):
		}
		for i, v := range values {
			switch at := fmt.Sprintf("%s[%d]", at, i); {
			case v == "":
				f.add(at, "", "want a text")
			case len(v) > maxValue || !utf8.ValidString(v):
				f.add(at, "", "the text is not UTF-8, or longer than %d bytes", maxValue)
			case slices.Contains(values[:i], v):
				f.add(at, "remove one of the two", "%.64q stands here twice", v)
			}
		}
	}
}

func (f *flaws) rules(rules []AuthRule) {
	if f.many("rules", len(rules)) {
		return
	}
	names := map[string]bool{}
	for i, r := range rules {
		at := fmt.Sprintf("rules[%d]", i)
		f.expression(at+".cel", r.Expression)
		if r.Name != "" {
			f.err(at+".name", "", checkName(r.Name, ""))
			if names[r.Name] {
				f.add(at+".name", "logs tell rules by their names", "another rule here is called %q too", r.Name)
			}
			names[r.Name] = true
		}
		f.reply(at+".deny", r.Deny)
	}
}

func (f *flaws) expression(at, text string) {
	if strings.TrimSpace(text) == "" {
		f.add(at, "such as request.method == 'GET'", "want a condition in CEL")
		return
	}
	err := expr.CheckCondition(text)
	where, ok := errors.AsType[*ExpressionError](err)
	if !ok {
		f.err(at, "", err)
		return
	}
	flaw := &Flaw{At: at, Text: where.Text, Expression: where}
	if strings.HasPrefix(where.Text, `"=`) {
		flaw.Hint = "== compares"
	}
	*f = append(*f, flaw)
}
