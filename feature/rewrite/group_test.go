package rewrite

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// verdict is what the check says of a rewrite.
func verdict(pattern, substitution string) error {
	found, whole := groups(pattern)
	if !whole {
		return errors.New("not the whole path")
	}
	list, err := tokens(substitution, len(found)-1)
	if err != nil {
		return err
	}
	return made(list, found)
}

func TestRewritesKeepNormalForm(t *testing.T) {
	for _, tt := range []struct {
		pattern, substitution string
		good                  bool
	}{
		{"^/users/([0-9]+)(/.*)?$", `/u/\1\2`, true},
		{"^/users/([^/]+)/orders$", `/orders/of-\1.html`, true},
		{`^/product/([0-9]+)\.html$`, `/p/\1`, true},
		{`^(/.*)?/([a-z0-9-]+)\.html$`, `/x\1/\2`, false}, // \1 can be empty
		{`^(/.*)/([a-z0-9-]+)\.html$`, `\1/\2`, true},
		{"^/old(/.*)?$", `/new\1`, true},
		{"^/old/(.*)$", `/new/\1`, true},
		{"^(/.+)$", `/x\1`, true},
		{"^/a/.*$", `/x\0`, true},
		{"^/one$", "/two", true},
		{"^/(a|b)/([^/]+)$", `/\2/\1`, true},
		{"^/a/([^/]+)/([^/]+)$", `/\1\2`, true},
		{`^/a/([^/]+)$`, `/.\1`, true}, // never empty, never dots
		{"-v[0-9]", "/", false},
		{"/old", "/", false},
		{"^/old", "/new", false},
		{"old$", "new", false},
		{"^/a|/b$", "/c", false},
		{"^/a(.*)$", `/x/\1`, false}, // /a../admin
		{"^/a/(.*)b$", `/x/\1`, false},
		{`^(/.+)\.html$`, `\1`, false}, // /...html
		{"^/a/(.*)$", `/\1/x`, false},
		{"^/a(/.*)?$", `\1`, false},
		{"^/a(/.*)?$", `/b/\1`, false},
		{"^/a(/.*)?$", `/.\1`, false},
		{"^/a/(.*)$", `/.\1`, false},
		{"^/a/(.*)$", `\1`, false},
		{"^/(.*)$", `\1`, false},
		{"^/%([0-9a-f]+)(.*)$", `/x\2`, false},
		{"^/a/([0-9]+).*$", `/%\1`, false},
		{"^/a$", "", false},
		{"^/a$", "/b//c", false},
		{"^/a$", "/b/../c", false},
		{"^/a$", "/b/.", false},
		{"^/a$", "/b?c", false},
		{"^/a$", `/\n`, false},
		{"^/a$", `/\1`, false},
	} {
		if err := verdict(tt.pattern, tt.substitution); (err == nil) != tt.good {
			t.Errorf("%s -> %s: %v, want good %v", tt.pattern, tt.substitution, err, tt.good)
		}
	}
}

func TestTemplatesKeepNormalForm(t *testing.T) {
	for _, tt := range []struct {
		match, template string
		good            bool
	}{
		{"/users/{id}", "/u/{id}", true},
		{"/users/{id}", "/u/{id}/{id}", true},
		{"/users/{id}", "/u/.{id}.html", true}, // never empty, never dots
		{"/users/{id}/*", "/u", true},
		{"/a/{b}/{c=**}", "/x/{b}/{c}", true},
		{"/a/{b=x/*/y}", "/{b}", true},
		{"/a/{b=x/**}", "/{b}", true},
		{"/a/{b=**}", "/x/{b}", true},
		{"/a/{b=**}", "/x{b}", true},
		{"/a/{b}.html", "/x/{b}", false}, // /a/...html
		{"/a/{b=**}.html", "/x/{b}", false},
		{"/a/{b=**}", "/x/{b}/y", false},
		{"/a/{b=**}", "/.{b}", false},
		{"/a/{b=**}", "{b}", false},
		{"/a/{b}", "{b}", false},
		{"/a/{b}", "/x//{b}", false},
		{"/a/{b}", "/./{b}", false},
		{"/a/{b}", "/x/{c}", false},
		{"/a/{b}", "/x?{b}", false},
		{"/a/{b}", "/x%{b}", false},
	} {
		pattern, names := templatePattern(tt.match)
		list, err := templateTokens(tt.template, names)
		if found, _ := groups(pattern); err == nil {
			err = made(list, found)
		}
		if (err == nil) != tt.good {
			t.Errorf("%s -> %s: %v, want good %t", tt.match, tt.template, err, tt.good)
		}
	}
}

// Every rewrite of some thousands that the check lets through is held against every short path in normal form.
func TestRewritesOfManyPaths(t *testing.T) {
	paths := normalPaths(5)
	number := regexp.MustCompile(`\\([0-9])`)
	good := 0
	for _, pattern := range patterns() {
		found, _ := groups(pattern) // all are tied to both ends
		re := regexp.MustCompile(pattern)
		for _, substitution := range []string{
			`/x\1`, `/x/\1`, `\1`, `\2`, `/\1\2`, `/\2/\1`, `\1\2`, `\1/\2`, `/.\1`, `/.\1/.\2`, `/..\2`, `/\1.`, `\1x`, `/\1/\2`, `/.\0`, `\0`,
		} {
			if list, err := tokens(substitution, len(found)-1); err != nil || made(list, found) != nil {
				continue
			}
			good++
			becomes := number.ReplaceAllString(substitution, "$${$1}")
			for _, path := range paths {
				if got := re.ReplaceAllString(path, becomes); !normal(got) {
					t.Fatalf("%s -> %s makes %s of %s", pattern, substitution, got, path)
				}
			}
		}
	}
	if good < 500 {
		t.Errorf("%d rewrites are taken: the test says little", good)
	}
}

// patterns is all rows of up to three pieces.
func patterns() []string {
	pieces := []string{
		"", "/", "a", `\.`, "/a", "([^/]+)", "(.*)", "(/.*)", "(/.*)?", "(/[^/]+)*", "([a-z]+)", "(a*)", ".*", "/?", "([^/]+/)", "(?:a|/a)?",
	}
	var all []string
	for _, one := range pieces {
		for _, two := range pieces {
			for _, three := range pieces {
				p := "^" + one + two + three
				switch strings.Count(p, "(") - strings.Count(p, "(?:") {
				case 1:
					all = append(all, p+"()$")
				case 2:
					all = append(all, p+"$")
				}
			}
		}
	}
	return all
}

func normalPaths(length int) []string {
	all, row := []string{}, []string{"/"}
	for range length {
		all = append(all, row...)
		var longer []string
		for _, p := range row {
			for _, c := range "/.a" {
				longer = append(longer, p+string(c))
			}
		}
		row = longer
	}
	return slices.DeleteFunc(all, func(p string) bool { return !normal(p) })
}

func normal(path string) bool {
	segments := strings.Split(path, "/")
	if len(segments) < 2 || segments[0] != "" {
		return false
	}
	for _, s := range segments[1 : len(segments)-1] {
		if s == "" || s == "." || s == ".." {
			return false
		}
	}
	end := segments[len(segments)-1]
	return end != "." && end != ".."
}
