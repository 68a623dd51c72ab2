// Package diff tells what a change of policy does: which entries come and go, which settings hold at which routes once the
// layers are merged, and what Envoys and counters will have to do for it. The order of what is written, and the file, are no
// change. cmd compares directories with it, and app a directory with what is being served; cmd also shows one entry as it is
// compared.
package diff

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// Policy is one of the two sides.
type Policy struct {
	Files     policy.Files
	Model     *policy.Model
	Resources map[string][]envoy.Resource // by gateway
}

// Diff is what is different, in order of what it is about. No list of it is nil.
type Diff struct {
	Before   string    `json:"before"` // the revisions
	After    string    `json:"after"`
	Entries  []Entry   `json:"entries"`  // that come or go
	Changes  []Change  `json:"changes"`  // of entries that stay
	Files    []File    `json:"files"`    // beside the policy files
	Envoy    []Effect  `json:"envoy"`    // what Envoys do for it
	Counters []Counter `json:"counters"` // of limits that stay, and count otherwise
}

// Empty tells whether the two policies are one.
func (d *Diff) Empty() bool {
	return len(d.Entries)+len(d.Changes)+len(d.Files)+len(d.Envoy)+len(d.Counters) == 0
}

// The ways in which something changes.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Entry is a named thing that comes or goes.
type Entry struct {
	Kind   string     `json:"kind"` // gateway, sidecar, listener, service, route, auth, consumer, plan or domain
	Name   string     `json:"name"` // that of a listener is GATEWAY/LISTENER
	Change string     `json:"change"`
	At     policy.Pos `json:"at"`
}

// Change is one setting that has another value, with all entries that it is so for. For routes it is the setting that
// holds once gateway, service and route are merged.
type Change struct {
	Kind  string   `json:"kind"`
	Names []string `json:"names"` // a route of several gateways is ROUTE@GATEWAY
	Path  string   `json:"path"`  // timeouts.request
	From  *Value   `json:"from"`  // null where nothing is said
	To    *Value   `json:"to"`
}

// Value is what is written, and where.
type Value struct {
	Text   string     `json:"text"`
	Hidden bool       `json:"hidden,omitempty"` // some or all of it: it may hold a secret
	At     policy.Pos `json:"at"`
}

// File is one that the policy refers to.
type File struct {
	Name   string `json:"name"`
	Change string `json:"change"`
}

// Counter is a limit whose counts don't go on as they were.
type Counter struct {
	Limit string     `json:"limit"` // its name
	Plan  string     `json:"plan,omitempty"`
	Anew  bool       `json:"anew"` // they begin at zero; else they stay as far as they can be read the new way
	From  string     `json:"from"`
	To    string     `json:"to"`
	At    policy.Pos `json:"at"`
}

// Between compares two policies.
func Between(before, after Policy) *Diff {
	d := &Diff{
		Before: before.Model.Revision, After: after.Model.Revision,
		Entries: []Entry{}, Changes: []Change{}, Files: files(before, after), Envoy: effects(before, after),
		Counters: counters(before.Model, after.Model),
	}
	r := newReader()
	old, now := r.views(before.Model), r.views(after.Model)
	var changes []change
	for _, key := range keysOf(old, now) {
		a, b := old[key], now[key]
		switch {
		case b == nil:
			d.Entries = append(d.Entries, Entry{key.kind.String(), key.name, Removed, a.at})
		case a == nil:
			d.Entries = append(d.Entries, Entry{key.kind.String(), key.name, Added, b.at})
		default:
			changes = append(changes, compare(key, a, b)...)
		}
	}
	d.Changes = append(d.Changes, grouped(changes)...)
	d.Entries = slices.DeleteFunc(d.Entries, func(e Entry) bool { return e.Kind == "" })
	return d
}

// keysOf is the keys of both, by kind and name.
func keysOf(a, b map[key]*view) []key {
	var all []key
	for _, views := range []map[key]*view{a, b} {
		for k := range views {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name), cmp.Compare(a.gateway, b.gateway))
	})
	return slices.Compact(all)
}

