package ratelimit

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// By is what each bucket belongs to, as written: one part, or a list of parts that make one value together.
type By []ratelimit.By

const maxParts = 4

// words are the parts that need nothing but their name.
var words = map[string]ratelimit.ByKind{
	"ip": ratelimit.IP, "consumer": ratelimit.Consumer,
	"path": ratelimit.Path, "route": ratelimit.Route, "method": ratelimit.Method, "host": ratelimit.Host,
}

// insteads are what to write for words that people write for parts.
var insteads = map[string]string{
	"address": "ip", "client": "ip", "clientIP": "ip", "remoteAddress": "ip", "remote_address": "ip", "remote_ip": "ip",
	"user": "consumer", "sub": "consumer", "subject": "consumer", "apiKey": "consumer", "plan": "consumer",
	"hostname": "host", "authority": "host", "url": "path", "uri": "path", "verb": "method",
	"header": "{header: NAME}", "claim": "{claim: NAME}", "cookie": "{cookie: NAME}", "cel": "{cel: EXPRESSION}",
}

// DecodePolicy reads one part or a list.
func (b *By) DecodePolicy(d *policy.Decode, n *policy.Node) {
	nodes := []*policy.Node{n}
	if n.Kind == policy.List {
		nodes = n.Items
	}
	switch {
	case len(nodes) == 0:
		d.Errorf(n, "name at least one part").Hintf("leave by out for one bucket for all")
	case len(nodes) > maxParts:
		d.Errorf(n, "want at most %d parts, got %d", maxParts, len(nodes))
	}
	for _, item := range nodes {
		part, ok := readPart(d, item)
		if ok && slices.Contains(*b, part) {
			d.Errorf(item, "this part stands here twice").Hintf("remove one of the two")
		}
		*b = append(*b, part)
	}
}

func readPart(d *policy.Decode, n *policy.Node) (ratelimit.By, bool) {
	if n.Kind == policy.Map && len(n.Keys) == 1 && n.Items[0].Kind == policy.Scalar {
		return readNamed(d, n.Keys[0].Text, n.Items[0])
	}
	if kind, ok := words[n.Text]; ok && n.Kind == policy.Scalar {
		return ratelimit.By{Kind: kind}, true
	}
	p := d.Errorf(n, "want ip, consumer, path, route, method, host, {header: NAME}, {claim: NAME}, {cookie: NAME} or {cel: EXPRESSION}")
	switch instead := insteads[n.Text]; {
	case instead != "":
		p.Hintf("write %s", instead)
	case strings.HasPrefix(strings.ToLower(n.Text), "x-") && headerName(n.Text):
		p.Hintf("write {header: %s}", n.Text)
	default:
		meant(p, n.Text, slices.Sorted(maps.Keys(words)))
	}
	return ratelimit.By{}, false
}

// Bounds of what travels with each call, in bytes: the names of headers, claims and cookies, and expressions.
const (
	maxName       = 256
	maxExpression = 1 << 10
)

func readNamed(d *policy.Decode, key string, n *policy.Node) (ratelimit.By, bool) {
	most := maxName
	if key == "cel" {
		most = maxExpression
	}
	switch {
	case len(n.Text) > most:
		d.Errorf(n, "this has %d bytes; want at most %d", len(n.Text), most)
		return ratelimit.By{}, false
	case key == "ip":
		return readPrefix(d, n)
	case key == "header" && headerName(n.Text):
		return ratelimit.By{Kind: ratelimit.Header, Name: strings.ToLower(n.Text)}, true
	case key == "header":
		d.Errorf(n, "%q is not a header name", n.Text).Hintf("letters, digits and - make a header name")
	case key == "claim" && n.Text != "" && strings.TrimSpace(n.Text) == n.Text:
		return ratelimit.By{Kind: ratelimit.Claim, Name: n.Text}, true
	case key == "claim":
		d.Errorf(n, "want the name of a claim, dotted where it is nested, got %q", n.Text)
	case key == "cookie" && cookieName(n.Text):
		return ratelimit.By{Kind: ratelimit.Cookie, Name: n.Text}, true
	case key == "cookie":
		d.Errorf(n, "%q is not the name of a cookie", n.Text)
	case key == "cel" && strings.TrimSpace(n.Text) != "":
		return ratelimit.By{Kind: ratelimit.CEL, Name: n.Text}, true
	case key == "cel":
		d.Errorf(n, "want an expression such as request.headers['x-team']")
	default:
		p := d.Errorf(n, "want header, claim, cookie, ip or cel, got %q", key)
		if _, ok := words[key]; ok {
			p.Hintf("write %s", key)
		} else {
			meant(p, key, []string{"header", "claim", "cookie", "ip", "cel"})
		}
	}
	return ratelimit.By{}, false
}

// meant says which of the names was likely meant, if any.
func meant(p *policy.Problem, name string, names []string) {
	if near := policy.Nearest(name, names); near != "" {
		p.Hintf("did you mean %s?", near)
	}
}

// Bounds of the prefix that counts of an IPv6 address: what providers hand out lies between.
const (
	shortestPrefix = 32
	wholeAddress   = 128
	defaultPrefix  = 64
)

// readPrefix reads /56. The default is no number of its own, so that writing it out changes nothing.
func readPrefix(d *policy.Decode, n *policy.Node) (ratelimit.By, bool) {
	digits, slash := strings.CutPrefix(n.Text, "/")
	bits, err := strconv.ParseUint(digits, 10, 8)
	switch {
	case err != nil || bits < shortestPrefix || bits > wholeAddress:
		d.Errorf(n, "want how much of an IPv6 address counts, from /%d to /%d, got %q", shortestPrefix, wholeAddress, n.Text).
			Hintf("write {ip: /56}; IPv4 addresses count as a whole")
		return ratelimit.By{}, false
	case !slash:
		d.Errorf(n, "want a prefix length with its slash, got %q", n.Text).Hintf("write {ip: /%s}", n.Text)
		return ratelimit.By{}, false
	case bits == defaultPrefix:
		bits = 0
	}
	return ratelimit.By{Kind: ratelimit.IP, Bits: uint8(bits)}, true
}

func prefixBits(b ratelimit.By) int { return cmp.Or(int(b.Bits), defaultPrefix) }

func headerName(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// cookieName tells whether s is a token of RFC 9110, which the names of cookies are.
func cookieName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) })
}

// PolicySchema describes one part or a list.
func (*By) PolicySchema(*policy.Schemas) map[string]any {
	name := map[string]any{"type": "string", "minLength": 1}
	prefix := map[string]any{"type": "string", "pattern": "^/[0-9]+$"}
	one := map[string]any{"oneOf": []any{
		map[string]any{"enum": []string{"ip", "consumer", "path", "route", "method", "host"}},
		policy.OnlyKey("header", name), policy.OnlyKey("claim", name), policy.OnlyKey("cookie", name),
		policy.OnlyKey("cel", name), policy.OnlyKey("ip", prefix),
	}}
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "maxItems": maxParts, "items": one}}}
}

// counts tells whether one of the parts is of the kind.
func (b By) counts(kind ratelimit.ByKind) bool {
	return slices.ContainsFunc(b, func(part ratelimit.By) bool { return part.Kind == kind })
}
