package ratelimit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Refund is the statuses of answers whose request is given back.
type Refund []Status

// Status is a class of statuses or one of them, as written: 5xx, 429.
type Status string

// Values that a status may have; 1xx is no answer.
const (
	firstStatus = 200
	lastStatus  = 599
)

// DecodePolicy reads a class or a code.
func (s *Status) DecodePolicy(d *policy.Decode, n *policy.Node) {
	code, err := strconv.ParseUint(n.Text, 10, 16)
	class := len(n.Text) == 3 && strings.HasSuffix(n.Text, "xx") && n.Text[0] >= '2' && n.Text[0] <= '5'
	if n.Kind != policy.Scalar || !class && (err != nil || code < firstStatus || code > lastStatus) {
		d.Errorf(n, "want a class of statuses such as 5xx, or a status from %d to %d, got %.64q", firstStatus, lastStatus, n.Text)
		return
	}
	*s = Status(n.Text)
}

// PolicySchema describes both forms.
func (*Status) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "string", "pattern": "^([2-5]xx|[2-5][0-9][0-9])$"},
		map[string]any{"type": "integer", "minimum": firstStatus, "maximum": lastStatus},
	}}
}

// condition is the statuses in CEL.
func (r Refund) condition() string {
	var either, codes []string
	for _, s := range r {
		if first, class := strings.CutSuffix(string(s), "xx"); class {
			either = append(either, fmt.Sprintf("response.code >= %[1]s00 && response.code <= %[1]s99", first))
			continue
		}
		codes = append(codes, string(s))
	}
	if len(codes) > 0 {
		either = append(either, "response.code in ["+strings.Join(codes, ", ")+"]")
	}
	return strings.Join(either, " || ")
}

func (r Refund) check(c *policy.Check, at string) {
	for i, s := range r {
		if slices.Contains(r[:i], s) {
			c.Errorf(fmt.Sprintf("%s[%d]", at, i), "%s stands here twice", s).Hintf("remove one of the two")
		}
	}
}

// uncounted is what Envoy says of requests that limits, or auth before them, have refused: nothing was counted for them.
var uncounted = []string{"request_rate_limited", "rate_limiter_error"}

// refund gives a hit back once the answer is there, when its status is one of the list. Envoy calls the companion for the
// descriptors that there are: for other statuses the first entry fails, and with it the descriptor, so that there is no call.
func refund(l counted, route string, asked bool) *routev3.RateLimit {
	not := append(slices.Clone(uncounted), "ext_authz_denied", "ext_authz_error")
	if asked {
		not = append(uncounted[:len(uncounted):len(uncounted)], "local_rate_limited") // with auth that comes after the count
	}
	condition := fmt.Sprintf("(%s) && !(response.code_details in ['%s'])", l.written.Refund.condition(), strings.Join(not, "', '"))
	d := &routev3.RateLimit{
		Actions:           []*action{expression(limitKey, fmt.Sprintf("{true: %q}[%s]", l.ID(), condition), false)},
		ApplyOnStreamDone: true,
		HitsAddend:        &routev3.RateLimit_HitsAddend{Number: wrapperspb.UInt64(1), IsNegativeHits: true},
	}
	for _, by := range l.By {
		d.Actions = append(d.Actions, refundEntry(by, route))
	}
	return d
}
