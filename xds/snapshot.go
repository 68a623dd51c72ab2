package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Snapshot is everything one node group is served; immutable.
type Snapshot struct {
	revision string
	sets     map[string]*set // by type URL
}

// NewSnapshot puts the resources together. Two of the same type and name are an error, as is one without a body.
func NewSnapshot(revision string, resources []Resource) (*Snapshot, error) {
	if revision == "" {
		return nil, errors.New("snapshot: no revision")
	}
	var errs []error
	s := &Snapshot{revision: revision, sets: map[string]*set{}}
	for _, r := range resources {
		if err := r.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		of := s.sets[r.Type]
		if of == nil {
			of = &set{byName: map[string]*entry{}}
			s.sets[r.Type] = of
		}
		if first, ok := of.byName[r.Name]; ok {
			errs = append(errs, fmt.Errorf("%s %q is there twice (%s and %s)", kindOf(r.Type).short, r.Name, first.Origin, r.Origin))
			continue
		}
		of.byName[r.Name] = newEntry(r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, of := range s.sets {
		of.seal()
	}
	return s, nil
}

// Len is the number of resources of a type URL.
func (s *Snapshot) Len(url string) int { return len(s.set(url).sorted) }

// Version is the content hash over the names and versions of a type URL. It is the version of the state of the world.
func (s *Snapshot) Version(url string) string { return s.set(url).version }

func (s *Snapshot) size() (n int) {
	for _, of := range s.sets {
		n += len(of.sorted)
	}
	return n
}

func (s *Snapshot) set(url string) *set {
	if of, ok := s.sets[url]; ok {
		return of
	}
	return nothing
}

// entry is a resource as the streams send it.
type entry struct {
	Resource
	delta *discoveryv3.Resource // no TTL, ever: Envoy 1.40 crashes on an expired route or endpoint
}

func newEntry(r Resource) *entry {
	return &entry{Resource: r, delta: &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Body}}
}

// set is the resources of one type, immutable once sealed.
type set struct {
	byName  map[string]*entry
	sorted  []*entry
	version string

	mu    sync.Mutex
	diffs map[*set]diff // computed once per predecessor, for all streams that stand there
}

// nothing is the set of a type that a snapshot does not have.
var nothing = &set{version: versionOf(nil)}

func (s *set) seal() {
	s.sorted = slices.SortedFunc(maps.Values(s.byName), byName)
	s.version = versionOf(s.sorted)
}

// get may be called on a nil set, which has nothing.
func (s *set) get(name string) *entry {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

// diff leads from one set to another. Its slices are shared: nobody changes them.
type diff struct {
	upserts []*entry // new or changed, as they are now
	gone    []*entry // no longer there, as they were
}

// since is what has changed from the set before, which may be nil.
func (s *set) since(before *set) diff {
	switch {
	case before == s:
		return diff{}
	case before == nil:
		return diff{upserts: s.sorted}
	case before.version == s.version:
		return diff{}
	case len(s.sorted) == 0:
		return diff{gone: before.sorted}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.diffs[before]
	if !ok {
		d = compare(before, s)
		if s.diffs == nil {
			s.diffs = map[*set]diff{}
		}
		s.diffs[before] = d
	}
	return d
}

func compare(before, after *set) diff {
	var d diff
	for _, e := range after.sorted {
		if old := before.byName[e.Name]; old == nil || old.Version != e.Version {
			d.upserts = append(d.upserts, e)
		}
	}
	for _, e := range before.sorted {
		if after.byName[e.Name] == nil {
			d.gone = append(d.gone, e)
		}
	}
	return d
}

// versionOf is the content hash of sorted entries.
func versionOf(sorted []*entry) string {
	parts := make([]string, 0, 2*len(sorted))
	for _, e := range sorted {
		parts = append(parts, e.Name, e.Version)
	}
	return hash(parts...)
}

func byName(a, b *entry) int { return cmp.Compare(a.Name, b.Name) }
