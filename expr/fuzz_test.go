package expr

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzExpressions has expressions of anybody compiled and evaluated. None panics, what is wrong has a place within the
// text, and no condition holds that has an error. The fuzzer itself stops at what takes long.
func FuzzExpressions(f *testing.F) {
	for _, seed := range []string{
		"request.method == 'GET' || 'admin' in identity.roles", "inCIDR(source.address, '10.0.0.0/8')", "request.path.matches('(a*)*$')",
		"[1,2,3].map(x, [1,2,3].map(y, x * y)).size() > 2", "identity.address.lines.exists_one(l, l == 'a')", "{'a': [identity]}.a[0].sub == 'alice'",
		"has(identity.a.b) ? request.headers['x'] : consumer", "dyn(request.headers)[1] == 2", "type(identity) == map", "request.time + duration('1h') > request.time",
		"request.query_params.y == '2'", "b'\\xff' == bytes(request.path)", "9223372036854775807 + identity.level > 0", "-(-9223372036854775808) == 1", "((((((((",
		"identity.roles == request.headers", "[request.headers] == [claims]", "string(identity) == ''", "metadata.gone.x.y", "'\\U0001F600'.size() == 1",
		strings.Repeat("!", 300) + "true", strings.Repeat("[1].all(x, ", 8) + "true" + strings.Repeat(")", 8),
	} {
		f.Add(seed)
	}
	all := facts(f)
	f.Fuzz(func(t *testing.T, expression string) {
		if v, err := CompileValue(expression); err == nil {
			v.Text(all)
			v.Text(&Facts{})
		} else {
			placed(t, expression, err)
		}
		ConditionUses(expression)
		c, err := CompileCondition(expression)
		if err != nil {
			placed(t, expression, err)
			return
		}
		for _, facts := range []*Facts{all, {}} {
			if holds, err := c.Holds(facts); holds && err != nil {
				t.Errorf("%q holds in spite of %v", expression, err)
			}
		}
	})
}

// placed holds an error against the text that it is about.
func placed(t *testing.T, expression string, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Text == "" {
		t.Fatalf("%q: %v", expression, err)
	}
	lines := strings.Split(expression, "\n")
	if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > utf8.RuneCountInString(lines[e.Line-1])+1 {
		t.Errorf("%q: %v stands nowhere in it", expression, e)
	}
}
