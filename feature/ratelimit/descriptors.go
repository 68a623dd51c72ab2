package ratelimit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// Bounds of a domain: a request's descriptor has no more entries than the tree levels, and what is larger by far was not
// meant.
const (
	maxLevels      = 32
	maxDescriptors = 10_000
	maxSpans       = 1_000 // patterns and ranges of one key at a level: a request is held against each of them
)

// Check holds each descriptor against itself and those of its level.
func (s *Descriptors) Check(c *policy.Check) {
	if len(*s) == 0 {
		c.Errorf("", "name at least one descriptor").Hintf("write descriptors: [{entry: remote_address, rate: 10/second}]")
		return
	}
	written, named := policy.Find[*DomainName](c.Entry().Settings)
	if c.Entry().Name == ratelimit.OwnDomain && !named && !c.Broken("domain") {
		c.Errorf("", "Envoys that get their policy from here ask with the domain %q", ratelimit.OwnDomain).
			Hintf("give the entry another name, or write domain: NAME beside it")
		return
	}
	t := treeCheck{Check: c, names: map[string]bool{}}
	t.gather(*s, 1)
	if t.number > maxDescriptors {
		c.Errorf("", "%d descriptors, at most %d", t.number, maxDescriptors)
		return
	}
	t.level("", *s)
	if t.told || c.Broken("domain") || named && !written.usable() {
		return
	}
	// What the tree's own rules leave over, the companion tells.
	d := ratelimit.Domain{Name: c.Entry().Name, Descriptors: tree(*s)}
	if named {
		d.Name = string(*written)
	}
	if err := d.Validate(); err != nil {
		c.Errorf("", "can't be counted: %v", err)
	}
	t.unique()
}

// treeCheck is a check on its way through the tree.
type treeCheck struct {
	*policy.Check
	names  map[string]bool // that replaces may name
	number int
	told   bool // something is wrong
}

func (t *treeCheck) gather(descriptors []Descriptor, level int) {
	t.number += len(descriptors)
	for i := range descriptors {
		t.names[descriptors[i].Name] = true
		if level <= maxLevels {
			t.gather(descriptors[i].Descriptors, level+1)
		}
	}
}

func (t *treeCheck) errorf(path, format string, args ...any) *policy.Problem {
	t.told = true
	return t.Errorf(path, format, args...)
}

func (t *treeCheck) level(path string, descriptors []Descriptor) {
	if strings.Count(path, "descriptors") >= maxLevels {
		t.errorf(path, "descriptors nest deeper than %d", maxLevels)
		return
	}
	seen, spans := map[string]int{}, map[string]int{}
	for i := range descriptors {
		d, at := &descriptors[i], fmt.Sprintf("%s[%d]", path, i)
		if d.Range != nil || strings.Contains(d.Value, "*") {
			if spans[d.Key]++; spans[d.Key] > maxSpans {
				t.errorf(at, "more than %d ranges and values with * of one key in this list", maxSpans).Hintf("exact values may be as many as you like")
				return
			}
		}
		t.descriptor(at, d)
		id := d.Key + "\x00" + d.Value + "\x00" + d.span()
		if first, twice := seen[id]; twice {
			t.errorf(at, "the same key and value as descriptor %d of this list", first+1).Hintf("join the two, or give one another value")
		} else {
			seen[id] = i
		}
		below := at + ".descriptors"
		t.level(below, d.Descriptors)
	}
}

// span is the range as the companion writes it.
func (d *Descriptor) span() string {
	switch {
	case d.Range == nil:
		return ""
	case d.Range.Prefix.IsValid():
		return d.Range.Prefix.String()
	}
	return fmt.Sprintf("%d-%d", d.Range.Numbers.From, d.Range.Numbers.To)
}

func (t *treeCheck) descriptor(at string, d *Descriptor) {
	if d.Key == "" {
		t.errorf(at+".entry", "want the key of an entry, got nothing")
	}
	if d.Value != "" && d.Range != nil {
		t.errorf(at+".range", "a descriptor has a value or a range, not both")
	}
	if d.Shared && d.Range == nil && !strings.Contains(d.Value, "*") {
		t.errorf(at+".shared", "one value needs no bucket to share").Hintf("a value with * or a range has several: value: %s*", d.Value)
	}
	t.limits(at, d)
	for i, name := range d.Replaces {
		p := fmt.Sprintf("%s.replaces[%d]", at, i)
		switch {
		case !t.names[name] || name == "":
			t.errorf(p, "no descriptor of this domain has the name %q", name).Hintf("give the one that is to be replaced name: %s", name)
		case name == d.Name:
			t.errorf(p, "a limit can't replace itself")
		case slices.Contains(d.Replaces[:i], name):
			t.errorf(p, "%q stands here twice", name).Hintf("remove one of the two")
		}
	}
}

// limits holds what a descriptor counts against the rest of it.
func (t *treeCheck) limits(at string, d *Descriptor) {
	ways := 0
	for _, way := range []bool{d.counts(), d.Unlimited, d.Deny} {
		if way {
			ways++
		}
	}
	if ways > 1 {
		t.errorf(at, "want one of a rate or quota, unlimited and deny")
		return
	}
	if d.counts() {
		s := d.limit(at)
		if d.perEnvoy() {
			t.errorf(at+".mode", "an Envoy that asks does not count by itself").Hintf("write exact or leased")
			return
		}
		s.checkLimit(t.Check, 0)
		if s.limit(policy.Layer{}, 0).Validate() != nil {
			t.told = true
		}
		return
	}
	for _, key := range []struct {
		name    string
		written bool
	}{
		{"burst", d.Burst != 0},
		{"timeZone", d.TimeZone != ""},
		{"algorithm", d.Algorithm != ""},
		{"mode", d.Mode != ""},
		{"lease", d.Lease != nil},
		{"onError", d.OnError != ""},
		{"shadow", d.Shadow},
		{"soft", d.Soft},
		{"perValue", d.PerValue && ways == 0},
		{"replaces", len(d.Replaces) > 0 && ways == 0},
		{"metadata", len(d.Metadata) > 0 && ways == 0},
	} {
		if key.written {
			t.errorf(at+"."+key.name, "nothing is counted here").Hintf("add a rate: rate: 10/second")
		}
	}
}

func (d *Descriptor) perEnvoy() bool { return d.Mode == perEnvoy }

// unique refuses a domain that another entry is too; it is told at the later one.
func (t *treeCheck) unique() {
	first := policy.Once(t.Check, func() map[string]string {
		all := map[string]string{}
		for _, d := range t.Common().Domains {
			if name := nameOf(d); all[name] == "" {
				all[name] = d.Name
			}
		}
		return all
	})
	for _, d := range t.Common().Domains {
		if &d.Entry != t.Entry() {
			continue
		}
		if name := nameOf(d); first[name] != d.Name {
			t.Errorf("", "the domain %q is the entry %q too", name, first[name]).Hintf("join the two entries, or give one another domain")
		}
	}
}
