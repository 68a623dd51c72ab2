package xds

import (
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Stage is a snapshot that some Envoys of a group are served, while the others are served the group's. They go to it and
// back as they go to any other: make before break.
type Stage struct {
	Snapshot *Snapshot
	Nodes    []string // the node ids that get it, whether or not they are connected
}

// serving is what a group is served. It never changes.
type serving struct {
	snapshot *Snapshot
	staged   *Snapshot           // nil: there is none
	nodes    map[string]struct{} // that get the staged one
	clusters *set                // of both
}

func newServing(s *Snapshot, stage Stage) *serving {
	v := &serving{snapshot: s, clusters: s.set(resource.ClusterType)}
	if stage.Snapshot == nil || len(stage.Nodes) == 0 {
		return v
	}
	v.staged, v.nodes = stage.Snapshot, make(map[string]struct{}, len(stage.Nodes))
	for _, id := range stage.Nodes {
		v.nodes[id] = struct{}{}
	}
	v.clusters = v.clusters.keeping(stage.Snapshot.set(resource.ClusterType).sorted)
	return v
}

// to is what an Envoy of that node id is served; nil when there is nothing.
func (v *serving) to(id string) *Snapshot {
	switch {
	case v == nil:
		return nil
	case v.staged != nil && v.has(id):
		return v.staged
	default:
		return v.snapshot
	}
}

func (v *serving) has(id string) bool {
	_, ok := v.nodes[id]
	return ok
}

// serves is what an Envoy of that node id is served now; nil: it is held.
func (g *group) serves(id string) *Snapshot { return g.served.Load().to(id) }

// staged tells whether the snapshot is the staged one.
func (g *group) staged(s *Snapshot) bool {
	v := g.served.Load()
	return s != nil && v != nil && v.staged == s
}

// Follow is s, but for the resources of these types that changed between two other snapshots and that s has as the first of
// them had: these are as in the second.
func (s *Snapshot) Follow(before, after *Snapshot, urls ...string) *Snapshot {
	next := &Snapshot{revision: s.revision, sets: make(map[string]*set, len(s.sets))}
	for url, of := range s.sets {
		if next.sets[url] = of; slices.Contains(urls, url) {
			next.sets[url] = of.follow(after.set(url).since(before.set(url)), before.set(url))
		}
	}
	return next
}

func (s *set) follow(d diff, before *set) *set {
	var sorted []*entry
	total := s.sum
	for _, now := range d.upserts {
		old := before.get(now.Name)
		i, there := slices.BinarySearchFunc(s.sorted, now, byName)
		if old == nil || !there || s.sorted[i].Version != old.Version {
			continue
		}
		if sorted == nil {
			sorted = slices.Clone(s.sorted)
		}
		total = total.minus(sorted[i].mark).plus(now.mark)
		sorted[i] = now
	}
	if sorted == nil {
		return s
	}
	return newSet(sorted, total)
}
