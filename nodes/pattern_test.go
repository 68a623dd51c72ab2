package nodes

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestURIsOfAPattern(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		pattern, uri string
		want         bool
	}{
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/ns/edge/a", true},
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/ns/edge/A-1._b", true},
		{"spiffe://example.com/ns/*/sa/edge", "spiffe://example.com/ns/x/sa/edge", true},
		{"spiffe://example.com/*/*", "spiffe://example.com/a/b", true},
		{"spiffe://example.com/edge", "spiffe://example.com/edge", true},
		{"https://example.com/edge", "https://example.com/edge", true},

		// Anchored at both ends, and a star is one segment.
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/ns/edge", false},
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/ns/edge/", false},
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/ns/edge/a/b", false},
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/ns/edge/a/", false},
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/x/ns/edge/a", false},
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com//ns/edge/a", false},
		{"spiffe://example.com/ns/edge/*", "spiffe://example.com/ns/edge2/a", false},
		{"spiffe://example.com/edge", "spiffe://example.com/edge2", false},
		{"spiffe://example.com/edge", "spiffe://example.com", false},

		// Of another trust domain, scheme or letter case.
		{"spiffe://example.com/edge", "spiffe://example.com.evil.test/edge", false},
		{"spiffe://example.com/edge", "spiffe://evil.test/example.com/edge", false},
		{"spiffe://example.com/edge", "spiffe://EXAMPLE.com/edge", false},
		{"spiffe://example.com/edge", "spiffe://example.com./edge", false},
		{"spiffe://example.com/edge", "spiffe://example.com/EDGE", false},
		{"spiffe://example.com/edge", "https://example.com/edge", false},
		{"spiffe://example.com/edge", "urn:example.com:edge", false},

		// What can be written in another way, or means something else to another reader.
		{"spiffe://example.com/edge", "spiffe://example.com/ed%67e", false},
		{"spiffe://example.com/*", "spiffe://example.com/a%2Fb", false},
		{"spiffe://example.com/*", "spiffe://example.com/%00", false},
		{"spiffe://example.com/*", "spiffe://example.com/a%20b", false},
		{"spiffe://example.com/*", "spiffe://example.com/ä", false},
		{"spiffe://example.com/*", "spiffe://example.com/*", false},
		{"spiffe://example.com/*", "spiffe://example.com/..", false},
		{"spiffe://example.com/*/edge", "spiffe://example.com/../edge", false},
		{"spiffe://example.com/*", "spiffe://example.com/.", false},
		{"spiffe://example.com/edge", "spiffe://example.com/edge?x", false},
		{"spiffe://example.com/edge", "spiffe://example.com/edge?", false},
		{"spiffe://example.com/edge", "spiffe://example.com/edge#x", false},
		{"spiffe://example.com/edge", "spiffe://u@example.com/edge", false},
		{"spiffe://example.com/edge", "spiffe://example.com:80/edge", false},
		{"spiffe://example.com/edge", "spiffe:///edge", false},
		{"spiffe://example.com/*", "spiffe://example.com/" + strings.Repeat("a", maxURI), false},
	} {
		p, _, err := parseURI(row.pattern)
		if err != nil {
			t.Fatalf("%s: %v", row.pattern, err)
		}
		u, err := url.Parse(row.uri)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.matchURI(u); got != row.want {
			t.Errorf("%s against %.80s: got %t, want %t", row.uri, row.pattern, got, row.want)
		}
		if p.matchDNS(row.uri) {
			t.Errorf("%s is taken for a DNS name", row.uri)
		}
	}
	if p, _, _ := parseURI("spiffe://example.com/*"); p.matchURI(&url.URL{Scheme: "spiffe", Host: "example.com", Path: "/a\x00b"}) {
		t.Error("a NUL passes as part of a segment")
	}
}

