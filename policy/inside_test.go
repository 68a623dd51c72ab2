package policy_test

import (
	"fmt"
	"testing"

	"github.com/legation/legation/policy"
)

// pointed is a text with the place of a character in it.
type pointed struct {
	Text   string `policy:"text"`
	Line   int    `policy:"line"`
	Column int    `policy:"column"`
}

func (p *pointed) Check(c *policy.Check) {
	if c.Route() == nil {
		c.Errorf("text", "here").Pos = c.Inside("text", p.Line, p.Column)
	}
}

// TestPlacesInsideTexts asks for the place of the character X, or of what stands before it where white space is asked for.
func TestPlacesInsideTexts(t *testing.T) {
	for _, test := range []struct {
		name, text   string // as it stands in the file, behind "    text: " in line 6
		line, column int
		want         string
	}{
		{"plain", "abcX", 1, 4, "6:14"},
		{"its first character", "Xabc", 1, 1, "6:11"},
		{"behind its end", "abc", 1, 4, "6:14"},
		{"far behind its end", "abc", 9, 9, "6:14"},
		{"single quotes", "'it''s  X'", 1, 7, "6:19"},
		{"double quotes", `"\"a\" \\ X"`, 1, 7, "6:21"},
		{"characters of more bytes", "'øøø X'", 1, 5, "6:16"},
		{"an escaped line", `"a\n  X"`, 2, 3, "6:17"},
		{"an escape that isn't read", `"\x41bX"`, 1, 3, "6:11"},
		{"plain on two lines", "ab\n      cd X", 1, 7, "7:10"},
		{"quoted on two lines", "'ab\n\n      cd X'", 2, 4, "8:10"},
		{"a block", "|\n      ab\n        cX", 2, 4, "8:10"},
		{"a block with a comment", "|-  # none\n\n      abX", 2, 3, "8:9"},
		{"a folded block", ">\n      ab\n      cX", 1, 5, "8:8"},
		{"a space", "ab cd", 1, 3, "6:13"},
		{"a line that ends", "|\n      ab\n      c", 1, 9, "7:9"},
	} {
		file := fmt.Sprintf("gateways: {edge: {listeners: {http: {port: 80}}}}\nservices: {s: {endpoints: [\"10.0.0.1:1\"]}}\nroutes:\n"+
			"  r:\n   pointed:\n    text: %s\n    line: %d\n    column: %d\n   hostnames: [\"*\"]\n   backends: {s: 1}\n", test.text, test.line, test.column)
		language := policy.New(policy.Define[pointed]("pointed", policy.InRoute, "x"))
		_, problems := language.Load(policy.Files{"a.yaml": []byte(file)})
		if len(problems) != 1 {
			t.Errorf("%s: %v", test.name, problems.Err())
			continue
		}
		if got := problems[0].Pos.String(); got != "a.yaml:"+test.want {
			t.Errorf("%s: %s, want %s\n%s", test.name, got, test.want, file)
		}
	}
}
