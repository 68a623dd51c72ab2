package store

import (
	"strings"
	"time"
)

// plain are the hits of a batch that increments count. Those of one bucket are one increment: what the counter was before
// tells how many of them fit, first come, first served. What didn't fit was counted too, for the moment: it is given back
// with the next write. Until then the counter is above the limit only when the limit is used up, so nobody is refused who
// shouldn't be.
//
// An increment keeps the key's time to live. The first one of a process over a connection makes sure that there is one:
// it creates the key with it, unless it is there, before it increments. Later ones rely on that; an answer that tells
// that the key was new, or that doesn't come, has the key repaired.
type plain struct {
	groups []group
	group  []int32 // of each decision, -1 for none
	next   []int32 // the next decision of the same group, -1 after the last
	index  [1024]place
	round  uint32
	keyed  []byte
}

// place is where in groups a bucket is, in a table of those.
type place struct {
	hash  uint64
	round uint32
	group int32
}

// group are the decisions of one bucket.
type group struct {
	hit         *Hit
	hash        uint64
	n           int64 // increments by so many
	first, last int32
	left        bool // to the script
	creates     bool // the key, if it isn't there
	end         int64
}

// isPlain tells whether an increment can count the hits.
func isPlain(hits []Hit) bool {
	return len(hits) == 1 && hits[0].Hits == 1 && !hits[0].Beyond && hits[0].windowed()
}

func (p *plain) begin(n int) {
	p.groups = p.groups[:0]
	if p.round++; p.round == 0 { // what is in the table may be of any round
		clear(p.index[:])
		p.round = 1
	}
	if cap(p.group) < n {
		p.group, p.next = make([]int32, 2*n), make([]int32, 2*n)
	}
	p.group, p.next = p.group[:n], p.next[:n]
}

// find gives the place of the bucket of h, which may be free.
func (p *plain) find(h *Hit, hash uint64) *place {
	for at := hash; ; at++ {
		e := &p.index[at%uint64(len(p.index))]
		if e.round != p.round || e.hash == hash && p.groups[e.group].hit.sameBucket(h) {
			return e
		}
	}
}

func (h *Hit) sameBucket(o *Hit) bool {
	return h.Key == o.Key && h.Algorithm == o.Algorithm && h.span() == o.span()
}

// add puts decision i, which is h, into the group of its bucket.
func (p *plain) add(i int, h *Hit, hash uint64) {
	at := int32(i)
	p.next[i] = -1
	e := p.find(h, hash)
	if e.round != p.round {
		*e = place{hash, p.round, int32(len(p.groups))}
		p.groups = append(p.groups, group{hit: h, hash: hash, n: 1, first: at, last: at})
		p.group[i] = e.group
		return
	}
	g := &p.groups[e.group]
	p.next[g.last] = at
	g.last = at
	g.n++
	p.group[i] = e.group
}

// leave leaves the bucket of h to the script.
func (p *plain) leave(h *Hit, hash uint64) {
	if e := p.find(h, hash); e.round == p.round {
		p.groups[e.group].left = true
	}
}

func (b *batch) writePlain(c *conn) {
	p := &b.plain
	for i := range p.groups {
		g := &p.groups[i]
		if g.left {
			continue
		}
		w := b.windows.of(g.hit)
		g.end = w.end
		g.creates = !b.memory.holds(g.hash, g.end, c.number)
		p.keyed = append(appendTag(p.keyed[:0], g.hit.Key), w.suffix...)
		if g.creates {
			b.buf = append(b.buf, "*6\r\n$3\r\nSET\r\n"...)
			b.buf = appendText(b.buf, p.keyed)
			b.buf = append(b.buf, "$1\r\n0\r\n$2\r\nPX\r\n"...)
			b.buf = appendNumber(b.buf, w.ttl)
			b.buf = append(b.buf, "$2\r\nNX\r\n"...)
		}
		if g.n == 1 {
			b.buf = append(b.buf, "*2\r\n$4\r\nINCR\r\n"...)
			b.buf = appendText(b.buf, p.keyed)
			continue
		}
		b.buf = append(b.buf, "*3\r\n$6\r\nINCRBY\r\n"...)
		b.buf = appendText(b.buf, p.keyed)
		b.buf = appendNumber(b.buf, g.n)
	}
}

// readPlain gives every plain decision its outcome, or err from where it comes.
func (b *batch) readPlain(c *conn, err error) error {
	coalesced := int64(0)
	for i := range b.plain.groups {
		g := &b.plain.groups[i]
		if g.left {
			continue
		}
		coalesced += g.n - 1
		var after int64
		var refused error
		if err == nil {
			after, refused, err = g.read(c)
		}
		switch {
		case err != nil:
			b.failGroup(g, err)
			if !g.creates {
				b.repair(g, lateRepair)
			}
		case refused != nil:
			b.failGroup(g, refused)
		default:
			b.apportion(c, g, after-g.n)
		}
	}
	if coalesced > 0 {
		b.metrics.coalesced.Add(float64(coalesced))
	}
	return err
}

// read gives what the counter is after the increment.
func (g *group) read(c *conn) (after int64, refused, err error) {
	if g.creates {
		r, err := c.next()
		if err != nil {
			return 0, nil, err
		}
		if r.kind != absent {
			refused = r.err(status)
		}
	}
	r, err := c.next()
	if err != nil {
		return 0, nil, err
	}
	if wrong := r.err(integer); wrong != nil {
		return 0, wrong, nil
	}
	return r.number, refused, nil
}

func (b *batch) failGroup(g *group, err error) {
	for i := g.first; i >= 0; i = b.plain.next[i] {
		b.decisions[i].Err = err
	}
}

// apportion tells the decisions of a group, in order, whether they fit after what the counter was before.
func (b *batch) apportion(c *conn, g *group, before int64) {
	count := before
	reset := time.Duration(max(0, g.end-b.windows.now)) * time.Microsecond
	for i := g.first; i >= 0; i = b.plain.next[i] {
		d := b.decisions[i]
		limit := d.Hits[0].Limit
		o := Outcome{Allowed: count < limit, Limit: limit, Reset: reset}
		if o.Allowed {
			count++
			o.Remaining, o.Count = limit-count, count
		} else {
			o.RetryAfter, o.Count = reset, count
		}
		d.Outcomes[0] = o
	}
	if excess := before + g.n - count; excess > 0 {
		b.owe(g, excess)
	}
	if before == 0 && !g.creates {
		b.repair(g, 0)
	}
	b.remember(g.hit, g.hash, count, g.end, c.number)
}

// remember keeps what the counter of a window is.
func (b *batch) remember(h *Hit, hash uint64, count, end int64, held uint32) {
	lost := b.memory.keepWindow(h, hash, windowSeen{count: count, end: end, left: end - b.windows.now, asked: b.asked, held: held})
	if lost {
		b.metrics.lost.Inc()
	}
}

// owe has n hits of the group given back with the next write.
func (b *batch) owe(g *group, n int64) {
	h := *g.hit
	h.Key = strings.Clone(h.Key)
	h.Hits = -n
	b.owed = append(b.owed, owed{end: g.end, decision: &Decision{Hits: []Hit{h}, Outcomes: make([]Outcome, 1)}})
}

// lateRepair is after how many µs the key of an answer that didn't come is repaired: by then Redis has done what it was
// sent, if ever.
const lateRepair = 1_000_000

func (b *batch) repair(g *group, after int64) {
	w := b.windows.of(g.hit)
	key := append(appendTag(nil, g.hit.Key), w.suffix...)
	b.found = append(b.found, repair{key: string(key), end: g.end, due: b.asked + after})
}
