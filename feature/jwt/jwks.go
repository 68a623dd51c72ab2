package jwt

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

// JWKS is where the public keys come from: a URL, Keys, a JWK set in JSON, or what the issuer's metadata names.
type JWKS struct {
	URL      string
	Keys     []byte
	Discover bool
}

// discover is the word for keys that the issuer's metadata names.
const discover = "discover"

// DecodePolicy reads a URL, discover, {file: …} or {keys: […]}.
func (k *JWKS) DecodePolicy(d *policy.Decode, n *policy.Node) {
	file, keys := n.Get("file"), n.Get("keys")
	switch {
	case n.Kind == policy.Scalar && n.Text == discover:
		k.Discover = true
	case n.Kind == policy.Scalar && looksLikePath(n.Text):
		d.Errorf(n, "want a URL, got %q", n.Text).Hintf("write {file: %s}", n.Text)
	case n.Kind == policy.Scalar:
		k.URL = n.Text
		if err := auth.CheckURL(n.Text); err != nil {
			p := d.Errorf(n, "%v", err).Hintf("write an https URL, discover, {file: keys.json} or {keys: […]}")
			if strings.ContainsAny(n.Text, "@?") {
				p.Hide()
			}
		}
	case n.Kind == policy.Map && len(n.Keys) == 1 && file != nil && file.Kind == policy.Scalar:
		k.file(d, file)
	case n.Kind == policy.Map && len(n.Keys) == 1 && keys != nil && keys.Kind == policy.List:
		k.Keys, _ = json.Marshal(plain(n)) // maps, lists, texts and numbers: cannot fail
		if err := auth.ParseKeys(k.Keys); err != nil {
			p := d.Errorf(keys, "%v", err).Hintf("%s", keysHint(err))
			if private(err) {
				p.Hide()
			}
		}
	default:
		d.Errorf(n, "want a URL, the word discover, {file: keys.json} or {keys: […]}")
	}
}

// parsed tells what is wrong with the key set of a file.
type parsed struct{ err error }

func (k *JWKS) file(d *policy.Decode, n *policy.Node) {
	content, ok := d.File(n, n.Text)
	if !ok {
		return
	}
	read := policy.OncePerFile(d, func() parsed { return parsed{auth.ParseKeys(content)} })
	if read.err != nil {
		d.Errorf(n, "%s: %v", n.Text, read.err).Hintf("%s", keysHint(read.err))
		return
	}
	k.Keys = content
}

// private tells whether the key set was refused for what it gives away.
func private(err error) bool { return errors.Is(err, auth.ErrPrivateKey) }

func keysHint(err error) string {
	if private(err) {
		return "take the private key out of the policy and replace it: whoever reads this file can sign tokens"
	}
	return `a key set looks like {"keys": [{"kty": "EC", "crv": "P-256", "x": "…", "y": "…", "kid": "1"}]}`
}

func looksLikePath(s string) bool {
	return !strings.Contains(s, "://") && !strings.ContainsAny(s, "@?") && (strings.HasSuffix(s, ".json") || strings.HasPrefix(s, "."))
}

// plain is a node as JSON has it.
func plain(n *policy.Node) any {
	switch n.Kind {
	case policy.Map:
		m := make(map[string]any, len(n.Keys))
		for i, key := range n.Keys {
			m[key.Text] = plain(n.Items[i])
		}
		return m
	case policy.List:
		list := make([]any, len(n.Items))
		for i, item := range n.Items {
			list[i] = plain(item)
		}
		return list
	case policy.Null:
		return nil
	}
	if b, err := strconv.ParseBool(n.Text); err == nil && !n.Quoted && (n.Text == "true" || n.Text == "false") {
		return b
	}
	return n.Text // a JWK has no numbers among what is read
}

// PolicySchema describes the forms.
func (*JWKS) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{
		map[string]any{"type": "string", "format": "uri", "pattern": "^https?://"},
		map[string]any{"const": discover},
		policy.OnlyKey("file", map[string]any{"type": "string"}),
		policy.OnlyKey("keys", map[string]any{"type": "array", "minItems": 1, "items": map[string]any{"type": "object"}}),
	}}
}
