package ratelimit

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/legation/legation/expr"
	"github.com/legation/legation/store"
)

// Domain is the limits that Envoys which others configure ask for by domain and descriptors.
type Domain struct {
	Name        string
	Descriptors []Descriptor
}

// Descriptor is a node of a domain's tree: it stands for one entry of a request's descriptor, and those below it for the
// entry that follows. A request's descriptor meets the limit that stands as deep as it has entries.
//
// Of the nodes of a level that fit an entry, the most specific one goes: the exact value, then the narrowest range or
// prefix, then the first pattern, then the one without a value.
type Descriptor struct {
	Key    string
	Value  string       // each * in it stands for any characters; empty: any value
	Range  *Range       // instead of Value: numbers
	Prefix netip.Prefix // instead of Value: addresses

	Limit    *Limit // nil: nothing is counted here. By and Name are empty: it is named after the path of keys and values
	Deny     bool   // refuses without counting
	Soft     bool   // over it only marks the request, unless all soft limits of the request are over
	Shared   bool   // all values that fit count in one bucket
	RateName string // what Replaces of others names
	Replaces []string
	PerValue bool              // metrics tell the value that was asked, in bounds
	Metadata map[string]string // of the answer when the limit let the request pass

	Descriptors []Descriptor
}

// Range is whole numbers from From to To, both included.
type Range struct{ From, To int64 }

// maxDepth of a domain's tree: a request's descriptor has no more entries.
const maxDescriptorDepth = maxEntries

// Validate tells what makes the domain impossible to use.
func (d *Domain) Validate() error {
	c := compiler{programs: map[string]*expr.Value{}}
	_, err := c.domain(d)
	return err
}

// domainNode is a level of a compiled domain; immutable.
type domainNode struct {
	keys map[string]*domainKey
}

// domainKey is the nodes of one key at a level.
type domainKey struct {
	values   map[string]*domainEntry
	ranges   []*domainEntry // the narrowest first
	patterns []*domainEntry // as written
	any      *domainEntry
}

// domainEntry is one node.
type domainEntry struct {
	*Descriptor
	limit *limit
	parts []string // of a pattern, between the stars
	text  string   // of the descriptor; stands for the values of a shared bucket
	below *domainNode
}

func (c *compiler) node(path string, descriptors []Descriptor, depth int) (*domainNode, error) {
	if depth >= maxDescriptorDepth {
		return nil, fmt.Errorf("%s: descriptors nest deeper than %d", path, maxDescriptorDepth)
	}
	n := &domainNode{keys: map[string]*domainKey{}}
	for i := range descriptors {
		d := &descriptors[i]
		if d.Key == "" || len(d.Key) > maxName || strings.IndexByte(d.Key, 0) >= 0 {
			return nil, fmt.Errorf("%s: descriptor %d: want a key", path, i)
		}
		k := n.keys[d.Key]
		if k == nil {
			k = &domainKey{values: map[string]*domainEntry{}}
			n.keys[d.Key] = k
		}
		e := &domainEntry{Descriptor: d, text: d.text()}
		if err := k.add(e); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, d.Key, err)
		}
		at := d.Path(path)
		var err error
		if e.limit, err = c.descriptorLimit(at, d); err != nil {
			return nil, err
		}
		if e.below, err = c.node(at, d.Descriptors, depth+1); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// descriptorLimit is the limit of a descriptor; nil: none.
func (c *compiler) descriptorLimit(path string, d *Descriptor) (*limit, error) {
	l := Limit{Rate: Rate{Unlimited: true}}
	switch {
	case d.Limit != nil && (len(d.Limit.By) > 0 || d.Deny):
		return nil, fmt.Errorf("%s: a domain's limit counts by its descriptors alone, and denies nothing", path)
	case d.Limit != nil:
		l = *d.Limit
	case !d.Deny:
		return nil, nil
	}
	l.Name = path
	l.Shadow = l.Shadow || d.Soft
	r, err := c.limit(l)
	if err != nil {
		return nil, err
	}
	r.soft, r.metadata = d.Soft, d.Metadata
	if d.Deny {
		r.base = &rate{hit: store.Hit{Window: time.Second}}
		r.base.describe(path)
	}
	c.nodes = append(c.nodes, r)
	return r, nil
}

