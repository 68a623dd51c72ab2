package patch

import (
	"slices"
	"strconv"
	"strings"

	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// Envoy's own rules for its messages, as the generated code tells what breaks them.
type (
	checked   interface{ ValidateAll() error }
	several   interface{ AllErrors() []error }
	violation interface {
		Field() string // "MaxTokens" or "Thresholds[0]"
		Reason() string
		Cause() error // what is wrong inside the field; nil where the field itself is
	}
)

// violations reports what Envoy would refuse, where it was written. What is not written is looked for once the patch is
// laid over ours, which may have it; but a filter has to be complete by itself.
func (r *reader) violations(n *policy.Node, m proto.Message) {
	if c, ok := m.(checked); ok {
		r.violated(n, c.ValidateAll(), true)
	}
}

func (r *reader) violated(n *policy.Node, err error, written bool) {
	if all, ok := err.(several); ok {
		for _, one := range all.AllErrors() {
			r.violated(n, one, written)
		}
		return
	}
	v, ok := err.(violation)
	if !ok {
		return
	}
	below, found := writtenAt(n, v.Field())
	written = written && found
	switch {
	case v.Cause() != nil:
		r.violated(below, v.Cause(), written)
	case written:
		r.fail(below, "Envoy would refuse this: %s", v.Reason())
	case r.of.whole():
		r.fail(n, "Envoy would refuse this: %s: %s", v.Field(), v.Reason())
	}
}

// whole tells that there is nothing of ours that the message is laid over.
func (m *message) whole() bool { return m.name == "" }

// writtenAt finds what was written for a field by its name in Go; n itself where nothing was.
func writtenAt(n *policy.Node, field string) (*policy.Node, bool) {
	name, index, list := strings.Cut(strings.TrimSuffix(field, "]"), "[")
	if n.Kind != policy.Map {
		return n, false
	}
	i := slices.IndexFunc(n.Keys, func(k *policy.Node) bool { return strings.EqualFold(strings.ReplaceAll(k.Text, "_", ""), name) })
	if i < 0 {
		return n, false
	}
	below := n.Items[i]
	if at, err := strconv.Atoi(index); list && err == nil && below.Kind == policy.List && at < len(below.Items) {
		below = below.Items[at]
	}
	return below, true
}
