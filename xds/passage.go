package xds

import (
	"slices"
	"sync"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// way is what leads a stream from where it stands to the snapshot. Streams with the same way are sent the same bytes.
type way struct {
	url      string
	protocol Protocol
	from, to *set
	names    *names
	asked    *names // of the names, those that are to be answered whether or not the Envoy has them
	wildcard bool
}

// change is what a subscription is to be sent.
type change struct {
	upserts []*entry // new or changed
	found   []*entry // asked for by name
	left    []*entry // asked for by name, and no longer there, as they were
	absent  []string // asked for by name, but not there
	gone    []*entry // had, but no longer there
	kept    []*entry // the same of what stays
}

// open is whether there is more than what is left over.
func (c *change) open() bool { return len(c.upserts)+len(c.found)+len(c.left)+len(c.absent) > 0 }

// passage is the change of a way and the answers that it takes. All streams that go that way share it.
type passage struct {
	way
	change
	of      *Snapshot
	own     bool      // of one stream, which has exceptions
	charted sync.Once // by Snapshot.passage

	keep, clean answer
}

// answer is one form of the answer that a passage takes: with what is left over kept, or taken away.
type answer struct {
	made     sync.Once
	place    *set // where the stream stands afterwards
	shipment *shipment
}

// shipment is a response, but for its nonce.
type shipment struct {
	from      *set              // where the stream stood
	except    map[string]*entry // instead of what from says, of one stream: see subscription.over
	version   string
	entries   []*entry
	changed   []*entry // those of the entries that are not repeated
	gone      []string
	whole     bool
	endpoints []string // the assignments that belong to the changed clusters

	pieces mem.BufferSlice
	size   int
}

// had is what the Envoy had under that name before it was sent the shipment.
func (p *shipment) had(name string) *entry {
	e, ok := p.except[name]
	switch {
	case !ok:
		return p.from.get(name)
	case e == forgotten:
		return nil
	}
	return e
}

func (w *way) wants(name string) bool { return w.wildcard || w.names.has(name) }

// chart finds the change.
func (p *passage) chart() {
	if p.from != nil || p.wildcard {
		d := p.of.since(p.to, p.from)
		p.upserts, p.gone = p.wanted(d.upserts, false), p.wanted(d.gone, kindOf(p.url).late)
	}
	if p.asked != nil {
		p.found, p.absent = p.to.pick(p.asked.sorted)
	}
	if p.url == resource.EndpointType && p.from != nil {
		p.reprieve()
	}
	if p.protocol == SotW && !kindOf(p.url).whole {
		if kindOf(p.url).stays {
			p.kept = p.gone
		}
		p.gone = nil // which an answer could not say
	}
}

// reprieve has endpoints that are left over answered as they were: a cluster that changed just before it went may not be
// warm yet.
func (p *passage) reprieve() {
	var absent []string
	for _, name := range p.absent {
		if e := p.from.get(name); e != nil && e.Body != nil {
			p.left = append(p.left, e)
		} else {
			absent = append(absent, name)
		}
	}
	p.absent = absent
}

// wanted cuts a list down to what the stream asks for, with or without what it is answered anyway.
func (p *passage) wanted(list []*entry, asked bool) []*entry {
	if p.wildcard && p.asked == nil {
		return list
	}
	var some []*entry
	for _, e := range list {
		if p.wants(e.Name) && (asked || !p.asked.has(e.Name)) {
			some = append(some, e)
		}
	}
	return some
}

// answer gives the shipment, and where the stream stands when it has it.
func (p *passage) answer(clean bool) (*shipment, *set) {
	a := &p.keep
	if clean {
		a = &p.clean
	}
	a.made.Do(func() {
		if a.place = p.to; !clean && len(p.gone) > 0 || len(p.kept) > 0 {
			a.place = p.of.keeping(p.to, p.from)
		}
		c := p.change
		if clean {
			c.left = nil
		} else {
			c.gone = nil
		}
		var whole []*entry
		if p.protocol == SotW && !kindOf(p.url).part {
			whole = a.place.wanted(&p.way)
		}
		a.shipment = pack(&p.way, c, whole, a.place)
		a.shipment.encode(&p.way, p.of)
	})
	return a.shipment, a.place
}

// wanted lists the entries that the stream asks for.
func (s *set) wanted(w *way) []*entry {
	if w.wildcard {
		return s.sorted
	}
	there, _ := s.pick(w.names.list())
	return there
}

// pack puts a shipment together. What is whole is listed.
func pack(w *way, c change, whole []*entry, place *set) *shipment {
	p := &shipment{from: w.from, version: w.to.version, entries: c.upserts, gone: c.absent}
	if len(c.found)+len(c.left) > 0 {
		p.entries = slices.Concat(c.upserts, c.found, c.left)
	}
	if len(c.gone) > 0 {
		p.gone = slices.Clone(c.absent)
	}
	for _, e := range c.gone {
		p.gone = append(p.gone, e.Name)
	}
	if w.protocol == SotW && w.url == resource.EndpointType {
		p.entries = append(slices.Clip(p.entries), emptyAssignments(c.absent)...)
	}
	p.changed = p.entries
	for _, e := range p.changed {
		if e.endpoints != "" {
			p.endpoints = append(p.endpoints, e.endpoints)
		}
	}
	if k := kindOf(w.url); w.protocol == SotW && !k.part {
		p.entries, p.whole = whole, true
		if w.wildcard {
			p.version = place.version
		}
	}
	return p
}

// emptyAssignments say in the state of the world that there are no endpoints. Without a word of them Envoy would wait for
// the cluster to become warm; a cluster that has come and gone meanwhile has none.
func emptyAssignments(names []string) (list []*entry) {
	for _, name := range names {
		r, err := NewResource(name, &endpointv3.ClusterLoadAssignment{ClusterName: name}, "", "")
		if err == nil { // cannot fail: the name is there, and text
			list = append(list, r.made)
		}
	}
	return list
}

// encode makes the bytes: in one piece, or, when the snapshot has no room for more of those, of the entries' own bytes.
func (p *shipment) encode(w *way, of *Snapshot) {
	head := appendText(nil, fieldSystemVersion, p.version)
	head = appendText(head, fieldResponseType, w.url)
	if w.protocol == Delta {
		for _, name := range p.gone {
			head = appendText(head, fieldRemoved, name)
		}
	}
	p.size = len(head)
	for _, e := range p.entries {
		p.size += len(e.bytes(w.protocol))
	}
	if of.takeRoom(p.size) {
		whole := append(make([]byte, 0, p.size), head...)
		for _, e := range p.entries {
			whole = append(whole, e.bytes(w.protocol)...)
		}
		p.pieces = mem.BufferSlice{mem.SliceBuffer(whole)}
		return
	}
	p.pieces = append(make(mem.BufferSlice, 0, 1+len(p.entries)), mem.SliceBuffer(head))
	for _, e := range p.entries {
		p.pieces = append(p.pieces, mem.SliceBuffer(e.bytes(w.protocol)))
	}
}

// bytes is the entry as a field of a response.
func (e *entry) bytes(p Protocol) []byte {
	if p == Delta {
		return e.wire
	}
	return e.wire[e.tail:]
}

// appendText appends a string field with a number below 16.
func appendText(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}
