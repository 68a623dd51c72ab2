// Package ratelimit is the key rateLimit: how many requests a gateway, a service or a route takes, and by whom they are
// counted. envoy asks it for the callout to the companion, control for the limits that the companion counts ([Limits]):
// both are made of the same [ratelimit.Limit], so that the descriptor that Envoy sends is the one that is read. Limits
// that each Envoy counts by itself are Envoy's alone.
package ratelimit

import (
	_ "embed"
	"fmt"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

//go:embed doc.md
var doc string

// Kind is the key rateLimit. A nearer layer's limits stand beside those of the outer ones.
var Kind = policy.Define[Setting]("rateLimit", policy.Layers, doc).Stack()

// Setting is what stands under rateLimit: one limit, or a list of them.
type Setting struct {
	Limits []Limit
	listed bool
	path   string // of a limit that stands within another setting
}

// DecodePolicy reads one limit or a list.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	switch n.Kind {
	case policy.List:
		s.listed = true
		d.Decode(n, &s.Limits)
	case policy.Map:
		s.Limits = make([]Limit, 1)
		d.Decode(n, &s.Limits[0])
	case policy.Scalar:
		d.Errorf(n, "want a limit or a list of limits, got %q", n.Text).Hintf("write {rate: 100/minute}, or off")
	default:
		d.Errorf(n, "want a limit or a list of limits, got nothing").Hintf("write {rate: 100/minute}, or off")
	}
}

// PolicySchema describes both forms.
func (*Setting) PolicySchema(s *policy.Schemas) map[string]any {
	one := s.Of(new(Limit))
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "items": one}}}
}

// Replaces tells whether the limits of outer layers don't hold.
func (s *Setting) Replaces() bool {
	for _, l := range s.Limits {
		if l.Replace {
			return true
		}
	}
	return false
}

// LimitIDs names the limits for a callout that counts them; layer is the one that wrote the setting.
func (s *Setting) LimitIDs(layer policy.Layer) []string {
	var ids []string
	for i := range s.Limits {
		if !s.Limits[i].perEnvoy() {
			ids = append(ids, s.limit(layer, i).ID())
		}
	}
	return ids
}

// Claims are those that Envoy has to be told by auth: what it counts by itself, or gives back.
func (s *Setting) Claims() []string {
	var claims []string
	for _, l := range s.Limits {
		for _, by := range l.By {
			if by.Kind == ratelimit.Claim && (l.perEnvoy() || l.Refund != nil) {
				claims = append(claims, by.Name)
			}
		}
	}
	return claims
}

// at is the path of a key of a limit, relative to the setting.
func (s *Setting) at(i int, key string) string {
	switch {
	case s.path != "" && key != "":
		return s.path + "." + key
	case s.path != "":
		return s.path
	case !s.listed:
		return key
	case key == "":
		return fmt.Sprintf("[%d]", i)
	}
	return fmt.Sprintf("[%d].%s", i, key)
}
