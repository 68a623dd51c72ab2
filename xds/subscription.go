package xds

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// subscription is one resource type on one stream: what the Envoy wants, what it has, and what is on its way. What it
// wants and has are shared values, so that a thousand streams in sync cost a thousand pointers; where one goes ways of its
// own (it rejects something, it narrows what it wants) there are exceptions, until it is in line again.
type subscription struct {
	url      string
	kind     kind
	protocol Protocol

	started  bool
	wildcard bool
	star     bool // state of the world: "*" was among them
	narrow   bool // state of the world: has asked for names, so that none means nothing
	had      bool // state of the world: it has had some on a stream before
	names    *names
	asked    *names // of them, those to be answered even if the Envoy has them
	heard    key    // state of the world: of the names in the last request
	answered bool   // the Envoy has had a first answer, or said what it has

	base *set              // what it has, if it wants it
	over map[string]*entry // instead of what base says; forgotten: it does not have it

	next    *passage // to the present target; nil: there is nothing to send
	settled bool     // nothing is to be sent of the present target but what is left over

	inflight *shipment          // awaits its ACK
	nonce    string             // of the last response
	rejected map[string]refusal // by name; not sent again unless it changes
	sent     string
	acked    string
	at       time.Time // of the last change of state
	words    string    // Envoy's
	blamed   []Blame

	responses, bytes prometheus.Counter // of whoever sends
}

// forgotten stands for what the Envoy does not have, whatever base says.
var forgotten = &entry{}

// subscribe takes what a request says the Envoy wants.
func (t *subscription) subscribe(r *request, p *pool, to *set) error {
	if t.protocol == SotW {
		return t.replace(r, p)
	}
	if !t.started {
		state, err := p.state(t.url, r.known, to)
		if err != nil {
			return err
		}
		t.base, t.answered = state, state != nil
	}
	fresh, star, err := p.read(r.names)
	if err != nil {
		return err
	}
	dropped, unstar, err := p.read(r.dropped)
	if err != nil {
		return err
	}
	if t.started && fresh == nil && dropped == nil && !star && !unstar {
		return nil
	}
	all := p.union(t.names, fresh)
	if len(all.list()) > maxNames {
		return tooMany()
	}
	asked := fresh
	if !t.started && t.base != nil { // it may repeat what it has
		asked = p.lacking(fresh, t.base)
	}
	legacy := !t.started && r.names.count == 0 && t.kind.wild
	t.widen(star || legacy)
	t.names, t.asked = all, p.union(t.asked, asked)
	t.drop(dropped, unstar, p)
	t.started = true
	return nil
}

// lacking is the names that the set does not have.
func (p *pool) lacking(n *names, s *set) *names {
	if n == nil {
		return nil
	}
	if l := n.lacks.Load(); l != nil && l.of == s {
		return l.absent
	}
	_, absent := s.pick(n.sorted)
	l := &lack{s, p.of(absent)}
	n.lacks.Store(l)
	return l.absent
}

// drop takes away what the Envoy no longer wants. What it still gets as part of everything is sent again, as xDS has it.
func (t *subscription) drop(dropped *names, star bool, p *pool) {
	if star {
		t.wildcard = false
	}
	if dropped == nil {
		return
	}
	t.names = p.without(t.names, dropped)
	if t.wildcard {
		t.asked = p.union(t.asked, dropped)
		return
	}
	t.asked = p.without(t.asked, dropped)
	for _, name := range dropped.sorted {
		delete(t.over, name)
	}
}

// replace takes the names of a request in the state of the world, which are all that the Envoy wants.
func (t *subscription) replace(r *request, p *pool) error {
	if t.started && r.names.key == t.heard && r.names.star == t.star {
		return nil
	}
	n, star, err := p.read(r.names)
	if err != nil {
		return err
	}
	t.had = t.had || !t.started && r.hasVersion
	t.narrow = t.narrow || r.names.count > 0
	t.widen(star || !t.narrow && t.kind.wild)
	if !star && t.narrow {
		t.wildcard = false
	}
	t.asked = p.union(p.without(t.asked, p.without(t.asked, n)), p.without(n, t.names))
	t.names, t.heard, t.star, t.started = n, r.names.key, star, true
	return nil
}

// widen turns what is known of the names into what is known of everything.
func (t *subscription) widen(wildcard bool) {
	if !wildcard || t.wildcard {
		return
	}
	if t.wildcard = true; !t.started {
		return
	}
	over := map[string]*entry{}
	for _, name := range t.names.list() {
		if e := t.has(name); e != nil {
			over[name] = e
		}
	}
	t.base, t.over = nil, over
}

func (t *subscription) except(name string, e *entry) {
	if t.over == nil {
		t.over = map[string]*entry{}
	}
	t.over[name] = e
}

func (t *subscription) wants(name string) bool { return t.wildcard || t.names.has(name) }

// has is what the Envoy has under that name, if it wants it.
func (t *subscription) has(name string) *entry {
	e, ok := t.over[name]
	if !ok {
		return t.base.get(name)
	}
	if e == forgotten {
		return nil
	}
	return e
}

