package ratelimit

import (
	_ "embed"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

//go:embed domain.md
var domainDoc string

//go:embed descriptors.md
var descriptorsDoc string

// The keys of the entries of the section rateLimits: what Envoys that others configure ask for.
var (
	DomainKind      = policy.Define[DomainName]("domain", policy.InDomain, domainDoc)
	DescriptorsKind = policy.Define[Descriptors]("descriptors", policy.InDomain, descriptorsDoc)
)

// DomainName is what stands under domain.
type DomainName string

// Descriptors is what stands under descriptors: a tree, whose levels are the entries of a request's descriptor.
type Descriptors []Descriptor

// Descriptor is one node of the tree.
type Descriptor struct {
	Key   string `policy:"entry,required" doc:"the key of a descriptor's entry: remote_address"`
	Value string `policy:"value" doc:"its value, in which each * stands for any characters; default: any value that no other descriptor names"`
	Range *Range `policy:"range" doc:"in place of a value, whole numbers (400-499) or addresses (10.0.0.0/8)"`

	Rate      *policy.Rate    `policy:"rate" doc:"requests per second, minute, hour, day or time span: 100/minute, 10/30s"`
	Burst     int64           `policy:"burst" doc:"how many requests may come at once; the bucket then fills at the rate (gcra)"`
	Quota     *policy.Quota   `policy:"quota" doc:"in place of a rate, requests per day, week, month or year of the calendar: 10000/month"`
	TimeZone  policy.TimeZone `policy:"timeZone" doc:"where the quota's days begin at midnight, by its IANA name; default: UTC"`
	Algorithm Algorithm       `policy:"algorithm" doc:"fixedWindow, slidingWindow or gcra; default: gcra with burst, else fixedWindow"`
	Mode      Mode            `policy:"mode" doc:"who counts: exact (the store, each request; the default) or leased (each process in lots)"`
	Lease     *int64          `policy:"lease" doc:"the most requests that a process takes ahead of need with mode: leased; default: one of a hundred, 1000 at most"`
	Unlimited bool            `policy:"unlimited" doc:"whether nothing is counted and nobody refused; metrics tell the requests"`
	Deny      bool            `policy:"deny" doc:"whether every request is refused"`
	OnError   OnError         `policy:"onError" doc:"when counts can't be had: local (each process counts for itself, the default), allow or deny"`
	Headers   Headers         `policy:"headers" doc:"the response headers that tell of the limit: draft03, structured, legacy, none, or a list; default: draft03"`

	Shadow   bool              `policy:"shadow" doc:"whether the limit counts and reports, and refuses nobody"`
	Soft     bool              `policy:"soft" doc:"whether the limit refuses only when all soft limits of the request are over; else it marks the request"`
	Shared   bool              `policy:"shared" doc:"whether all values that fit a pattern or a range count in one bucket"`
	PerValue bool              `policy:"perValue" doc:"whether metrics tell the values that were asked for, up to 500 of them"`
	Name     string            `policy:"name" doc:"what replaces of other descriptors names"`
	Replaces []string          `policy:"replaces" doc:"names of limits that don't count where this one does"`
	Metadata map[string]string `policy:"metadata" doc:"what the answer's dynamic metadata says when the limit lets the request pass"`

	Descriptors []Descriptor `policy:"descriptors" doc:"the descriptors for the entry that follows"`
}

// Range is whole numbers or addresses.
type Range struct {
	Numbers ratelimit.Range
	Prefix  netip.Prefix // valid: addresses
}

// DecodePolicy reads 400-499 or 10.0.0.0/8.
func (r *Range) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if prefix, err := netip.ParsePrefix(n.Text); n.Kind == policy.Scalar && err == nil {
		if prefix != prefix.Masked() {
			d.Errorf(n, "the prefix %s has bits beyond its length", n.Text).Hintf("write %s", prefix.Masked())
			return
		}
		r.Prefix = prefix
		return
	}
	from, to, ok := strings.Cut(n.Text, "-")
	low, err1 := strconv.ParseUint(from, 10, 62)
	high, err2 := strconv.ParseUint(to, 10, 62)
	switch {
	case n.Kind != policy.Scalar || !ok || err1 != nil || err2 != nil:
		d.Errorf(n, "want a range of numbers such as 400-499, or of addresses such as 10.0.0.0/8")
	case low > high:
		d.Errorf(n, "the range %s is empty", n.Text).Hintf("write the smaller number first: %s-%s", to, from)
	default:
		r.Numbers = ratelimit.Range{From: int64(low), To: int64(high)}
	}
}

