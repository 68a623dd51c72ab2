package ratelimit

import (
	"slices"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// By is what each bucket belongs to, as written: one part, or a list of parts that make one value together.
type By []ratelimit.By

const maxParts = 4

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
	switch {
	case n.Kind == policy.Scalar && n.Text == "ip":
		return ratelimit.By{Kind: ratelimit.IP}, true
	case n.Kind == policy.Scalar && n.Text == "consumer":
		return ratelimit.By{Kind: ratelimit.Consumer}, true
	case n.Kind == policy.Map && len(n.Keys) == 1 && n.Items[0].Kind == policy.Scalar:
		return readNamed(d, n.Keys[0].Text, n.Items[0])
	}
	p := d.Errorf(n, "want ip, consumer, {header: NAME} or {claim: NAME}")
	switch n.Text {
	case "header", "claim":
		p.Hintf("write {%s: NAME}", n.Text)
	case "address", "client", "remoteAddress", "remote_address":
		p.Hintf("write ip")
	case "user", "sub", "subject":
		p.Hintf("write consumer")
	}
	return ratelimit.By{}, false
}

// maxName bounds the names of headers and claims, which travel with each call.
const maxName = 256

func readNamed(d *policy.Decode, key string, n *policy.Node) (ratelimit.By, bool) {
	switch {
	case len(n.Text) > maxName:
		d.Errorf(n, "the name has %d bytes; want at most %d", len(n.Text), maxName)
	case key == "header" && headerName(n.Text):
		return ratelimit.By{Kind: ratelimit.Header, Name: strings.ToLower(n.Text)}, true
	case key == "header":
		d.Errorf(n, "%q is not a header name", n.Text).Hintf("letters, digits and - make a header name")
	case key == "claim" && n.Text != "" && strings.TrimSpace(n.Text) == n.Text:
		return ratelimit.By{Kind: ratelimit.Claim, Name: n.Text}, true
	case key == "claim":
		d.Errorf(n, "want the name of a claim, dotted where it is nested, got %q", n.Text)
	default:
		d.Errorf(n, "want header or claim, got %q", key)
	}
	return ratelimit.By{}, false
}

func headerName(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// PolicySchema describes one part or a list.
func (*By) PolicySchema(*policy.Schemas) map[string]any {
	name := map[string]any{"type": "string"}
	one := map[string]any{"oneOf": []any{
		map[string]any{"enum": []string{"ip", "consumer"}}, policy.OnlyKey("header", name), policy.OnlyKey("claim", name),
	}}
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "maxItems": maxParts, "items": one}}}
}
