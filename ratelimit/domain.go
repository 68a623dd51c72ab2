package ratelimit

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"

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

	Limit    *Limit // nil: nothing is counted here. Its Name is unique in the domain, and By is empty
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
	if d.Name == "" || d.Name == OwnDomain || len(d.Name) > maxName {
		return fmt.Errorf("domain %.100q: want a name, not that of this system's own Envoys (%s)", d.Name, OwnDomain)
	}
	_, err := newNode(d.Name, d.Descriptors, 0)
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
	parts []string // of a pattern, between the stars
	text  string   // stands for the values of a shared bucket
	below *domainNode
}

func newNode(path string, descriptors []Descriptor, depth int) (*domainNode, error) {
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
		e := &domainEntry{Descriptor: d}
		if err := k.add(e); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, d.Key, err)
		}
		if d.Limit != nil && len(d.Limit.By) > 0 {
			return nil, fmt.Errorf("%s: %s: a domain's limit counts by its descriptors alone", path, d.Key)
		}
		var err error
		if e.below, err = newNode(path+"/"+d.Key+e.suffix(), d.Descriptors, depth+1); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (e *domainEntry) suffix() string {
	if e.text == "" {
		return ""
	}
	return "=" + e.text
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
		e.parts, e.text = strings.Split(e.Value, "*"), e.Value
		for _, other := range k.patterns {
			if other.Value == e.Value {
				return errTwice
			}
		}
		k.patterns = append(k.patterns, e)
	default:
		if e.text = e.Value; k.values[e.Value] != nil {
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
	case e.Range != nil:
		e.text = fmt.Sprintf("%d-%d", e.Range.From, e.Range.To)
	default:
		e.text = e.Prefix.Masked().String()
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
	k.ranges = append(k.ranges[:at], append([]*domainEntry{e}, k.ranges[at:]...)...)
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

// entry is one key and value of a request's descriptor.
type entry = rlcommon.RateLimitDescriptor_Entry

// find gives the node that a request's descriptor meets, and the key of its bucket. A path that the tree doesn't hold
// gives nil.
func (n *domainNode) find(domain string, entries []*entry) (*domainEntry, string) {
	var room [2*maxEntries + 1]string
	parts := append(room[:0], "rateLimits/"+domain)
	var e *domainEntry
	for _, asked := range entries {
		k := n.keys[asked.GetKey()]
		if k == nil {
			return nil, ""
		}
		if e = k.find(asked.GetValue()); e == nil {
			return nil, ""
		}
		parts = append(parts, e.keyParts(asked)...)
		n = e.below
	}
	if e == nil {
		return nil, ""
	}
	return e, store.Key(parts...)
}

// keyParts tell the entry in the bucket's key. A value that stands in the policy, or is an address, is readable there;
// others may be credentials. What stands between key and value keeps the three apart: no exact value is empty or a star.
func (e *domainEntry) keyParts(asked *entry) []string {
	switch {
	case e.Shared:
		return []string{e.Key, "*", e.text}
	case e.Value != "" && e.parts == nil:
		return []string{e.Key, e.Value}
	}
	value := asked.GetValue()
	if _, err := netip.ParseAddr(value); err != nil && value != "" {
		value = store.Digest(value)
	}
	return []string{e.Key, "", value}
}