// change is a [Change] of one entry.
type change struct {
	key      key
	path     string
	from, to leaf // zero where there is none
}

// compare finds the leaves that differ.
func compare(k key, a, b *view) []change {
	var all []change
	if k.kind == setting && (len(a.gateways) > 1 || len(b.gateways) > 1) {
		k.name += "@" + k.gateway
	}
	a.listed(b)
	b.listed(a)
	paths := make([]string, 0, len(a.leaves)+len(b.leaves))
	for path := range a.leaves {
		paths = append(paths, path)
	}
	for path := range b.leaves {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		from, to := a.leaves[path], b.leaves[path]
		if !from.same(to) {
			all = append(all, change{k, path, from, to})
		}
	}
	if len(all) == 0 {
		return nil
	}
	return slices.DeleteFunc(all, func(c change) bool { return c.from.alike(c.to, a, b) })
}

// grouped puts together what is changed in one place, or in the same way, for many entries.
func grouped(changes []change) []Change {
	type group struct {
		kind     string
		path     string
		from, to Value
	}
	places := make(map[group]int)
	var all []Change
	for _, c := range changes {
		from, to := c.from.value(), c.to.value()
		g := group{kind: c.key.kind.what(), path: c.path}
		if from != nil {
			g.from = *from
		}
		if to != nil {
			g.to = *to
		}
		i, found := places[g]
		if !found {
			i = len(all)
			places[g] = i
			all = append(all, Change{Kind: g.kind, Path: c.path, From: from, To: to})
		}
		all[i].Names = append(all[i].Names, c.key.name)
	}
	order := []string{"gateway", "sidecar", "listener", "service", "route", "auth", "consumer", "plan", "domain"}
	slices.SortStableFunc(all, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Names[0], b.Names[0]), cmp.Compare(a.Path, b.Path))
	})
	return all
}

// files are the ones beside the policy files that hold something else.
func files(before, after Policy) []File {
	all := []File{}
	names := slices.Concat(before.Model.Files, after.Model.Files)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		was, now := slices.Contains(before.Model.Files, name), slices.Contains(after.Model.Files, name)
		switch {
		case !was:
			all = append(all, File{name, Added})
		case !now:
			all = append(all, File{name, Removed})
		case !bytes.Equal(before.Files[name], after.Files[name]):
			all = append(all, File{name, Changed})
		}
	}
	return all
}

// counters are the limits that both policies have, and whose counts are kept under other keys, or in another way.
func counters(before, after *policy.Model) []Counter {
	all := []Counter{}
	type name struct{ plan, limit string }
	old := make(map[name]feature.Limit)
	for _, l := range feature.Limits(before) {
		old[name{l.Plan, l.Name}] = l
	}
	for _, l := range feature.Limits(after) {
		was, ok := old[name{l.Plan, l.Name}]
		if !ok {
			continue
		}
		c := Counter{Limit: l.Name, Plan: l.Plan, At: l.Pos}
		switch {
		case !slices.Equal(was.By, l.By):
			c.Anew, c.From, c.To = true, by(was), by(l)
		case was.Mode != l.Mode && (was.Mode == "perEnvoy" || l.Mode == "perEnvoy"):
			c.Anew, c.From, c.To = true, was.Mode, l.Mode
		case was.Algorithm != l.Algorithm:
			c.From, c.To = was.Algorithm, l.Algorithm
		case window(was.Rate) != window(l.Rate):
			c.From, c.To = was.Rate, l.Rate
		default:
			continue
		}
		all = append(all, c)
	}
	return all
}

func by(l feature.Limit) string {
	if len(l.By) == 0 {
		return "one for all"
	}
	return "by " + strings.Join(l.By, ", ")
}

// window is what a rate counts in.
func window(rate string) string {
	_, window, _ := strings.Cut(rate, "/")
	window, _, _ = strings.Cut(window, " ")
	return strings.TrimSuffix(window, ",")
}
