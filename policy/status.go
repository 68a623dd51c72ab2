package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Statuses is a list of statuses that answers may have.
type Statuses []Status

// Status is a class of statuses or one of them, as written: 5xx, 429.
type Status string

// Bounds of a status; 1xx is no answer.
const (
	firstStatus = 200
	lastStatus  = 599
)

// DecodePolicy reads a class or a code.
func (s *Status) DecodePolicy(d *Decode, n *Node) {
	code, err := strconv.ParseUint(n.Text, 10, 16)
	class := len(n.Text) == 3 && strings.HasSuffix(n.Text, "xx") && n.Text[0] >= '2' && n.Text[0] <= '5'
	if n.Kind != Scalar || !class && (err != nil || code < firstStatus || code > lastStatus) {
		d.Errorf(n, "want a class of statuses such as 5xx, or a status from %d to %d, got %s", firstStatus, lastStatus, n.shape())
		return
	}
	*s = Status(n.Text)
}

// Range is the statuses that are meant, both ends included.
func (s Status) Range() (first, last int) {
	if class, ok := strings.CutSuffix(string(s), "xx"); ok {
		n, _ := strconv.Atoi(class)
		return 100 * n, 100*n + 99
	}
	n, _ := strconv.Atoi(string(s))
	return n, n
}

// PolicySchema describes both forms.
func (*Status) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "string", "pattern": "^([2-5]xx|[2-5][0-9][0-9])$"},
		map[string]any{"type": "integer", "minimum": firstStatus, "maximum": lastStatus},
	}}
}

// Check tells what is wrong with the list, which stands at path; nil is one that isn't written.
func (s Statuses) Check(c *Check, path string) {
	if s != nil && len(s) == 0 {
		c.Errorf(path, "name at least one status").Hintf("write [5xx]")
	}
	for i, one := range s {
		if slices.Contains(s[:i], one) {
			c.Errorf(fmt.Sprintf("%s[%d]", path, i), "%s stands here twice", one).Hintf("remove one of the two")
		}
	}
}