// look finds what leads from what the Envoy has to the snapshot.
func (t *subscription) look(s *Snapshot) {
	to := s.set(t.url)
	if t.answered && t.base == to && t.asked == nil && len(t.over) == 0 {
		t.next = nil
		return
	}
	w := way{t.url, t.protocol, t.base, to, t.names, t.asked, t.wildcard}
	if p := t.next; p != nil && !p.own && p.of == s && p.way == w && len(t.over) == 0 {
		return
	}
	t.next = s.passage(w)
	if len(t.over) > 0 {
		t.next = t.detour(t.next)
	}
}

// detour is the passage of a stream with exceptions.
func (t *subscription) detour(p *passage) *passage {
	own := &passage{way: p.way, of: p.of, own: true}
	own.found, own.left, own.absent = p.found, p.left, p.absent
	for _, e := range p.upserts {
		if _, except := t.over[e.Name]; !except {
			own.upserts = append(own.upserts, e)
		}
	}
	for _, e := range p.gone {
		if _, except := t.over[e.Name]; !except {
			own.gone = append(own.gone, e)
		}
	}
	for _, e := range p.kept {
		if _, except := t.over[e.Name]; !except {
			own.kept = append(own.kept, e)
		}
	}
	says := t.protocol == Delta || t.kind.whole // that something is gone
	for name, had := range t.over {
		now := p.to.get(name)
		switch {
		case !t.wants(name) || t.asked.has(name) || now == nil && had == forgotten:
		case now == nil && says:
			own.gone = append(own.gone, had)
		case now == nil && t.kind.stays:
			own.kept = append(own.kept, had)
		case now != nil && now.Version != had.Version:
			own.upserts = append(own.upserts, now)
		}
	}
	slices.SortFunc(own.upserts, byName)
	slices.SortFunc(own.gone, byName)
	return own
}

// settle moves the base along when nothing leads to the target but that something is left over.
func (t *subscription) settle(s *Snapshot) {
	t.look(s)
	to := s.set(t.url)
	gone := t.next != nil && len(t.next.gone) > 0
	t.settled = !t.open() && (!gone || t.kind.late)
	if !t.settled {
		return
	}
	if t.answered && !gone && (t.next == nil || len(t.next.kept) == 0) {
		t.base, t.asked, t.over, t.next = to, nil, nil, nil
	}
	if t.answered && t.inflight == nil && len(t.rejected) == 0 {
		t.acked = to.version
	}
}

// open is whether there is more to send than what is left over.
func (t *subscription) open() bool { return t.next != nil && t.next.change.open() }

// leftover is whether the Envoy has something that has to be taken away.
func (t *subscription) leftover() bool { return t.kind.late && t.next != nil && len(t.next.gone) > 0 }

// part is how much of a change is sent.
type part int

const (
	everything part = iota
	keeping         // all but what is left over
	answers         // what was asked for by name
)

// ship makes of the next passage what may be sent now, and notes it as sent.
func (t *subscription) ship(part part) *shipment {
	p := t.next
	if part != answers && !p.own {
		s, place := p.answer(part == everything)
		t.base, t.asked, t.over = place, nil, nil
		t.lose(p.absent)
		return s
	}
	c, before := p.change, maps.Clone(t.over)
	switch part {
	case answers:
		c = change{found: p.found, left: p.left, absent: p.absent}
		t.hand(c)
	case keeping:
		c.gone = nil
		t.base, t.asked, t.over = p.to, nil, nil
		for _, e := range p.gone {
			t.except(e.Name, e)
		}
	default:
		c.left = nil
		t.base, t.asked, t.over = p.to, nil, nil
	}
	if part != answers {
		for _, e := range p.kept {
			t.except(e.Name, e)
		}
		t.lose(p.absent)
	}
	var whole []*entry
	place := p.to
	if t.protocol == SotW && !t.kind.part {
		whole = t.all()
		place = newSet(whole, sumOf(whole))
	}
	s := pack(&p.way, c, whole, place)
	s.except = before
	s.encode(&p.way, p.of)
	return s
}

// hand notes that the Envoy has been answered what it asked for, and nothing else.
func (t *subscription) hand(c change) {
	t.asked = nil
	for _, e := range slices.Concat(c.found, c.left) {
		if delete(t.over, e.Name); t.base.get(e.Name) != e {
			t.except(e.Name, e)
		}
	}
	t.lose(c.absent)
}

// lose notes that the Envoy has been told that there is nothing under these names, whatever is left over of it.
func (t *subscription) lose(names []string) {
	for _, name := range names {
		if delete(t.over, name); t.base.get(name) != nil {
			t.except(name, forgotten)
		}
	}
}

// all lists what the Envoy has and wants, by name, for an answer that has to be whole.
func (t *subscription) all() []*entry {
	var list []*entry
	if t.base != nil {
		for _, e := range t.base.sorted {
			if _, except := t.over[e.Name]; !except && t.wants(e.Name) && e.Body != nil {
				list = append(list, e)
			}
		}
	}
	for name, e := range t.over {
		if t.wants(name) && e.Body != nil {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, byName)
	return list
}
