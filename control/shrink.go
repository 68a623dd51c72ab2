package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Shrink is a change that takes away more than half of what is served: more likely a mistake, such as the wrong directory
// or a copy that was cut short, than a wish.
type Shrink struct {
	Revision  string `json:"revision"`            // content hash of what was refused
	Listeners Loss   `json:"listeners,omitzero"`  // where it is more than half of them
	Clusters  Loss   `json:"clusters,omitzero"`   // the same
	Cure      string `json:"cure"`                // what to do where it is meant
	Empty     bool   `json:"noGateway,omitempty"` // no gateway is left at all
}

// Loss is what would go away of one kind.
type Loss struct {
	Of    int      `json:"of"`   // so many are served
	Gone  int      `json:"gone"` // so many of them would not be any more
	Names []string `json:"names"`
}

// shownLosses is how many names are listed.
const shownLosses = 20

func (s *Shrink) Error() string {
	if s.Empty {
		return "the policy has no gateway left: what was served before stays; " + s.Cure
	}
	var parts []string
	for _, kind := range []struct {
		what string
		Loss
	}{{"listeners", s.Listeners}, {"clusters", s.Clusters}} {
		if kind.Gone == 0 {
			continue
		}
		names := strings.Join(first(kind.Names, 5), ", ")
		if kind.Gone > 5 {
			names += ", …"
		}
		parts = append(parts, fmt.Sprintf("%d of %d %s (%s)", kind.Gone, kind.Of, kind.what, names))
	}
	return "it takes away " + strings.Join(parts, " and ") + ", more than half: what was served before stays; " + s.Cure
}

// shrinks tells what a policy takes away of the one before, where that is too much to be let through unasked.
func shrinks(before, after *Compiled) *Shrink {
	s := &Shrink{
		Revision:  after.Model.Revision,
		Listeners: loss(before, after, resource.ListenerType),
		Clusters:  loss(before, after, resource.ClusterType),
	}
	if s.Listeners.Gone == 0 && s.Clusters.Gone == 0 {
		return nil
	}
	return s
}

// loss is what goes away of one kind when that is more than half. Two at least: a small policy may well lose its only
// cluster, or have its only listener renamed; but not be left without any listener.
func loss(before, after *Compiled, kind string) Loss {
	was, is := namesOfKind(before, kind), namesOfKind(after, kind)
	var gone []string
	for _, name := range was {
		if _, found := slices.BinarySearch(is, name); !found {
			gone = append(gone, name)
		}
	}
	if 2*len(gone) <= len(was) || len(gone) < 2 && (len(is) > 0 || kind != resource.ListenerType) {
		return Loss{}
	}
	return Loss{Of: len(was), Gone: len(gone), Names: first(gone, shownLosses)}
}

// namesOfKind is the names of the resources of a kind, with their gateways, sorted.
func namesOfKind(c *Compiled, kind string) []string {
	var all []string
	for gateway, resources := range c.Resources {
		for _, r := range resources {
			if r.Type == kind {
				all = append(all, gateway+"/"+r.Name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// refusal tells why a policy that could be served is not: it takes away too much. What was approved is let through.
func (c *Controller) refusal(next *Compiled) error {
	c.shrink = nil
	s := c.tooSmall(next)
	if s == nil || c.o.AllowShrink && !s.Empty || c.approved == next.Model.Revision {
		return nil
	}
	s.Cure = "if it is meant, say legation push DIR --force with this very directory, or serve with --allow-shrink"
	if s.Empty {
		s.Cure = "if it is meant, say legation push DIR --force with this very directory"
	}
	c.shrink = s
	return s
}

// tooSmall is what a policy takes away of the one that is served, where it is too much.
func (c *Controller) tooSmall(next *Compiled) *Shrink {
	if c.emptied(next.Model) {
		return &Shrink{Revision: next.Model.Revision, Empty: true}
	}
	served := c.newest()
	if served == nil {
		return nil
	}
	return shrinks(served, next)
}

// shrinkOf finds the refusal that an error is.
func shrinkOf(err error) *Shrink {
	s, _ := errors.AsType[*Shrink](err)
	return s
}
