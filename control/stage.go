package control

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/xds"
)

// A gateway whose policy says delivery has what is new go to some of its Envoys first, the canaries, while the others stay
// at what they have: that is a stage. It ends when all canaries have held it for long enough, and then the others get it,
// too; or when one of them refuses it, leaves or does not take it: then it is parked, as what too many Envoys refuse.
//
// Of several processes each watches the canaries that are connected to it, and tells the others (muster). Who the canaries
// are, and that a stage is over, is one record of the group on the board; the last one counts.

// Staged is a policy on its way to the Envoys of a group: some have it, the others what they had.
type Staged struct {
	Group    string    `json:"group"`
	Revision string    `json:"revision"` // content hash of the policy that the canaries get
	From     string    `json:"from"`     // that of the policy that the others are served
	Time     time.Time `json:"time"`     // when it began
	Hold     float64   `json:"hold"`     // seconds that the canaries have to hold it
	Of       int       `json:"of"`       // Envoys that are connected, to all processes
	Canaries []Canary  `json:"canaries"` // by node id; empty while no Envoy is connected
	Origin   string    `json:"origin"`   // of delivery, in the policy
}

// stagedOf is the stages of the policy with that content hash.
func (o *Outcome) stagedOf(hash string) []Staged {
	return slices.DeleteFunc(slices.Clone(o.Staged), func(s Staged) bool { return s.Revision != hash })
}

// namesTold is how many Envoys of a group other processes are told of, to choose from.
const namesTold = 300

// plan is what the policy of a group says under delivery.
type plan struct {
	deliverer
	origin string
}

type deliverer interface {
	Canaries(of int) int
	Holds() time.Duration
}

// plansOf is those of a policy, by group.
func plansOf(m *policy.Model) map[string]*plan {
	plans := map[string]*plan{}
	for _, g := range m.Gateways {
		for set, d := range policy.Each[deliverer](g.Settings) {
			plans[g.Name] = &plan{d, set.Pos().String()}
		}
	}
	return plans
}

// stage is what is new to a group on its way.
type stage struct {
	base     issue // what the others are served
	began    time.Time
	canaries map[string]*canary // by node id; empty: none is chosen yet
	known    bool               // the record has them
	of       int                // Envoys, over all processes
	stuck    bool               // it is held, and the board can't be told
}

func newStage(base issue, canaries []string) *stage {
	s := &stage{base: base, began: time.Now()}
	s.choose(canaries)
	return s
}

// choose makes those the canaries. What is known of one that was it already stays.
func (s *stage) choose(ids []string) {
	before := s.canaries
	s.canaries = make(map[string]*canary, len(ids))
	for _, id := range ids {
		s.canaries[id] = cmp.Or(before[id], &canary{Canary: Canary{Node: id}, seen: time.Now()})
	}
}

func (s *stage) nodes() []string { return slices.Sorted(maps.Keys(s.canaries)) }

// wanting tells whether there are canaries to be chosen: there are none, or one was never seen, as it had left by then.
func (s *stage) wanting() bool {
	for _, k := range s.canaries {
		if k.came.IsZero() && time.Since(k.seen) > absentFor {
			return true
		}
	}
	return len(s.canaries) == 0
}

// held tells whether all canaries have held it for long enough.
func (s *stage) held() bool {
	for _, k := range s.canaries {
		if !k.Held {
			return false
		}
	}
	return len(s.canaries) > 0
}

// staged lists the stages, by group.
func (f fleet) staged() (all []Staged) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		st := f[name]
		if st.stage == nil {
			continue
		}
		s := Staged{
			Group: name, Revision: st.now.revision, From: st.stage.base.revision, Time: st.stage.began, Of: st.stage.of,
			Hold: st.plan.Holds().Seconds(), Canaries: []Canary{}, Origin: st.plan.origin,
		}
		for _, id := range st.stage.nodes() {
			s.Canaries = append(s.Canaries, st.stage.canaries[id].Canary)
		}
		all = append(all, s)
	}
	return all
}

// core is a hash of what of a snapshot goes in stages: all but endpoints and secrets, which are live, and the labels of
// revisions.
func core(s *xds.Snapshot) string {
	return hashed(s, resource.ListenerType, resource.RouteType, resource.ScopedRouteType, resource.VirtualHostType, resource.ClusterType,
		resource.RuntimeType)
}

// follow is the issue with what changed of endpoints and secrets alone.
func (i issue) follow(before, after *xds.Snapshot, urls ...string) issue {
	i.snapshot = i.snapshot.Follow(before, after, urls...)
	i.digest = digest(i.snapshot)
	return i
}

