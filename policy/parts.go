package policy

import (
	"cmp"
	"reflect"
)

// This file is what is noted of the parts of a load, so that the next one can tell which of them it has to do again.

// unit is a part of a load that is done again as a whole or not at all: an entry, a route at one gateway, or all that is
// common.
type unit struct {
	rank    rank   // when the checks of its settings have their turn
	name    string // of the service or the route, which orders those of one rank; empty elsewhere
	service *Service
	route   *Route
	met     *met     // nil for nothing
	kept    []*Check // of its checks those that may have to be run again while the unit stays as it is
}

// rank is the turn that checks have in a load. Those of one rank have theirs in the order of their names, or, without
// any, in the order that they were found in.
type rank uint8

const (
	ofGateways rank = iota
	ofServices
	ofCommon // auth, consumers, plans, domains
	ofRoutes
	ofSidecars

	ofBound     // the checks from here on have their turn when the routes are put together
	ofExpansion // bound routes that the section sidecars expands to
	ofRouteCheckers
)

// met is what a part of a load has looked up beside itself.
type met struct {
	whole   bool // the model with its routes and services
	names   []Target
	files   []string // full names
	secrets []reference
	hosts   []*host
	steps   int // that were counted, see [Check.Spend]
}

// reference is where a secret is referred to.
type reference struct {
	id  string
	pos Pos
}

// within has what is done noted in a unit.
func (l *loader) within(u *unit, do func()) {
	outer, before := l.unit, l.told
	l.unit, l.met = u, &u.met
	do()
	l.unit, l.met = outer, &outer.met
	l.odd = l.odd || l.told != before // there are no warnings of this kind, which would have to be told again
}

// meets gives what is noted of the part that is being done.
func (l *loader) meets() *met {
	if *l.met == nil {
		*l.met = new(met)
	}
	return *l.met
}

// add notes what somebody else has met for the part, too.
func (m *met) add(o *met) {
	m.whole = m.whole || o.whole
	m.names = append(m.names, o.names...)
	m.files = append(m.files, o.files...)
	m.secrets = append(m.secrets, o.secrets...)
	m.hosts = append(m.hosts, o.hosts...)
	m.steps += o.steps
}

// once is what was built once for several checks.
type once struct {
	value any
	met   *met // while it was built
}

// onceKey is a type that something was made of, from a file or else from the model.
type onceKey struct {
	of   reflect.Type
	file string
}

func onceOf[T any](l *loader, key onceKey, build func() T) T {
	made := l.once[key]
	if made == nil {
		made = &once{}
		outer, before := l.met, l.told
		l.met = &made.met
		made.value = build()
		l.met = outer
		l.odd = l.odd || l.told != before // it would not be told again
		l.once[key] = made
	}
	if made.met != nil {
		l.meets().add(made.met)
	}
	v, _ := made.value.(T)
	return v
}

// lasts tells whether what was built is the same as long as nothing common changes.
func (o *once) lasts(key onceKey) bool { return key.file == "" && o.met == nil }

// queue puts a check of the unit that is being done in its place among the others.
func (l *loader) queue(c *Check) {
	l.queued++
	c.unit, c.rank, c.number = l.unit, l.unit.rank, l.queued
	l.checks = append(l.checks, c)
}

// run has a check look at its setting, and notes what it looks up.
func (l *loader) run(c *Check) {
	outer, before := l.met, l.told
	c.load, l.met = l, &c.met
	if c.look != nil {
		c.look(c)
	} else {
		c.set.Setting.Check(c)
	}
	c.load, l.met = nil, outer
	c.told = l.told != before
}

// runAll runs the checks that are queued.
func (l *loader) runAll() {
	for _, c := range l.checks {
		l.run(c)
		if c.told || c.met != nil {
			l.ran = append(l.ran, c)
		}
	}
	l.checks = nil
}

// inTurn orders checks as a load runs them.
func inTurn(a, b *Check) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.unit.name, b.unit.name), cmp.Compare(a.number, b.number))
}

// again is the check as it was before it was run.
func (c *Check) again() *Check {
	fresh := *c
	fresh.reads, fresh.met, fresh.told = nil, nil, false
	return &fresh
}