// PolicySchema describes a range.
func (*Range) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": `^([0-9]+-[0-9]+|[0-9A-Fa-f.:]+/[0-9]+)$`, "description": "numbers 400-499, or addresses 10.0.0.0/8"}
}

// Check holds the name against those of the other domains.
func (n *DomainName) Check(c *policy.Check) {
	switch {
	case *n == "":
		c.Errorf("", "want the name that Envoys ask with").Hintf("leave domain out where it is the entry's own: %s", c.Entry().Name)
	case *n == ratelimit.OwnDomain:
		c.Errorf("", "Envoys that get their policy from here ask with %q", *n).Hintf("give the domain another name")
	default:
		if err := n.validate(); err != nil { // the companion would leave it out, and so count nothing
			c.Errorf("", "can't be counted: %v", err)
		}
	}
	if !c.Entry().Settings.Has("descriptors") && !c.Broken("descriptors") {
		c.Errorf("", "a domain needs its descriptors").Hintf("write descriptors: [{entry: remote_address, rate: 10/second}]")
	}
}

// usable tells whether Check has nothing against the name.
func (n *DomainName) usable() bool {
	return *n != "" && *n != ratelimit.OwnDomain && n.validate() == nil
}

func (n *DomainName) validate() error {
	d := ratelimit.Domain{Name: string(*n)}
	return d.Validate()
}

// nameOf is what Envoys call the domain.
func nameOf(d *policy.Domain) string {
	if name, ok := policy.Find[*DomainName](d.Settings); ok {
		return string(*name)
	}
	return d.Name
}

func tree(descriptors []Descriptor) []ratelimit.Descriptor {
	list := make([]ratelimit.Descriptor, 0, len(descriptors))
	for i := range descriptors {
		list = append(list, descriptors[i].node())
	}
	return list
}

// node is what the companion reads.
func (d *Descriptor) node() ratelimit.Descriptor {
	n := ratelimit.Descriptor{
		Key: d.Key, Value: d.Value, Deny: d.Deny, Soft: d.Soft, Shared: d.Shared, PerValue: d.PerValue,
		RateName: d.Name, Replaces: slices.Clone(d.Replaces), Metadata: maps.Clone(d.Metadata), Descriptors: tree(d.Descriptors),
	}
	switch {
	case d.Range == nil:
	case d.Range.Prefix.IsValid():
		n.Prefix = d.Range.Prefix
	default:
		n.Range = new(d.Range.Numbers)
	}
	if d.counts() {
		l := d.limit("").limit(policy.Layer{}, 0)
		l.Name = "" // the companion names it after its path
		n.Limit = &l
	}
	if d.Unlimited {
		n.Limit = &ratelimit.Limit{Rate: ratelimit.Rate{Unlimited: true}}
	}
	return n
}

// counts tells whether the descriptor has a limit of its own that counts.
func (d *Descriptor) counts() bool { return d.Rate != nil || d.Quota != nil }

// limit is the descriptor's limit as one of a route, so that both mean the same; path is where it stands.
func (d *Descriptor) limit(path string) *Setting {
	return &Setting{path: path, Limits: []Limit{{
		Rate: d.Rate, Burst: d.Burst, Quota: d.Quota, TimeZone: d.TimeZone, Algorithm: d.Algorithm, Mode: d.Mode, Lease: d.Lease,
		Headers: d.Headers, Shadow: d.Shadow, OnError: d.OnError,
	}}}
}
