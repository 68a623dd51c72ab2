package trial

import (
	"time"

	"github.com/legation/legation/policy"
)

// upstreams is how samples behave, by the services that they stand for.
type upstreams map[string]behaviours

// behaviours follow each other: each holds for so many requests.
type behaviours []*Behaviour

// Behaviour is how a sample answers.
type Behaviour struct {
	Status  *uint32           `policy:"status" doc:"the status; default: 200"`
	Headers map[string]values `policy:"headers" doc:"headers of the answer"`
	Body    *string           `policy:"body" doc:"the body; default: what was received, as JSON"`
	Delay   policy.Duration   `policy:"delay" doc:"how long it takes until the answer, at most 1m"`
	Reset   bool              `policy:"reset" doc:"whether the connection is cut in the place of an answer"`
	Down    bool              `policy:"down" doc:"whether nobody listens: connections are refused"`
	Times   *uint32           `policy:"times" doc:"for how many requests this holds; then what follows in the list does, or all is well again; default: for ever"`
}

// maxDelay is how long a sample may take.
const maxDelay = policy.Duration(time.Minute)

// DecodePolicy reads a behaviour that is possible.
func (b *Behaviour) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if !d.Decode(n, b) {
		return
	}
	switch {
	case b.Status != nil && (*b.Status < 200 || *b.Status > 599):
		d.Errorf(n.Get("status"), "want a status from 200 to 599, got %d", *b.Status)
	case b.Delay > maxDelay:
		d.Errorf(n.Get("delay"), "want at most %s, got %s", maxDelay, b.Delay)
	case b.Times != nil && *b.Times == 0:
		d.Errorf(n.Get("times"), "want at least 1")
	case b.Down && (len(n.Keys) > 1):
		d.Errorf(n, "who is down answers nothing").Hintf("write {down: true} alone")
	case b.Reset && (b.Status != nil || b.Body != nil || b.Headers != nil):
		d.Errorf(n.Get("reset"), "stands beside an answer").Hintf("keep one of the two")
	}
}

// DecodePolicy reads one behaviour, or a list of them.
func (b *behaviours) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind != policy.List {
		*b = make(behaviours, 1)
		d.Decode(n, &(*b)[0])
		return
	}
	d.Decode(n, (*[]*Behaviour)(b))
	for i, one := range *b {
		if one != nil && (one.Times == nil && i+1 < len(*b) || one.Down && len(*b) > 1) {
			d.Errorf(n.Items[i], "holds for ever, and what follows never").Hintf("write times: 2")
		}
	}
}

// PolicySchema describes both forms.
func (b *behaviours) PolicySchema(s *policy.Schemas) map[string]any {
	one := s.Of(new(Behaviour))
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "items": one}}}
}
