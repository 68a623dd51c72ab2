package policy

import (
	"regexp/syntax"
	"strings"
	"testing"
)

// TestProgramSize holds the estimate against what Envoy 1.40 told of these expressions with its limit set to 1.
func TestProgramSize(t *testing.T) {
	for _, tt := range []struct {
		expr  string
		envoy int
	}{
		{`/v1/orders`, 14},
		{`/[a-z]{60}`, 65},
		{`/.*`, 7},
		{`/(.*){5}`, 25},
		{`/.*/b/.*/c/.*`, 17},
		{`(?i)/orders/kk`, 14},
		{`/[^/]+/[^/]+`, 12},
		{`/[^/]+(/[^/]+){3}`, 26},
		{`/\d+/\w+/\s`, 16},
		{`/(a|b|c|d|e|f)`, 8},
		{`/(alpha|beta|gamma|delta)`, 26},
		{`/[\p{L}]`, 12},
		{`/(?i)[a-z]{10}`, 15},
		{`/a{1,20}`, 44},
		{`/[[:alnum:]_-]{30}`, 125},
		{`/\PN`, 10},
		{`/[^a]{8}`, 21},
		{`/(.{3}){3}`, 29},
		{`/x*y+z?`, 11},
		{`/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, 73},
		{`/(?:[a-z]+/)*end$`, 12},
		{`/(?s).*`, 7},
		{`/\bfoo\b`, 10},
	} {
		tree, err := syntax.Parse(tt.expr, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		program, err := syntax.Compile(tree.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		got := programSize(program)
		if got < tt.envoy || got > 2*tt.envoy {
			t.Errorf("%s: got %d, want from %d to twice that", tt.expr, got, tt.envoy)
		}
	}
}

func TestCheckRegexRefuses(t *testing.T) {
	for _, expr := range []string{
		"", "(", "a**", `(?=a)`, `(a)\1`, "a{1001}", "[a-z]{99}", "(a{1,10}){10}", strings.Repeat("a", maxRegex+1),
		`/é`, `\x{100}`, `\pX`, "\xff", strings.Repeat("(", 1000),
	} {
		if err := CheckRegex(expr); err == nil {
			t.Errorf("%.40q is taken", expr)
		}
	}
	for _, expr := range []string{`/v1/[^/]+/items`, `\xe9`, `(?i)bearer .*`, `\x{7f}`, `[[:alpha:]]+\.example\.com`} {
		if err := CheckRegex(expr); err != nil {
			t.Errorf("%s is refused: %v", expr, err)
		}
	}
}
