// Package delivery has a new policy go to some Envoys of a gateway before the others: the key delivery. Nothing of it comes to
// Envoy; the control room reads it when it is about to publish.
package delivery

import (
	_ "embed"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key delivery.
var Kind = policy.Define[Setting]("delivery", policy.InGateway, doc)

// Setting is what stands under delivery.
type Setting struct {
	Canary Share            `policy:"canary,required" doc:"how many Envoys get a change first: a number, or a share of those that are connected"`
	Hold   *policy.Duration `policy:"hold" doc:"how long all of them have to hold it without a break before the others get it, 1s to 1h; default: 30s"`
}

const (
	defaultHold = 30 * time.Second
	minHold     = time.Second
	maxHold     = time.Hour
	maxCanaries = 500
)

// Check bounds the hold.
func (s *Setting) Check(c *policy.Check) {
	if s.Hold == nil {
		return
	}
	if d := time.Duration(*s.Hold); d < minHold || d > maxHold {
		c.Errorf("hold", "want 1s to 1h")
	}
}

// Canaries is how many of so many Envoys get a change first: one at least, where there is one.
func (s *Setting) Canaries(of int) int {
	n := s.Canary.count
	if s.Canary.share > 0 {
		n = int(math.Ceil(float64(of) * float64(s.Canary.share) / 100))
	}
	return min(max(n, 1), maxCanaries, of)
}

// Holds is how long they have to hold it.
func (s *Setting) Holds() time.Duration {
	return time.Duration(policy.Or(s.Hold, policy.Duration(defaultHold)))
}

// Share is a number of Envoys, or a share of them.
type Share struct {
	count int
	share policy.Percent // 0: it is a number
}

// DecodePolicy reads either form.
func (s *Share) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar && strings.HasSuffix(n.Text, "%") {
		if d.Decode(n, &s.share) && s.share == 0 {
			d.Errorf(n, "want more than 0%%").Hintf("leave delivery out to have every change go to all Envoys at once")
		}
		return
	}
	count, err := strconv.Atoi(n.Text)
	switch {
	case n.Kind != policy.Scalar || n.Quoted || err != nil:
		d.Errorf(n, "want a number of Envoys such as 1, or a share of them such as 10%%")
	case count < 1 || count > maxCanaries:
		d.Errorf(n, "want 1 to %d Envoys, got %d", maxCanaries, count)
	default:
		s.count = count
	}
}

// PolicySchema describes both forms.
func (s *Share) PolicySchema(schemas *policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "integer", "minimum": 1, "maximum": maxCanaries},
		s.share.PolicySchema(schemas),
	}}
}