// begin has what is new to a group go to some of its Envoys first, where its policy says so and there is something that the
// others can go on with. A policy that goes back does so at once.
func (c *Controller) begin(group string, st, old *stand, nodes []xds.NodeStatus) {
	if old != nil && old.stage != nil && old.now.core == st.now.core && st.plan != nil {
		st.stage = old.stage
		st.stage.base = old.stage.base.follow(old.now.snapshot, st.now.snapshot, resource.EndpointType, resource.SecretType)
		return
	}
	rec := c.record(group)
	var base *issue
	if old != nil && old.stage != nil && rec.past(old.now, st.now) {
		base = new(old.now)
	} else if old != nil {
		base = new(old.served())
	} else if st.plan != nil && c.fleet == nil { // and not a group that is new
		base = c.running(group, st.now)
	}
	if base == nil {
		return
	}
	switch {
	case base.core == st.now.core:
		if old != nil && (old.stage != nil || old.parked != nil) && !rec.over() {
			c.tellAtOnce(wholly(group, st.now))
		}
	case rec != nil && rec.Core == st.now.core && rec.Whole:
	case st.plan == nil || c.shelf.read.Source == revision.Rollback || old != nil && old.hopeless(group, nodes):
		if rec != nil {
			c.tellAtOnce(wholly(group, st.now))
		}
	case rec != nil && rec.Core == st.now.core && (old == nil || old.parked == nil):
		st.stage = newStage(*base, rec.Canaries)
		st.stage.known = true
		c.logStaged(group, st)
	default:
		st.stage = newStage(*base, nil)
		c.choose(group, st, nodes)
	}
	if st.stage != nil {
		st.good = new(*base)
	}
}

// hopeless tells whether what the group is served is refused, and nobody is known to have taken it or another.
func (st *stand) hopeless(group string, nodes []xds.NodeStatus) bool {
	return st.good == nil && slices.ContainsFunc(nodes, func(n xds.NodeStatus) bool { return n.Group == group && len(refusals(n, time.Time{})) > 0 })
}

// served is what the group is served, but for canaries.
func (st *stand) served() issue {
	switch {
	case st.stage != nil:
		return st.stage.base
	case st.parked != nil:
		return *st.good
	default:
		return st.now
	}
}

// running is what the Envoys of a group may be taken to run where this process has not served them yet; nil where nothing
// is known, or where it is what there is now.
func (c *Controller) running(group string, now issue) *issue {
	rec, from := c.record(group), ""
	under := !rec.over() // a stage was, when this process was not there
	mine := rec != nil && rec.Core == now.core
	switch {
	case mine && rec.Whole, !mine && c.shelf.recalled == now.revision:
		return nil
	case under:
		from = rec.From
	}
	for i, one := range c.past(group, now.revision, from) {
		switch {
		case one.snapshot == nil && (i == 0 && !under || one.revision == from):
			return nil // it was served already
		case one.snapshot == nil || c.known(group, one.digest) != nil:
		case one.core != now.core:
			return &one
		case !under || !mine:
			return nil
		}
	}
	return nil
}

// choose picks the canaries of a stage from the Envoys that are connected, to whatever process: each time others, and all
// processes the same ones.
func (c *Controller) choose(group string, st *stand, nodes []xds.NodeStatus) {
	own, all := envoysOf(nodes, group)
	if len(own) == 0 && time.Since(st.stage.began) >= unsettled {
		own = all
	}
	pool, total := own, len(all)
	for _, other := range c.muster.others(group) {
		pool, total = append(pool, other.Candidates...), total+other.Connected
	}
	pool = ranked(pool, st.now.core)
	st.stage.of = total
	pool = first(pool, st.plan.Canaries(total))
	size := 0
	for i, id := range pool {
		name, err := json.Marshal(id)
		if size += len(name) + reportMax; err != nil || size > recordMax {
			pool = pool[:i]
			break
		}
	}
	before := st.stage.nodes()
	if st.stage.choose(pool); !slices.Equal(before, st.stage.nodes()) {
		for _, n := range nodes { // until they are looked at, the status has them as they were chosen
			if k := st.stage.canaries[n.ID]; k != nil && n.Group == group && n.Connected.After(k.Connected) {
				k.Connected = n.Connected
			}
		}
		st.stage.known = false
		c.logStaged(group, st)
	}
}

func (c *Controller) logStaged(group string, st *stand) {
	if len(st.stage.canaries) > 0 {
		c.o.Log.Info("staged: some envoys get the policy first", "group", group, "revision", st.now.revision, "canaries", st.stage.nodes(),
			"hold", st.plan.Holds())
	}
}

