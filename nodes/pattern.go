package nodes

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// pattern is names of certificates: {uri: spiffe://example.com/ns/edge/*} or {dns: "*.edge.example.com"}. A star stands for
// one whole segment of the path, or one whole label; all else is taken as it is written.
type pattern struct {
	scheme string   // of a URI; "" for a DNS name
	host   string   // of a URI
	parts  []string // segments, or labels
}

// star stands for any one part.
const star = "*"

// Bounds of names: those of DNS, and of SPIFFE IDs.
const (
	maxDNS = 253
	maxURI = 2048
)

// written is a pattern as it stands in the file.
type written struct {
	URI string `policy:"uri" doc:"a URI name, such as spiffe://example.com/ns/edge/*: each * is one whole segment of the path"`
	DNS string `policy:"dns" doc:"a DNS name, such as *.edge.example.com: each * is one whole label"`
}

// DecodePolicy reads {uri: …} or {dns: …}.
func (p *pattern) DecodePolicy(d *policy.Decode, n *policy.Node) {
	var w written
	if !d.Decode(n, &w) {
		return
	}
	var key, hint string
	var err error
	switch {
	case (w.URI == "") == (w.DNS == ""):
		d.Errorf(n, "want one of uri and dns").Hintf(`write {uri: "spiffe://example.com/ns/edge/*"} or {dns: "*.edge.example.com"}`)
		return
	case w.URI != "":
		key = "uri"
		*p, hint, err = parseURI(w.URI)
	default:
		key = "dns"
		*p, hint, err = parseDNS(w.DNS)
	}
	if err != nil {
		d.Errorf(n.Get(key), "%v", err).Hint = hint
	}
}

// parseURI reads the pattern of a URI. The trust domain is always said: whose it is decides everything.
func parseURI(text string) (p pattern, hint string, err error) {
	const form = "such as spiffe://example.com/ns/edge/*"
	scheme, rest, ok := strings.Cut(text, "://")
	host, path, slash := strings.Cut(rest, "/")
	parts := strings.Split(path, "/")
	switch {
	case !ok || !slash || !made(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-."):
		return p, form, fmt.Errorf("want a URI with a path, got %q", text)
	case len(text) > maxURI:
		return p, "", fmt.Errorf("longer than %d characters", maxURI)
	case strings.Contains(host, star):
		return p, "write the name itself: " + form, fmt.Errorf("the trust domain can't be a pattern: whoever signs for any other would be let in")
	case !made(host, lower+"-._"):
		return p, "trust domains are written with a-z, 0-9, -, . and _, without port and user", fmt.Errorf("%q is no trust domain", host)
	}
	for _, part := range parts {
		if part != star && !segment(part) {
			return p, "a segment is *, or text of a-z, A-Z, 0-9, -, . and _", partial(part, "segment")
		}
	}
	return pattern{scheme, host, parts}, "", nil
}

// parseDNS reads the pattern of a DNS name.
func parseDNS(text string) (p pattern, hint string, err error) {
	parts := strings.Split(text, ".")
	switch {
	case len(text) > maxDNS:
		return p, "", fmt.Errorf("longer than %d characters", maxDNS)
	case strings.HasSuffix(text, "."):
		return p, "write it without the dot at its end", fmt.Errorf("certificates don't have names such as %q", text)
	case text != strings.ToLower(text):
		return p, "write it in lower case, as it has to stand in the certificate", fmt.Errorf("%q has capital letters", text)
	case parts[len(parts)-1] == star:
		return p, "end it in a name of yours: *.edge.example.com", fmt.Errorf("%q would let in whoever has a certificate", text)
	}
	for _, part := range parts {
		switch {
		case part == star || label(part):
		case strings.ContainsFunc(part, func(r rune) bool { return r > '~' }):
			return p, "write it as it stands in certificates: xn--…", fmt.Errorf("%q is not ASCII", part)
		default:
			return p, "a label is *, or text of a-z, 0-9 and -", partial(part, "label")
		}
	}
	return pattern{parts: parts}, "", nil
}

func partial(part, what string) error {
	if strings.Contains(part, star) {
		return fmt.Errorf("a star stands for a whole %s, not for a part of %q", what, part)
	}
	return fmt.Errorf("%q can't be a %s", part, what)
}

const lower = "abcdefghijklmnopqrstuvwxyz0123456789"

// made tells whether text is of these characters, of at least one.
func made(text, of string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(of, r) })
}

// segment tells whether a part of a path means nothing else to anyone.
func segment(s string) bool {
	return made(s, lower+"ABCDEFGHIJKLMNOPQRSTUVWXYZ-._") && s != "." && s != ".."
}

func label(s string) bool {
	return made(s, lower+"-") && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
}

// matchURI tells whether a URI of a certificate is of the pattern. One that could be written in another way is none.
func (p pattern) matchURI(u *url.URL) bool {
	plain := u.Scheme + "://" + u.Host + u.Path
	if p.scheme == "" || u.Scheme != p.scheme || u.Host != p.host || u.String() != plain || len(plain) > maxURI {
		return false
	}
	path, ok := strings.CutPrefix(u.Path, "/")
	return ok && p.match(strings.Split(path, "/"), segment)
}

// matchDNS tells whether a DNS name of a certificate is of the pattern.
func (p pattern) matchDNS(name string) bool {
	return p.scheme == "" && len(name) <= maxDNS && p.match(strings.Split(name, "."), label)
}

// match compares part by part; ok tells what a star may stand for.
func (p pattern) match(parts []string, ok func(string) bool) bool {
	return slices.EqualFunc(p.parts, parts, func(want, got string) bool { return want == got && ok(got) || want == star && ok(got) })
}
