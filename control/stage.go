package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
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

// Canary is an Envoy that has a policy before the others.
type Canary struct {
	Node      string    `json:"node"`
	Connected time.Time `json:"connected,omitzero"` // zero: it is not
	Since     time.Time `json:"since,omitzero"`     // when it had acknowledged all of it; zero: it has not
	Held      bool      `json:"held,omitempty"`     // for long enough
}

// stagedOf is the stages of the policy with that content hash.
func (o *Outcome) stagedOf(hash string) []Staged {
	return slices.DeleteFunc(slices.Clone(o.Staged), func(s Staged) bool { return s.Revision != hash })
}

const (
	staged     = "stage/"
	absentFor  = 15 * time.Second // that a canary may be away: it may be on its way back, or to another process
	takenIn    = time.Minute      // that it may need to take all of it, clusters that get warm included
	returnsMax = 3                // it comes back for the third time: it may have crashed as often
	unsettled  = 5 * time.Second  // after which one is chosen that has not even taken what the group has
	namesTold  = 300              // Envoys of a group that other processes are told of, to choose from
	nameMax    = 256              // bytes of the node id of a canary
	recordTime = time.Second      // that a record may take to be written while a policy waits for it
)

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
}

// canary is one as this process sees it.
type canary struct {
	Canary
	came    time.Time // when it connected last, though it may have left
	took    time.Time // Since, though it may have left
	seen    time.Time // when it was last connected, or began to be waited for
	behind  time.Time // since when it is connected and lacks something; zero: it does not
	here    bool      // connected to this process
	returns int
	refused []Reason
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
	h := sha256.New()
	for _, url := range []string{
		resource.ListenerType, resource.RouteType, resource.ScopedRouteType, resource.VirtualHostType, resource.ClusterType,
		resource.RuntimeType,
	} {
		h.Write([]byte(s.Version(url) + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
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
	var base *issue
	if old != nil {
		base = new(old.served())
	} else if st.plan != nil {
		base = c.running(group, st.now)
	}
	if base == nil || base.core == st.now.core {
		return
	}
	rec := c.record(group)
	switch {
	case rec != nil && rec.Core == st.now.core && rec.Whole:
	case st.plan == nil || c.shelf.read.Source == revision.Rollback || old != nil && old.hopeless(group, nodes):
		if rec != nil && !(rec.Core == st.now.core && rec.Whole) {
			c.tellAtOnce(record{Group: group, Core: st.now.core, Whole: true, Time: time.Now()})
		}
	case rec != nil && rec.Core == st.now.core && (old == nil || old.parked == nil):
		st.stage = newStage(*base, rec.Canaries)
		st.stage.known = true
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
	under := rec != nil && !rec.Whole // a stage was, when this process was not there
	switch {
	case under:
		from = rec.From
	case rec != nil && rec.Core == now.core || c.shelf.recalled == now.revision:
		return nil
	}
	for i, one := range c.past(group, now.revision, from) {
		switch {
		case one.snapshot == nil && i == 0 && !under:
			return nil // it was served already
		case one.snapshot == nil || c.known(group, one.digest) != nil:
		case one.core != now.core:
			return &one
		case !under || rec.Core != now.core:
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
	for _, other := range c.muster().others(group) {
		pool, total = append(pool, other.Candidates...), total+other.Connected
	}
	pool = ranked(pool, st.now.core)
	st.stage.of = total
	st.stage.choose(first(pool, st.plan.Canaries(total)))
	if st.stage.known = false; len(st.stage.canaries) > 0 {
		c.o.Log.Info("staged: some envoys get the policy first", "group", group, "revision", st.now.revision, "canaries", st.stage.nodes(),
			"of", total, "hold", st.plan.Holds())
	}
}

// envoysOf is the node ids of the Envoys of a group that have taken what they are served, and of all.
func envoysOf(nodes []xds.NodeStatus, group string) (settled, all []string) {
	for _, n := range nodes {
		if n.Group != group || len(n.ID) > nameMax {
			continue
		}
		if all = append(all, n.ID); n.Revision != "" && acknowledged(n) {
			settled = append(settled, n.ID)
		}
	}
	slices.Sort(all)
	slices.Sort(settled)
	return slices.Compact(settled), slices.Compact(all)
}

// acknowledged tells whether an Envoy has taken all that it was sent.
func acknowledged(n xds.NodeStatus) bool {
	return !slices.ContainsFunc(n.Types, func(t xds.TypeStatus) bool { return t.State != xds.ACK })
}

// ranked sorts names by their hashes with a salt, each once.
func ranked(names []string, salt string) []string {
	rank := make(map[string][sha256.Size]byte, len(names))
	for _, name := range names {
		rank[name] = sha256.Sum256([]byte(salt + "\x00" + name))
	}
	return slices.SortedFunc(maps.Keys(rank), func(a, b string) int {
		x, y := rank[a], rank[b]
		return cmp.Or(slices.Compare(x[:], y[:]), cmp.Compare(a, b))
	})
}

// observe looks how the canaries stand, and tells whether there are new ones. The caller holds mu.
func (c *Controller) observe(nodes []xds.NodeStatus, deaf bool) (chosen bool) {
	for group, st := range c.fleet {
		if st.stage == nil {
			continue
		}
		if len(st.stage.canaries) == 0 {
			c.choose(group, st, nodes)
			chosen = chosen || len(st.stage.canaries) > 0
			continue
		}
		others := c.muster().others(group)
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

// muster reads what other processes told.
func (c *Controller) muster() *muster { return &muster{board: c.o.Parked, name: c.o.Replica} }

// sight is what there is to see of a canary.
type sight struct {
	connected time.Time // zero: nowhere
	took      bool
	told      *Canary // by the process that it is connected to; nil: it is this one, or one that does not serve it yet
	elsewhere bool    // connected to one that does not serve it yet
	refused   []Reason
}

func sightOf(st *stand, group, id string, nodes []xds.NodeStatus, others []tally) (s sight) {
	for _, n := range nodes {
		if n.Group != group || n.ID != id {
			continue
		}
		took := n.Staged && n.Revision == st.now.revision && acknowledged(n)
		s.took = took && (s.took || s.connected.IsZero())
		if n.Connected.After(s.connected) {
			s.connected = n.Connected
		}
		if n.Staged {
			s.refused = append(s.refused, refusals(n, st.now.at)...)
		}
	}
	if !s.connected.IsZero() {
		return s
	}
	for _, other := range others {
		k, there := other.Canaries[id]
		if there && other.Core == st.now.core && k.Connected.After(s.connected) {
			s.connected, s.told, s.took = k.Connected, &k, !k.Since.IsZero()
		}
		s.elsewhere = s.elsewhere || slices.Contains(other.Candidates, id)
	}
	return s
}

// look takes what there is to see of it. Where the other processes can't be heard, one that is not here counts as there.
func (k *canary) look(s sight, hold time.Duration, deaf bool) {
	now := time.Now()
	k.here = !s.connected.IsZero() && s.told == nil
	if s.connected.IsZero() {
		k.Connected, k.Since, k.Held, k.behind = time.Time{}, time.Time{}, false, time.Time{}
		if s.elsewhere || deaf {
			k.seen = now
		}
		return
	}
	k.seen, k.refused = now, s.refused
	if !s.connected.Equal(k.came) {
		if !k.came.IsZero() {
			k.returns++
		}
		k.came, k.Since, k.Held = s.connected, time.Time{}, false
	}
	k.Connected = s.connected
	switch {
	case !s.took:
		k.Held = false
		if k.behind.IsZero() {
			k.behind = now
		}
		return
	case s.told != nil:
		k.Since, k.Held = s.told.Since, s.told.Held
	default:
		if k.Since.IsZero() {
			k.Since = now
		}
		k.Held = now.Sub(k.Since) >= hold
	}
	k.behind, k.took = time.Time{}, k.Since
}

// wrong is why the stage can't go on, as far as this canary goes.
func (k *canary) wrong(origin string) []Reason {
	now, why := time.Now(), ""
	switch {
	case len(k.refused) > 0:
		return k.refused
	case k.Connected.IsZero() && now.Sub(k.seen) > absentFor && k.took.IsZero():
		why = "left before it had taken it, and did not come back"
	case k.Connected.IsZero() && now.Sub(k.seen) > absentFor:
		why = fmt.Sprintf("left %s after it took it, and did not come back", max(k.seen.Sub(k.took).Round(time.Second), time.Second))
	case k.returns >= returnsMax:
		why = "came back for the third time since it got it"
	case !k.behind.IsZero() && now.Sub(k.behind) > takenIn:
		why = fmt.Sprintf("has not taken it within %s", takenIn)
	default:
		return nil
	}
	return []Reason{{Node: k.Node, Origin: origin, Error: why}}
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
	st.parked, st.stage = &p, nil
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
		rec := record{Group: group, Core: st.now.core, Whole: true, Time: time.Now()}
		c.mu.Unlock()
		if err := c.put(ctx, rec); err != nil {
			c.o.Log.Warn("stage not over: other processes can't know it", "group", group, "error", err)
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
	for _, st := range stands {
		c.tables = append(c.tables, older([]*Compiled{st.served().tables}, c.tables[0])...)
		st.stage, st.parked = nil, nil
	}
	c.untilAcknowledged(c.publish(), c.tables[0])
	next := c.retell()
	next.Changed, next.Rotated = false, nil // told already
	c.o.Report(next)
}

// record is how what is new to a group is delivered.
type record struct {
	Group    string    `json:"group"`
	Core     string    `json:"core"`               // what is
	Whole    bool      `json:"whole,omitempty"`    // to all Envoys
	Canaries []string  `json:"canaries,omitempty"` // to these first
	From     string    `json:"from,omitempty"`     // content hash of the policy that the others are served
	Time     time.Time `json:"time"`
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
	return &rec
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
		if s := st.stage; s != nil && len(s.canaries) > 0 && !s.known {
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
		}
	}
	if changed {
		c.publish()
	}
	c.release(over)
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
	t.Core = st.now.core
	for _, id := range st.stage.nodes() {
		if k := st.stage.canaries[id]; !k.Connected.IsZero() && k.here {
			if t.Canaries == nil {
				t.Canaries = map[string]Canary{}
			}
			t.Canaries[id] = k.Canary
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
