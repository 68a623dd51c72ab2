package xds

import (
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// subscription is one resource type on one stream: what the Envoy wants, what it has, and what is on its way. What it
// has is a shared set and a few exceptions, so that a thousand streams in sync cost a thousand pointers.
type subscription struct {
	url      string
	kind     kind
	protocol Protocol

	started  bool
	wildcard bool
	names    map[string]struct{} // go-control-plane's: changes only while send is nil
	send     func()              // puts a token in the channel of the watch; nil while no watch is open
	queued   bool                // a token is in the channel
	answered bool                // the Envoy has had a first answer, or said what it has

	base    *set              // what it has, if it wants it
	over    map[string]*entry // instead of what base says; nil: it does not have it and asked for it
	settled bool              // nothing is to be sent of the present target but what is left over

	inflight *shipment
	rejected map[string]string // name -> version; not sent again unless it changes
	sent     string
	acked    string
	at       time.Time // of the last change of state
	words    string    // Envoy's
	blamed   []Blame
}

// forgotten stands for what the Envoy does not have and has not asked for, whatever base says.
var forgotten = &entry{}

// shipment is a response that awaits its ACK.
type shipment struct {
	nonce   string // "" until go-control-plane has given it one
	version string
	entries []*entry
	changed []*entry // those of the entries that are not repeated
	gone    []string
	whole   bool
}

// change is what a subscription is to be sent.
type change struct {
	upserts []*entry // new or changed
	asked   []*entry // asked for by name
	absent  []string // asked for by name, but not there
	gone    []*entry // had, but no longer there
}

func (c change) empty() bool {
	return len(c.upserts)+len(c.asked)+len(c.absent)+len(c.gone) == 0
}

// maxNames bounds what one stream can make the server remember of one type.
const maxNames = 100_000

// knowInitially takes what a reconnecting Envoy says it has.
func (t *subscription) knowInitially(versions map[string]string) {
	for name, version := range versions {
		t.except(name, &entry{Resource: Resource{Type: t.url, Name: name, Version: version}})
		t.answered = true
	}
}

// subscribe takes what Envoy wants. In delta, asked is what the request adds; in the state of the world it is all
// names, of which the new ones count.
func (t *subscription) subscribe(sub cache.Subscription, asked map[string]struct{}, dropped []string) error {
	names := sub.SubscribedResources()
	if len(names) > maxNames || len(t.over)+len(asked) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of one type", maxNames)
	}
	if sub.IsWildcard() && !t.wildcard && t.started {
		t.widen()
	}
	for name := range asked {
		if t.isNew(name) && name != "*" {
			t.except(name, nil)
		}
	}
	for _, name := range dropped {
		if name == "*" {
			continue
		}
		if delete(t.over, name); sub.IsWildcard() { // xDS: an answer is due, as it stays subscribed
			t.except(name, nil)
		}
	}
	t.wildcard, t.names, t.started = sub.IsWildcard(), names, true
	return nil
}

// isNew is whether a name in a request asks for an answer.
func (t *subscription) isNew(name string) bool {
	if t.protocol == SotW {
		_, had := t.names[name]
		return !had
	}
	return t.started || t.over[name] == nil // the first request may repeat what the Envoy has
}

// widen turns what is known of the names into what is known of everything.
func (t *subscription) widen() {
	over := map[string]*entry{}
	for name := range t.names {
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

func (t *subscription) wants(name string) bool {
	if t.wildcard {
		return true
	}
	_, ok := t.names[name]
	return ok
}

// has is what the Envoy has under that name, if it wants it.
func (t *subscription) has(name string) *entry {
	if e, ok := t.over[name]; ok {
		return e
	}
	return t.base.get(name)
}

// pending is what leads from what the Envoy has to the set.
func (t *subscription) pending(to *set) change {
	var c change
	var d diff
	if t.base != nil || t.wildcard {
		d = to.since(t.base)
	}
	if len(t.over) == 0 && t.wildcard && (t.protocol == Delta || t.kind.whole) {
		return change{upserts: d.upserts, gone: d.gone}
	}
	for _, e := range d.upserts {
		if _, except := t.over[e.Name]; !except && t.wants(e.Name) {
			c.upserts = append(c.upserts, e)
		}
	}
	for _, e := range d.gone {
		if _, except := t.over[e.Name]; !except && t.wants(e.Name) {
			c.gone = append(c.gone, e)
		}
	}
	t.exceptions(to, &c)
	if t.protocol == SotW && !t.kind.whole {
		c.gone = nil // which an answer could not say
	}
	return c
}

// exceptions adds what follows from them.
func (t *subscription) exceptions(to *set, c *change) {
	for name, had := range t.over {
		now := to.byName[name]
		switch {
		case !t.wants(name), now == nil && had == forgotten:
		case had == nil && now == nil:
			c.absent = append(c.absent, name)
		case had == nil:
			c.asked = append(c.asked, now)
		case now == nil:
			c.gone = append(c.gone, had)
		case now.Version != had.Version:
			c.upserts = append(c.upserts, now)
		}
	}
	slices.SortFunc(c.upserts, byName)
	slices.SortFunc(c.asked, byName)
	slices.SortFunc(c.gone, byName)
	slices.Sort(c.absent)
}

// commit notes that the change is on its way: all of pending if it is everything, else what was asked for.
func (t *subscription) commit(to *set, c change, all bool, left []*entry) {
	if !all {
		for _, e := range c.asked {
			if t.over[e.Name] = e; t.base.get(e.Name) == e {
				delete(t.over, e.Name)
			}
		}
		for _, name := range c.absent {
			delete(t.over, name)
		}
		return
	}
	t.base, t.over = to, nil
	for _, e := range left {
		t.except(e.Name, e)
	}
}

// all lists what the Envoy has, by name, for an answer that has to be whole.
func (t *subscription) all() []*entry {
	if t.wildcard && len(t.over) == 0 && t.base != nil {
		return t.base.sorted
	}
	var list []*entry
	add := func(e *entry) {
		if e != nil && e.Body != nil && t.wants(e.Name) {
			list = append(list, e)
		}
	}
	if t.base != nil {
		for _, e := range t.base.sorted {
			if _, except := t.over[e.Name]; !except {
				add(e)
			}
		}
	}
	for _, e := range t.over {
		add(e)
	}
	slices.SortFunc(list, byName)
	return list
}