func TestDNSNamesOfAPattern(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		pattern, name string
		want          bool
	}{
		{"edge.example.com", "edge.example.com", true},
		{"*.edge.example.com", "a-1.edge.example.com", true},
		{"*.edge", "a.edge", true},
		{"node.*.example.com", "node.edge.example.com", true},
		{"*.xn--bcher-kva.example", "a.xn--bcher-kva.example", true},

		{"*.edge.example.com", "edge.example.com", false},
		{"*.edge.example.com", ".edge.example.com", false},
		{"*.edge.example.com", "a.b.edge.example.com", false},
		{"*.edge.example.com", "a.edge.example.com.evil.test", false},
		{"*.edge.example.com", "a.edge.example.com.", false},
		{"*.edge.example.com", "a.edge.example.com\x00", false},
		{"*.edge.example.com", "a\x00.edge.example.com", false},
		{"*.edge.example.com", "*.edge.example.com", false},
		{"*.edge.example.com", "A.edge.example.com", false},
		{"*.edge.example.com", "a.EDGE.example.com", false},
		{"*.edge.example.com", "ä.edge.example.com", false},
		{"*.edge.example.com", "a_b.edge.example.com", false},
		{"*.edge.example.com", "-.edge.example.com", false},
		{"*.edge.example.com", strings.Repeat("a", 64) + ".edge.example.com", false},
		{"*.xn--bcher-kva.example", "a.bücher.example", false},
		{"edge.example.com", "edge.example.com.", false},
		{"edge.example.com", "xedge.example.com", false},
		{"edge.example.com", "edgexexample.com", false},
		{"edge", "", false},
	} {
		p, _, err := parseDNS(row.pattern)
		if err != nil {
			t.Fatalf("%s: %v", row.pattern, err)
		}
		if got := p.matchDNS(row.name); got != row.want {
			t.Errorf("%q against %s: got %t, want %t", row.name, row.pattern, got, row.want)
		}
		if u, err := url.Parse("spiffe://" + row.name + "/"); err == nil && p.matchURI(u) {
			t.Errorf("%q is taken for a URI", row.name)
		}
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"uri edge":                               "want a URI with a path",
		"uri spiffe://example.com":               "want a URI with a path",
		"uri ://example.com/a":                   "want a URI with a path",
		"uri SPIFFE://example.com/a":             "want a URI with a path",
		"uri spiffe://*/edge":                    "trust domain can't be a pattern",
		"uri spiffe://*.example.com/edge":        "trust domain can't be a pattern",
		"uri spiffe:///edge":                     "no trust domain",
		"uri spiffe://Example.com/edge":          "no trust domain",
		"uri spiffe://example.com:80/edge":       "no trust domain",
		"uri spiffe://u@example.com/edge":        "no trust domain",
		"uri spiffe://exämple.com/edge":          "no trust domain",
		"uri spiffe://example.com/":              `"" can't be a segment`,
		"uri spiffe://example.com/a//b":          `"" can't be a segment`,
		"uri spiffe://example.com/a/":            `"" can't be a segment`,
		"uri spiffe://example.com/edge-*":        "not for a part",
		"uri spiffe://example.com/**":            "not for a part",
		"uri spiffe://example.com/..":            "can't be a segment",
		"uri spiffe://example.com/a%2Fb":         "can't be a segment",
		"uri spiffe://example.com/a?b":           "can't be a segment",
		"uri spiffe://example.com/a\x00":         "can't be a segment",
		"dns *":                                  "whoever has a certificate",
		"dns edge.*":                             "whoever has a certificate",
		"dns *.*":                                "whoever has a certificate",
		"dns edge-*.example.com":                 "not for a part",
		"dns **.example.com":                     "not for a part",
		"dns .example.com":                       "can't be a label",
		"dns a..example.com":                     "can't be a label",
		"dns example.com.":                       "don't have names such as",
		"dns Example.com":                        "capital letters",
		"dns bücher.example":                     "not ASCII",
		"dns a b.example.com":                    "can't be a label",
		"dns a\x00.example.com":                  "can't be a label",
		"dns 10.0.0.1/8":                         "can't be a label",
		"dns " + strings.Repeat("a.", 127) + "a": "longer than",
	} {
		kind, value, _ := strings.Cut(text, " ")
		parse := parseDNS
		if kind == "uri" {
			parse = parseURI
		}
		if _, _, err := parse(value); err == nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q: got %v, want it to say %q", text, err, want)
		}
	}
}

// FuzzPatterns looks for names that pass as what they are not, and for patterns that don't match what they say.
func FuzzPatterns(f *testing.F) {
	f.Add("spiffe://example.com/edge", "a.edge.example.com")
	f.Add("spiffe://example.com/a%2Fb", "*.edge.example.com")
	exact, _, _ := parseURI("spiffe://example.com/edge")
	below, _, _ := parseDNS("*.edge.example.com")
	f.Fuzz(func(t *testing.T, uri, dns string) {
		if u, err := url.Parse(uri); err == nil && exact.matchURI(u) && !strings.EqualFold(uri, "spiffe://example.com/edge") {
			t.Errorf("%q is taken for spiffe://example.com/edge", uri)
		}
		if first, ok := strings.CutSuffix(dns, ".edge.example.com"); below.matchDNS(dns) && (!ok || strings.Contains(first, ".")) {
			t.Errorf("%q is taken for a name below edge.example.com", dns)
		}
		if p, _, err := parseURI(uri); err == nil && !strings.Contains(uri, star) {
			if u, err := url.Parse(uri); err != nil || !p.matchURI(u) {
				t.Errorf("the pattern %q does not match itself", uri)
			}
		}
		if p, _, err := parseDNS(dns); err == nil && !strings.Contains(dns, star) && !p.matchDNS(dns) {
			t.Errorf("the pattern %q does not match itself", dns)
		}
	})
}
