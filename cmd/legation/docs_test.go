package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestPagesAreForTerminals(t *testing.T) {
	t.Parallel()
	p := page{colour: true}
	p.markdown("`key` does **much**, see\n[the `other`](other.md#anchor) and [these](https://a.test/x).\n\n- one\n  two\n- three\n1. four\n" +
		"| field | meaning | default |\n| --- | --- | --- |\n| `a` | or `x\\|y` | 1 |\n| `bcd` | `{rest=**}` | |\n\n" +
		"```yaml\nkey: **\n\n  - [a](b)\n```\nend")
	code := func(s string) string { return "\x1b[36m`" + s + "`\x1b[0m" }
	want := code("key") + " does much, see the " + code("other") + " and these (https://a.test/x).\n\n- one two\n- three\n1. four\n" +
		"  " + code("a") + "    or " + code("x|y") + "; default: 1\n  " + code("bcd") + "  " + code("{rest=**}") + "\n\n" +
		"    key: **\n\n      - [a](b)\nend\n\n"
	if diff := cmp.Diff(want, p.text.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every page has its key in the first line, no marks that only browsers understand, and lines that fit but for examples.
func TestPagesOfAllKeys(t *testing.T) {
	t.Parallel()
	all, err := topics()
	must(t, err)
	for _, topic := range all {
		if topic.in == "" || topic.summary == "" {
			t.Errorf("%s: it is not told where it stands or what it is: %+v", topic.name, topic)
		}
		_, got, errs := legation("docs", topic.name)
		if first, _, _ := strings.Cut(got, "\n"); !strings.Contains(first, topic.name) || errs != "" {
			t.Errorf("%s: begins with %q %s", topic.name, first, errs)
		}
		for line := range strings.Lines(got) {
			example := strings.HasPrefix(line, "    ")
			if !example && (strings.Contains(line, "](") || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "```") || strings.ContainsRune(line, 1)) {
				t.Errorf("%s: %q", topic.name, line)
			}
			if n := utf8.RuneCountInString(line); !example && n > pageWidth+1 && strings.Contains(line[:pageWidth], " ") && !strings.Contains(line, "`") {
				t.Errorf("%s: a line of %d columns: %q", topic.name, n, line)
			}
		}
	}
}
