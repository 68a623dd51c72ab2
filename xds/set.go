package xds

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// entry is a resource as the streams send it. It is made once, by [NewResource], and shared by all snapshots, groups and
// streams.
type entry struct {
	Resource
	mark sum // of its name and version

	// since is when this process first had it under this version, in Unix nanoseconds.
	since atomic.Int64

	// wire is the resource as a field of a delta response. Its tail, the body as field 2, happens to be that field of a
	// response in the state of the world as well. There is no TTL, ever: Envoy 1.40 crashes on an expired route or endpoint.
	wire []byte
	tail int
}

// The fields of envoy.service.discovery.v3.Resource that are used, and the field of either response that it stands in.
const (
	fieldVersion   = 1
	fieldBody      = 2
	fieldName      = 3
	fieldResources = 2
	fieldTypeURL   = 1 // of google.protobuf.Any
	fieldValue     = 2
)

// newEntry lays out the resource.
func newEntry(r Resource) *entry {
	value := r.Body.GetValue()
	body := sizeText(len(r.Type)) + sizeText(len(value))
	inner := sizeText(len(r.Name)) + sizeText(len(r.Version)) + sizeText(body)
	b := make([]byte, 0, 1+protowire.SizeBytes(inner))
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldResources, protowire.BytesType), uint64(inner))
	b = appendText(b, fieldName, r.Name)
	b = appendText(b, fieldVersion, r.Version)
	tail := len(b)
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldBody, protowire.BytesType), uint64(body))
	b = appendText(b, fieldTypeURL, r.Type)
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldValue, protowire.BytesType), value)
	e := &entry{Resource: r, mark: markOf(r.Name, r.Version), wire: b, tail: tail}
	e.since.Store(time.Now().UnixNano())
	return e
}

// value is the bytes of the message, so many, within the layout.
func (e *entry) value(size int) []byte { return e.wire[len(e.wire)-size : len(e.wire) : len(e.wire)] }

// sizeText is the size of a field with a number below 16 and so many bytes.
func sizeText(n int) int { return 1 + protowire.SizeBytes(n) }

// sum adds up the hashes of the members of a set. The order does not count, and a member that comes or goes costs one
// addition however many there are.
type sum [2]uint64

func (s sum) plus(o sum) sum  { return sum{s[0] + o[0], s[1] + o[1]} }
func (s sum) minus(o sum) sum { return sum{s[0] - o[0], s[1] - o[1]} }

// markOf is the same on every replica.
func markOf(name, version string) sum {
	b := make([]byte, 0, 128)
	b = append(append(protowire.AppendVarint(b, uint64(len(name))), name...), version...)
	h := sha256.Sum256(b)
	return sum{binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])}
}

func sumOf(entries []*entry) (s sum) {
	for _, e := range entries {
		s = s.plus(e.mark)
	}
	return s
}

// set is resources of one type, immutable. Each is a state that an Envoy can be in: what a snapshot has, or what an Envoy
// said that it has, or what it still has on the way from one to the other.
type set struct {
	sorted  []*entry // by name
	sum     sum
	version string // content hash
}

// nothing is the set of a type that a snapshot does not have.
var nothing = newSet(nil, sum{})

func newSet(sorted []*entry, total sum) *set {
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], total[0])
	binary.BigEndian.PutUint64(b[8:], total[1])
	binary.BigEndian.PutUint64(b[16:], uint64(len(sorted)))
	h := sha256.Sum256(b[:])
	return &set{sorted: sorted, sum: total, version: hex.EncodeToString(h[:8])}
}

// get may be called on a nil set, which has nothing.
func (s *set) get(name string) *entry {
	if s == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.sorted, name, func(e *entry, name string) int { return cmp.Compare(e.Name, name) })
	if !ok {
		return nil
	}
	return s.sorted[i]
}

// pick lists the entries with those sorted names, and the names that there is no entry for.
func (s *set) pick(names []string) (there []*entry, absent []string) {
	if len(names)*16 < len(s.sorted) {
		for _, name := range names {
			if e := s.get(name); e != nil {
				there = append(there, e)
			} else {
				absent = append(absent, name)
			}
		}
		return there, absent
	}
	rest := s.sorted
	there = make([]*entry, 0, min(len(names), len(rest)))
	for _, name := range names {
		for len(rest) > 0 && rest[0].Name < name {
			rest = rest[1:]
		}
		if len(rest) > 0 && rest[0].Name == name {
			there = append(there, rest[0])
		} else {
			absent = append(absent, name)
		}
	}
	return there, absent
}

// diff leads from one set to another. Its slices are shared: nobody changes them.
type diff struct {
	upserts []*entry // new or changed, as they are now
	gone    []*entry // no longer there, as they were
}

// since is what has changed from the set before, which may be nil. What both have costs a comparison of pointers.
func (s *set) since(before *set) diff {
	switch {
	case before == s:
		return diff{}
	case before == nil:
		return diff{upserts: s.sorted}
	case before.version == s.version:
		return diff{}
	}
	var d diff
	merge(before.sorted, s.sorted, func(old, now *entry) {
		switch {
		case now == nil:
			d.gone = append(d.gone, old)
		case old == nil || old.Version != now.Version:
			d.upserts = append(d.upserts, now)
		}
	})
	return d
}

// keeping is s with what it lacks of the entries, which are sorted.
func (s *set) keeping(entries []*entry) *set {
	sorted, total := make([]*entry, 0, len(s.sorted)+len(entries)), s.sum
	rest := entries
	for _, e := range s.sorted {
		for len(rest) > 0 && rest[0].Name < e.Name {
			sorted, total = append(sorted, rest[0]), total.plus(rest[0].mark)
			rest = rest[1:]
		}
		if len(rest) > 0 && rest[0].Name == e.Name {
			rest = rest[1:]
		}
		sorted = append(sorted, e)
	}
	for _, e := range rest {
		sorted, total = append(sorted, e), total.plus(e.mark)
	}
	return newSet(sorted, total)
}

// merge calls visit with each name's entry in both lists, where they are not the same one; nil stands for none.
func merge(before, after []*entry, visit func(old, now *entry)) {
	for len(before) > 0 && len(after) > 0 {
		old, now := before[0], after[0]
		if old == now {
			before, after = before[1:], after[1:]
			continue
		}
		switch order := byName(old, now); {
		case order < 0:
			visit(old, nil)
			before = before[1:]
		case order > 0:
			visit(nil, now)
			after = after[1:]
		default:
			visit(old, now)
			before, after = before[1:], after[1:]
		}
	}
	for _, old := range before {
		visit(old, nil)
	}
	for _, now := range after {
		visit(nil, now)
	}
}

func byName(a, b *entry) int { return cmp.Compare(a.Name, b.Name) }
