package control

import (
	"bytes"
	"fmt"
	"maps"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/xds"
)

// encoder marshals the resources of the policies that are served one after the other: what both have, by the pointers of
// the messages, only once.
type encoder struct {
	last   map[string][]encoded // by gateway, sorted by type and name
	served map[string]*xds.Snapshot
	labels labels
}

// labels are what names the revision to the Envoys. Those of one revision are made once.
type labels struct {
	revision string
	all      []xds.Resource
}

// encoded is a resource, and what it is to the server.
type encoded struct {
	envoy.Resource
	served xds.Resource
}

// snapshots makes the snapshot of every node group.
func (e *encoder) snapshots(c *Compiled) (map[string]*xds.Snapshot, error) {
	if err := e.labels.name(c.Model.Revision); err != nil {
		return nil, err
	}
	groups := make(map[string]*xds.Snapshot, len(c.Resources))
	next := make(map[string][]encoded, len(c.Resources))
	for group, list := range c.Resources {
		all, err := encode(list, e.last[group])
		if err != nil {
			return nil, fmt.Errorf("gateway %s: %w", group, err)
		}
		resources := make([]xds.Resource, len(all), len(all)+len(e.labels.all))
		for i, r := range all {
			resources[i] = r.served
		}
		resources = append(resources, e.labels.all...)
		if groups[group], err = e.served[group].Next(c.Model.Revision, resources); err != nil {
			return nil, fmt.Errorf("gateway %s: %w", group, err)
		}
		next[group] = all
	}
	e.last, e.served = next, maps.Clone(groups)
	return groups, nil
}

// name makes the labels of a revision. They join a snapshot here, and are no part of what is compiled, so that everything
// that compares policies by what they compile to finds the same in revisions that differ elsewhere.
func (l *labels) name(revision string) error {
	if l.revision == revision {
		return nil
	}
	var all []xds.Resource
	for _, r := range envoy.Labels(revision) {
		served, err := xds.NewResource(r.Name, r.Message, "", "")
		if err != nil {
			return err
		}
		all = append(all, served)
	}
	l.revision, l.all = revision, all
	return nil
}

// encode goes through both lists side by side.
func encode(list []envoy.Resource, before []encoded) ([]encoded, error) {
	all := make([]encoded, 0, len(list))
	for _, r := range list {
		for len(before) > 0 && envoy.ByTypeAndName(before[0].Resource, r) < 0 {
			before = before[1:]
		}
		var old encoded
		if len(before) > 0 && envoy.ByTypeAndName(before[0].Resource, r) == 0 {
			old, before = before[0], before[1:]
		}
		one, err := old.next(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Pos, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// next is the resource that takes the place of an old one, which is zero where there was none.
func (old encoded) next(r envoy.Resource) (encoded, error) {
	switch {
	case old.Resource == r:
		return old, nil
	case old.Message == r.Message && old.Salt == r.Salt: // it stands on another line
		old.Resource, old.served.Origin = r, r.Pos.String()
		return old, nil
	}
	value, err := envoy.Marshal(r.Message, old.Message, old.served.Body.GetValue())
	if err != nil {
		return encoded{}, fmt.Errorf("marshal %s: %w", r.Name, err)
	}
	served, err := xds.NewEncodedResource(r.Name, r.Message, value, r.Pos.String(), r.Salt)
	if err != nil {
		return encoded{}, err
	}
	if bytes.Equal(value, old.served.Body.GetValue()) {
		served.Body = old.served.Body // the very same, for those who compare pointers
	}
	return encoded{r, served}, nil
}