// Path is the name of the descriptor's limit; path is that of the descriptor above, or rateLimits/ and the domain's name.
func (d *Descriptor) Path(path string) string {
	path += "/" + d.Key
	if text := d.text(); text != "" {
		path += "=" + text
	}
	return path
}

// text stands for the values that fit: one, a pattern or a range; empty for any.
func (d *Descriptor) text() string {
	switch {
	case d.Range != nil:
		return fmt.Sprintf("%d-%d", d.Range.From, d.Range.To)
	case d.Prefix.IsValid():
		return d.Prefix.Masked().String()
	}
	return d.Value
}

// errTwice is for two nodes that fit the same values.
var errTwice = errors.New("another descriptor of this level has the same key and value")

func (k *domainKey) add(e *domainEntry) error {
	switch {
	case e.Range != nil || e.Prefix.IsValid():
		return k.addRange(e)
	case e.Value == "":
		if k.any != nil {
			return errTwice
		}
		k.any = e
	case strings.Contains(e.Value, "*"):
		e.parts = strings.Split(e.Value, "*")
		for _, other := range k.patterns {
			if other.Value == e.Value {
				return errTwice
			}
		}
		k.patterns = append(k.patterns, e)
	default:
		if k.values[e.Value] != nil {
			return errTwice
		}
		k.values[e.Value] = e
	}
	if e.Shared && e.parts == nil {
		return errors.New("only a pattern, a range or a prefix has values that could share a bucket")
	}
	return nil
}

func (k *domainKey) addRange(e *domainEntry) error {
	switch {
	case e.Value != "" || e.Range != nil && e.Prefix.IsValid():
		return errors.New("want one of a value, a range and a prefix")
	case e.Range != nil && e.Range.From > e.Range.To:
		return fmt.Errorf("the range %d-%d is empty", e.Range.From, e.Range.To)
	}
	at := len(k.ranges)
	for i, other := range k.ranges {
		switch order := cmp.Compare(e.width(), other.width()); {
		case other.text == e.text:
			return errTwice
		case order < 0 && at == len(k.ranges):
			at = i
		}
	}
	k.ranges = slices.Insert(k.ranges, at, e)
	return nil
}

// width orders ranges and prefixes: how many values fit, on a scale of its own for each.
func (e *domainEntry) width() float64 {
	if e.Range != nil {
		return float64(e.Range.To) - float64(e.Range.From)
	}
	return math.Exp2(float64(e.Prefix.Addr().BitLen() - e.Prefix.Bits()))
}

// find gives the most specific node for a value.
func (k *domainKey) find(value string) *domainEntry {
	if e := k.values[value]; e != nil {
		return e
	}
	for _, e := range k.ranges {
		if e.holds(value) {
			return e
		}
	}
	for _, e := range k.patterns {
		if matchParts(e.parts, value) {
			return e
		}
	}
	return k.any
}

func (e *domainEntry) holds(value string) bool {
	if e.Range != nil {
		n, err := strconv.ParseInt(value, 10, 64)
		return err == nil && e.Range.From <= n && n <= e.Range.To
	}
	a, err := netip.ParseAddr(value)
	return err == nil && e.Prefix.Contains(a.Unmap().WithZone(""))
}

// matchParts tells whether value is the parts, of which there are two at least, with anything in between.
func matchParts(parts []string, value string) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(value) < len(first)+len(last) || !strings.HasPrefix(value, first) || !strings.HasSuffix(value, last) {
		return false
	}
	rest := value[len(first) : len(value)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, p)
		if !found {
			return false
		}
		rest = after
	}
	return true
}

// domain is a compiled Domain; immutable but for what its limits have counted.
type domain struct {
	prefix string // what its keys begin with
	root   *domainNode
	base   *limit   // of requests that bring their limit themselves
	limits []*limit // of all nodes
}

// domain makes a Domain ready.
func (c *compiler) domain(d *Domain) (*domain, error) {
	if d.Name == "" || d.Name == OwnDomain || len(d.Name) > maxName || !utf8.ValidString(d.Name) {
		return nil, fmt.Errorf("domain %.100q: want a name in UTF-8, not that of this system's own Envoys (%s)", d.Name, OwnDomain)
	}
	name := "rateLimits/" + d.Name
	base, err := c.limit(Limit{Name: name, Rate: Rate{Unlimited: true}})
	if err != nil {
		return nil, err
	}
	c.nodes = nil
	root, err := c.node(name, d.Descriptors, 0)
	return &domain{prefix: base.prefix, root: root, base: base, limits: c.nodes}, err
}

