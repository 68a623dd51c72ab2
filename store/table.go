package store

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/binary"
	"hash/maphash"
	"iter"
	"strconv"
	"sync/atomic"
)

// row is an entry as a board's table holds it. It never changes, but for its mark.
type row struct {
	name    string
	value   []byte
	expires int64  // s since 1970; 0: never
	until   int64  // s since 1970: it is to be kept so long, expired or not; 0: for ever
	written int64  // µs since 1970 by Redis' clock: of two of one name the later counts
	mark    uint32 // the reading that has found it in Redis; the mirror's own
}

// pack is an entry as Redis has it: written:expires:until:value.
func (h *row) pack() []byte { return h.appendTo(make([]byte, 0, 40+len(h.value))) }

func (h *row) appendTo(b []byte) []byte {
	b = append(strconv.AppendInt(b, h.written, 10), ':')
	b = append(strconv.AppendInt(b, h.expires, 10), ':')
	b = append(strconv.AppendInt(b, h.until, 10), ':')
	return append(b, h.value...)
}

// unpack reads an entry of Redis; nil when it can't be one.
func unpack(name, packed string) *row {
	h := &row{name: name}
	rest := []byte(packed)
	for _, to := range []*int64{&h.written, &h.expires, &h.until} {
		part, after, ok := bytes.Cut(rest, []byte(":"))
		n, valid := number(part)
		if !ok || !valid || n < 0 {
			return nil
		}
		*to, rest = n, after
	}
	h.value = rest
	return h
}

// digest is what an entry adds to the sum of its board: 48 bits of SHA-1, which a Redis script can reckon with.
func (h *row) digest() uint64 {
	var room [512]byte
	sum := sha1.Sum(h.appendTo(append(append(room[:0], h.name...), 0)))
	return binary.BigEndian.Uint64(sum[:]) >> 16
}

const sumMask = 1<<48 - 1

// compare tells which of two entries of one name counts: the later. Two of one moment, of two Redis that didn't know of
// each other, are told apart by what they say, so that all processes choose the same.
func (h *row) compare(o *row) int {
	if c := cmp.Compare(h.written, o.written); c != 0 {
		return c
	}
	return cmp.Compare(h.digest(), o.digest())
}

func (h *row) expired(now int64) bool { return h.expires > 0 && h.expires <= now }

// over tells whether nothing needs to know the entry any more.
func (h *row) over(now int64) bool { return h.until > 0 && h.until <= now }

// table is entries by name. Reading takes no lock: chains are never changed, but made anew as far as a change reaches.
// One at a time may write.
type table struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]atomic.Pointer[node]] // a power of two of them
	n     atomic.Int64
	sum   uint64 // of the digests of all entries, modulo 2^48
}

type node struct {
	*row
	next *node
}

const leastSlots = 64

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	slots := make([]atomic.Pointer[node], leastSlots)
	t.slots.Store(&slots)
	return t
}

func (t *table) at(slots []atomic.Pointer[node], name string) *atomic.Pointer[node] {
	return &slots[maphash.String(t.seed, name)&uint64(len(slots)-1)]
}

// get is nil when there is no such entry.
func (t *table) get(name string) *row {
	for n := t.at(*t.slots.Load(), name).Load(); n != nil; n = n.next {
		if n.name == name {
			return n.row
		}
	}
	return nil
}

// put adds an entry, or has it take the place of the one of its name.
func (t *table) put(h *row) {
	slot := t.at(*t.slots.Load(), h.name)
	rest, old := slot.Load().without(h.name)
	slot.Store(&node{h, rest})
	t.sum += h.digest()
	if old != nil {
		t.sum -= old.digest()
	} else if t.n.Add(1) > int64(len(*t.slots.Load())) {
		t.grow()
	}
	t.sum &= sumMask
}

func (t *table) remove(name string) {
	slot := t.at(*t.slots.Load(), name)
	rest, old := slot.Load().without(name)
	if old == nil {
		return
	}
	slot.Store(rest)
	t.n.Add(-1)
	t.sum = (t.sum - old.digest()) & sumMask
}

// without is the chain without an entry, which it gives too.
func (n *node) without(name string) (*node, *row) {
	switch {
	case n == nil:
		return nil, nil
	case n.name == name:
		return n.next, n.row
	}
	rest, old := n.next.without(name)
	if old == nil {
		return n, nil
	}
	return &node{n.row, rest}, old
}

func (t *table) grow() {
	slots := make([]atomic.Pointer[node], 2*len(*t.slots.Load()))
	for h := range t.all() {
		slot := t.at(slots, h.name)
		slot.Store(&node{h, slot.Load()})
	}
	t.slots.Store(&slots)
}

// all gives every entry that is there from beginning to end; of those that change meanwhile, either state.
func (t *table) all() iter.Seq[*row] {
	return func(yield func(*row) bool) {
		slots := *t.slots.Load()
		for i := range slots {
			for n := slots[i].Load(); n != nil; n = n.next {
				if !yield(n.row) {
					return
				}
			}
		}
	}
}