// observe looks how the canaries stand, and tells whether there are new ones. The caller holds mu.
func (c *Controller) observe(nodes []xds.NodeStatus, deaf bool) (chosen bool) {
	for group, st := range c.fleet {
		if st.stage == nil {
			continue
		}
		if st.stage.wanting() {
			before := st.stage.nodes()
			c.choose(group, st, nodes)
			chosen = chosen || !slices.Equal(before, st.stage.nodes())
		}
		others := c.muster.others(group)
		_, all := envoysOf(nodes, group)
		st.stage.of = len(all)
		for _, other := range others {
			st.stage.of += other.Connected
		}
		for id, k := range st.stage.canaries {
			k.look(sightOf(st, group, id, nodes, others), st.plan.Holds(), deaf)
		}
	}
	return chosen
}

// failing parks what is staged where a canary has gone wrong, and lists what has all canaries hold it. The caller holds mu.
func (c *Controller) failing() (parked []*stand, held map[string]*stage) {
	held = map[string]*stage{}
	for group, st := range c.fleet {
		if st.stage == nil {
			continue
		}
		var reasons []Reason
		refused := 0
		for _, id := range st.stage.nodes() {
			if wrong := st.stage.canaries[id].wrong(st.plan.origin); len(wrong) > 0 {
				refused++
				reasons = first(append(reasons, wrong...), reasonsKept)
			}
		}
		switch {
		case refused > 0:
			st.parked = &Parked{Group: group, Time: time.Now(), Refused: refused, Of: len(st.stage.canaries), Canaries: true, Reasons: reasons}
			st.told = false
			st.fall(*st.parked)
			parked = append(parked, st)
		case st.stage.held():
			held[group] = st.stage
		}
	}
	return parked, held
}

// fall has a stage go back to what the others have.
func (st *stand) fall(p Parked) {
	st.good = new(st.stage.base)
	p.Revision, p.To = st.now.revision, st.good.revision
	st.parked, st.stage, st.fell = &p, nil, st.stage
}

// promote has what all canaries hold go on to the others, once the other processes can know it.
func (c *Controller) promote(ctx context.Context, held map[string]*stage) {
	for group, s := range held {
		c.mu.Lock()
		st := c.fleet[group]
		if st == nil || st.stage != s {
			c.mu.Unlock()
			continue
		}
		rec := wholly(group, st.now)
		c.mu.Unlock()
		if err := c.put(ctx, rec); err != nil {
			c.mu.Lock()
			if !s.stuck {
				c.o.Log.Warn("stage not over: other processes can't know it", "group", group, "error", err)
			}
			s.stuck = true
			c.mu.Unlock()
			if c.o.Replica != "" {
				continue
			}
		}
		c.mu.Lock()
		if st = c.fleet[group]; st != nil && st.stage == s {
			c.o.Log.Info("stage held: all envoys of the group get it", "group", group, "revision", st.now.revision, "canaries", s.nodes(),
				"after", time.Since(s.began).Round(time.Second))
			c.metrics.stages.WithLabelValues(group, "promoted").Inc()
			c.release([]*stand{st})
		}
		c.mu.Unlock()
	}
}

// release has all Envoys of groups get what there is for them. The caller holds mu.
func (c *Controller) release(stands []*stand) {
	if len(stands) == 0 {
		return
	}
	c.tables = slices.Clone(c.tables)
	c.tables[0] = new(*c.tables[0]) // for what waits to forget the older ones, this is another
	for _, st := range stands {
		c.tables = append(c.tables, older([]*Compiled{st.served().tables}, c.tables[0])...)
		st.stage, st.parked = nil, nil
	}
	c.untilAcknowledged(c.publish(), c.tables[0])
	next := c.retell()
	next.Changed, next.Rotated = false, nil // told already
	c.o.Report(next)
}

// staging tells whether a stage is under way.
func (c *Controller) staging() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, st := range c.fleet {
		if st.stage != nil {
			return true
		}
	}
	return false
}

// describe adds to what other processes are told of a group which of its Envoys they may choose, and how the canaries stand
// that are connected to this one.
func (st *stand) describe(t *tally, group string, nodes []xds.NodeStatus) {
	own, _ := envoysOf(nodes, group)
	t.Candidates = first(ranked(own, st.served().core), min(namesTold, len(own)))
	slices.Sort(t.Candidates)
	if st.stage == nil {
		return
	}
	t.trial = trial{Core: st.now.core, Canaries: map[string]report{}}
	for _, id := range st.stage.nodes() {
		if k := st.stage.canaries[id]; !k.Connected.IsZero() && k.here {
			t.trial.Canaries[id] = k.report()
		}
	}
}

// retellStages has the outcome say how far the stages are.
func (c *Controller) retellStages() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.outcome.Load(); o.Revision != "" && !reflect.DeepEqual(c.fleet.staged(), o.Staged) {
		c.retell()
	}
}
