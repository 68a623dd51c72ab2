package control

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/legation/legation/store"
)

const (
	staged     = "stage/"
	recordMax  = 60 << 10        // bytes of what there is to be told of its canaries
	recordTime = time.Second     // that one may take to be written while a policy waits for it
	boardTime  = 2 * time.Second // that a start waits for what other processes know
)

// record is how what is new to a group is delivered.
type record struct {
	Group    string    `json:"group"`
	Core     string    `json:"core"`               // what is
	Whole    bool      `json:"whole,omitempty"`    // to all Envoys
	Canaries []string  `json:"canaries,omitempty"` // to these first
	From     string    `json:"from,omitempty"`     // content hash of the policy that the others are served
	Time     time.Time `json:"time"`
}

// wholly is the record of what all Envoys of a group get.
func wholly(group string, i issue) record {
	return record{Group: group, Core: i.core, Whole: true, Time: time.Now()}
}

// record is the last one of a group; nil where there is none.
func (c *Controller) record(group string) *record {
	if c.o.Parked == nil {
		return nil
	}
	e, ok := c.o.Parked.Get(staged + group)
	if !ok {
		return nil
	}
	var rec record
	if json.Unmarshal(e.Value, &rec) != nil || rec.Group != group {
		return nil
	}
	slices.Sort(rec.Canaries)
	rec.Canaries = slices.Compact(rec.Canaries)
	return &rec
}

// over tells whether all Envoys get what it is about; so they do without a record.
func (r *record) over() bool { return r == nil || r.Whole }

// past tells whether all Envoys get what was on its way, as another process has said while this one did not look: that it
// is over, or that what is next goes on from there.
func (r *record) past(was, next issue) bool {
	return r != nil && (r.Core == was.core && r.Whole || r.Core == next.core && r.From == was.revision)
}

// put writes a record.
func (c *Controller) put(ctx context.Context, rec record) error {
	if c.o.Parked == nil {
		return nil
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return c.o.Parked.Put(ctx, store.Entry{Name: staged + rec.Group, Value: value, Expires: time.Now().Add(parkedFor)})
}

// tellAtOnce writes a record while a policy waits for it; true when it could.
func (c *Controller) tellAtOnce(rec record) bool {
	ctx, cancel := context.WithTimeout(context.Background(), recordTime)
	defer cancel()
	return c.put(ctx, rec) == nil
}

// untold is the records that are still to be written of who the canaries are. The caller holds mu.
func (f fleet) untold() map[*stage]record {
	all := map[*stage]record{}
	for group, st := range f {
		if s := st.stage; s != nil && !s.known {
			all[s] = record{Group: group, Core: st.now.core, Canaries: s.nodes(), From: s.base.revision, Time: s.began}
		}
	}
	return all
}

// tellNow writes what is untold before an Envoy is served it, so that a restart knows of it. The caller holds mu.
func (c *Controller) tellNow() {
	for s, rec := range c.fleet.untold() {
		s.known = c.tellAtOnce(rec)
	}
}

// tellStages writes what is still untold, while nobody waits.
func (c *Controller) tellStages(ctx context.Context) {
	c.mu.Lock()
	untold := c.fleet.untold()
	c.mu.Unlock()
	for s, rec := range untold {
		err := c.put(ctx, rec)
		c.mu.Lock()
		s.known = s.known || err == nil && slices.Equal(rec.Canaries, s.nodes())
		c.mu.Unlock()
	}
}

// heedRecords does what other processes say of the stages: who the canaries are, that they are over, or that what was
// parked is tried again. The caller holds mu.
func (c *Controller) heedRecords() {
	var over []*stand
	changed := false
	for group, st := range c.fleet {
		rec := c.record(group)
		if rec == nil || rec.Core != st.now.core {
			continue
		}
		switch {
		case st.parked != nil && (!rec.Time.After(st.parked.Time) || c.known(group, st.now.digest) != nil):
		case st.parked != nil && (rec.Whole || st.plan == nil):
			st.now.at = time.Now()
			over = append(over, st)
		case st.parked != nil:
			st.stage = newStage(*st.good, rec.Canaries)
			st.parked, st.now.at, st.stage.known, changed = nil, time.Now(), true, true
		case st.stage != nil && rec.Whole:
			over = append(over, st)
		case st.stage != nil && !slices.Equal(rec.Canaries, st.stage.nodes()) && len(rec.Canaries) > 0:
			st.stage.choose(rec.Canaries)
			st.stage.known, changed = true, true
			c.logStaged(group, st)
		}
	}
	if changed {
		c.publish()
	}
	c.release(over)
}

// awaitBoard waits until it is known what other processes wrote: by it a stage goes on, and what is parked stays so.
func (c *Controller) awaitBoard(ctx context.Context) {
	if c.o.Parked == nil || c.o.XDS == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, boardTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !c.o.Parked.Known() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