// find gives the node that a request's descriptor meets; nil when the tree doesn't hold its path. The key of its bucket
// is appended to key.
func (d *domain) find(key []byte, entries []wireEntry) ([]byte, *domainEntry) {
	key = append(key, d.prefix...)
	n := d.root
	var e *domainEntry
	for i := range entries {
		k := n.keys[entries[i].key]
		if k == nil {
			return key, nil
		}
		if e = k.find(entries[i].value); e == nil {
			return key, nil
		}
		key = e.appendTo(key, &entries[i])
		n = e.below
	}
	return key, e
}

// appendTo tells the entry in the bucket's key. A value that stands in the policy, or is an address, is readable there;
// others may be credentials. What stands between key and value keeps the three apart: no exact value is empty or a star.
func (e *domainEntry) appendTo(key []byte, asked *wireEntry) []byte {
	key = store.AppendPart(append(key, '|'), e.Key)
	switch {
	case e.Shared:
		return store.AppendPart(append(key, "|*|"...), e.text)
	case e.Value != "" && e.parts == nil:
		return store.AppendPart(append(key, '|'), e.Value)
	}
	return appendValue(append(key, "||"...), asked.value)
}

func appendValue(key []byte, value string) []byte {
	if _, err := netip.ParseAddr(value); err == nil || value == "" {
		return store.AppendPart(key, value)
	}
	return store.AppendDigest(key, value)
}

// readForeign reads the descriptors of a domain that others ask with; false when there can be no decision.
func (s *Service) readForeign(t *turn, d *decision, from *domain) bool {
	t.found = t.found[:0]
	replaced := false
	for place := range t.request.descriptors {
		w := &t.request.descriptors[place]
		var e *domainEntry
		t.key, e = from.find(t.key[:0], w.entries)
		f := found{entry: e}
		switch {
		case w.limited:
			if !s.readBrought(t, d, from, place, &f) {
				return false
			}
		case e != nil && e.limit != nil:
			f.limit, f.rate = e.limit, e.limit.base
			f.key = s.keys.get(t.key)
			replaced = replaced || len(e.Replaces) > 0
		}
		t.found = append(t.found, f)
	}
	for place, f := range t.found {
		if f.limit == nil || replaced && t.replaced(place) {
			continue
		}
		w := &t.request.descriptors[place]
		if f.entry != nil && f.entry.PerValue && f.limit == f.entry.limit {
			f.limit = s.metrics.variant(f.limit, w.entries)
		}
		d.add(f.limit, f.rate, f.key, t.request.addend(w), place)
	}
	return true
}

// found is what a descriptor met.
type found struct {
	entry *domainEntry
	limit *limit // nil: none
	rate  *rate
	key   string
}

// replaced tells whether another descriptor of the request has a limit that stands in the place of this one's.
func (t *turn) replaced(place int) bool {
	e := t.found[place].entry
	if e == nil || e.RateName == "" {
		return false
	}
	for i, f := range t.found {
		if i != place && f.entry != nil && f.limit != nil && slices.Contains(f.entry.Replaces, e.RateName) {
			return true
		}
	}
	return false
}

// readBrought reads a descriptor that brings its limit itself: it counts by all its entries, whatever the tree says.
func (s *Service) readBrought(t *turn, d *decision, from *domain, place int, f *found) bool {
	w := &t.request.descriptors[place]
	o, err := from.base.override(w.limit)
	if err != nil {
		s.metrics.invalid.Inc()
		d.fail(codes.InvalidArgument, fmt.Sprintf("descriptor %d: %v", place, err))
		return false
	}
	if o == nil { // of a unit that isn't known
		return true
	}
	t.key = append(t.key[:0], o.prefix...)
	for i := range w.entries {
		t.key = store.AppendPart(append(t.key, '|'), w.entries[i].key)
		t.key = appendValue(append(t.key, "||"...), w.entries[i].value)
	}
	f.limit, f.rate, f.key = from.base, o.rate, s.keys.get(t.key)
	return true
}
