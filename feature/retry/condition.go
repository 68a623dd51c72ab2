package retry

import (
	"slices"
	"strconv"
	"strings"

	"github.com/legation/legation/policy"
)

// Condition is a failure that is tried again: one of Envoy's names, or a status code.
type Condition struct {
	Name   string
	Status uint32 // 0 for a name
}

// The names of Envoy's that stand for themselves; those that take further fields are left out.
var conditions = slices.Concat(unseen, []string{"reset", "5xx", "gateway-error", "retriable-4xx"}, statuses)

var (
	// unseen is the conditions under which the backend has not seen the request.
	unseen = []string{"connect-failure", "refused-stream", "reset-before-request"}
	// statuses is those of gRPC.
	statuses = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
)

// DecodePolicy reads a name or a status code.
func (r *Condition) DecodePolicy(d *policy.Decode, n *policy.Node) {
	status, err := strconv.ParseUint(n.Text, 10, 32)
	switch {
	case n.Kind != policy.Scalar:
		d.Errorf(n, "want a condition such as connect-failure, or a status code")
	case slices.Contains(conditions, n.Text):
		r.Name = n.Text
	case err == nil && status >= 400 && status <= 599:
		r.Status = uint32(status)
	case err == nil:
		d.Errorf(n, "%d is not the status of a failure: want 400 to 599", status)
	case n.Text == "retriable-status-codes":
		d.Errorf(n, "status codes are listed themselves").Hintf("write retryOn: [connect-failure, 503]")
	default:
		d.Errorf(n, "%q is not a condition", n.Text).Hintf("want a status code such as 503, or a condition such as %s", strings.Join(conditions[:5], ", "))
	}
}

// PolicySchema describes a name or a status code.
func (*Condition) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"enum": conditions},
		map[string]any{"type": "integer", "minimum": 400, "maximum": 599},
	}}
}

func (s *Setting) conditions() (names []string, codes []uint32) {
	if len(s.RetryOn) == 0 {
		return []string{"connect-failure", "refused-stream"}, nil // safe for all methods
	}
	for _, r := range s.RetryOn {
		if r.Status > 0 {
			codes = append(codes, r.Status)
		} else {
			names = append(names, r.Name)
		}
	}
	if len(codes) > 0 {
		names = append(names, "retriable-status-codes")
	}
	return names, codes
}
