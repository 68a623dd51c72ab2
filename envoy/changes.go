package envoy

import (
	"cmp"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
)

// ResourceChange is a resource that differs between two policies of a gateway: one of the two is nil where it came or went.
type ResourceChange struct{ Before, After *Resource }

// Either is the resource, the newer one where there are two.
func (c ResourceChange) Either() *Resource { return cmp.Or(c.After, c.Before) }

// Drains tells whether Envoy closes connections for it: those of a listener that goes or becomes another. All else changes
// under the requests that are in progress.
func (c ResourceChange) Drains() bool {
	return c.Before != nil && c.Before.Type == resource.ListenerType
}

// Changes compares the resources of a gateway, which are sorted by type and name as [Translate] gives them.
func Changes(before, after []Resource) []ResourceChange {
	var all []ResourceChange
	for len(before) > 0 || len(after) > 0 {
		var c ResourceChange
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = ByTypeAndName(before[0], after[0])
		}
		if order <= 0 {
			c.Before, before = &before[0], before[1:]
		}
		if order >= 0 {
			c.After, after = &after[0], after[1:]
		}
		if order != 0 || c.Before.Message != c.After.Message && !proto.Equal(c.Before.Message, c.After.Message) {
			all = append(all, c)
		}
	}
	return all
}
