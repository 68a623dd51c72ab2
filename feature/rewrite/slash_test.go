package rewrite

import "testing"

func TestKeepsSlash(t *testing.T) {
	for _, tt := range []struct {
		pattern, substitution string
		want                  bool
	}{
		{"^/users/([0-9]+)$", `/u/\1`, true},
		{"one", "two", true},
		{`\.html$`, "", true},
		{"[0-9]+", "n", true},
		{"([^/]+)/x", `\1`, true},
		{`^(/.+)\.html$`, `\1`, true},
		{"(/a|/b)/c", `\1/d`, true},
		{"^/old/", "new/", false},
		{"^/(.*)", `\1`, false},
		{"^(/a)?/b", `\1`, false},
		{"^(.*)/b", `\1`, false},
		{"(a)?(/b)", `\2`, false},
		{"^", "evil.test", false},
		{"x*", "y", false},
		{"(?i)/A", "b", false},
	} {
		if got := keepsSlash(tt.pattern, tt.substitution); got != tt.want {
			t.Errorf("%s -> %s: %v, want %v", tt.pattern, tt.substitution, got, tt.want)
		}
	}
}
