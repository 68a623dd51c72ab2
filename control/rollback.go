package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
	"github.com/legation/legation/xds"
)

// A policy that Legation accepts may be refused by Envoys all the same. One odd Envoy keeps what it had, alone. Once more
// than a tenth of a group refuses, and two of them at least, or all that there are, the group goes back to the last good
// snapshot by itself. What was refused is parked: no Envoy of the group is sent it again until it changes.

// Parked is the part of a policy that the Envoys of a group refused.
type Parked struct {
	Group    string    `json:"group"`
	Revision string    `json:"revision"` // content hash of the policy that holds it
	To       string    `json:"to"`       // that of the policy that the group is served instead
	Time     time.Time `json:"time"`
	Refused  int       `json:"refused"`            // Envoys
	Of       int       `json:"of"`                 // that were connected, to all processes
	Canaries bool      `json:"canaries,omitempty"` // these are those that had it first
	Reasons  []Reason  `json:"reasons"`            // some of them
}

// Reason is what one Envoy refused, or what became of a canary.
type Reason struct {
	Node     string `json:"node"`
	Type     string `json:"type"` // short: "cluster", "listener"; empty where it refused nothing
	Resource string `json:"resource,omitempty"`
	Origin   string `json:"origin,omitempty"` // in the policy; of delivery where it refused nothing
	Error    string `json:"error"`            // Envoy's words, or what it did
}

const (
	reasonsKept = 5
	parkedFor   = 30 * 24 * time.Hour // that other processes, and this one after a restart, know of it
	doubtFor    = 30 * time.Second    // after a refusal, how it stands is looked at each second
	lookedBack  = 5                   // revisions, for one that a group had before
	parkedMax   = 60 << 10            // bytes of what other processes are told
)

// fleet is what the node groups are served, by their names.
type fleet map[string]*stand

// stand is how a group stands.
type stand struct {
	now    issue   // what the policy has for it
	good   *issue  // the last that one of its Envoys took whole, or that it had before; nil: none is known
	parked *Parked // now was refused: good is served
	told   bool    // the board has what is parked
	plan   *plan   // nil: what is new goes to all at once
	stage  *stage  // now goes to some first; nil: to all
	fell   *stage  // that is over since it was parked, until that is published
}

// issue is a snapshot of a group, with what the companions answer for it.
type issue struct {
	revision string
	digest   string
	core     string
	snapshot *xds.Snapshot
	tables   *Compiled // Auth and Limits alone
	at       time.Time // when it was first published
}

func newIssue(compiled *Compiled, snapshot *xds.Snapshot) issue {
	return issue{
		revision: compiled.Model.Revision, digest: digest(snapshot), core: core(snapshot), snapshot: snapshot,
		tables: &Compiled{Auth: compiled.Auth, Limits: compiled.Limits}, at: time.Now(),
	}
}

// digest is a hash of what a snapshot holds, the same on every replica. Secrets are left out: it is told to other
// processes. So are extension configs, which are the labels: each revision has others, of the same policy for a group too.
func digest(s *xds.Snapshot) string {
	return hashed(s, resource.ListenerType, resource.RouteType, resource.ScopedRouteType, resource.VirtualHostType, resource.ClusterType,
		resource.EndpointType, resource.RuntimeType)
}

// hashed is a hash of what a snapshot holds of these types.
func hashed(s *xds.Snapshot, urls ...string) string {
	h := sha256.New()
	for _, url := range urls {
		h.Write([]byte(s.Version(url) + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// tables is what the companions have to know beside what the policy itself asks for: of groups that went back, and of those
// in which not all have it yet.
func (f fleet) tables(now *Compiled) (all []*Compiled) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if st := f[name]; st.parked != nil || st.stage != nil {
			all = append(all, older([]*Compiled{st.served().tables}, now)...)
		}
	}
	return all
}

// publish serves the groups what there is for them.
func (c *Controller) publish() *xds.Publication {
	groups, stages := make(map[string]*xds.Snapshot, len(c.fleet)), map[string]xds.Stage{}
	for name, st := range c.fleet {
		if groups[name] = st.served().snapshot; st.stage != nil {
			stages[name] = xds.Stage{Snapshot: st.now.snapshot, Nodes: st.stage.nodes()}
		}
	}
	return c.o.XDS.PublishStages(groups, stages)
}

// parked lists what is parked, by group.
func (f fleet) parked() (all []Parked) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if p := f[name].parked; p != nil {
			all = append(all, *p)
		}
	}
	return all
}

// parkedOf is what is parked of the policy with that content hash.
func (o *Outcome) parkedOf(hash string) []Parked {
	return slices.DeleteFunc(slices.Clone(o.Parked), func(p Parked) bool { return p.Revision != hash })
}

// next makes the fleet that a policy's snapshots lead to. What is parked stays so while it is the same.
func (c *Controller) next(compiled *Compiled, groups map[string]*xds.Snapshot) fleet {
	defer c.remember()()
	nodes := c.o.XDS.Status()
	c.approve(nodes)
	next, plans := make(fleet, len(groups)), plansOf(compiled.Model)
	for name, snapshot := range groups {
		st, old := &stand{now: newIssue(compiled, snapshot), plan: plans[name]}, c.fleet[name]
		if old != nil {
			if st.good = old.good; old.stage != nil {
				st.good = new(old.stage.base)
			}
			if old.now.digest == st.now.digest {
				st.now.at, st.parked, st.told = old.now.at, old.parked, old.told
			}
			if st.parked != nil { // certificates are renewed all the same
				st.good = new(old.good.follow(old.now.snapshot, st.now.snapshot, resource.SecretType))
			}
		}
		if st.parked == nil {
			st.parked, st.told = c.known(name, st.now.digest), true
		}
		if st.parked != nil && !c.back(name, st) {
			st.parked = nil // there is nothing else to serve
		}
		if st.parked == nil {
			c.begin(name, st, old, nodes)
		}
		next[name] = st
	}
	return next
}

// approve notes what an Envoy has taken whole.
func (c *Controller) approve(nodes []xds.NodeStatus) {
	for _, n := range nodes {
		st := c.fleet[n.Group]
		if st != nil && st.parked == nil && st.stage == nil && n.Revision == st.now.revision && len(refusals(n, time.Time{})) == 0 {
			st.good = new(st.now)
		}
	}
}

// back finds what a group goes back to; false where there is nothing.
func (c *Controller) back(group string, st *stand) bool {
	if st.good == nil || st.good.digest == st.now.digest {
		st.good = c.before(group, st.now, st.parked.To)
	}
	if st.good == nil {
		return false
	}
	p := *st.parked
	p.Revision, p.To = st.now.revision, st.good.revision
	st.parked = &p
	return true
}

// before looks in the history for what a group had before, that is not parked as well: the policy with that content hash, if
// it can be.
func (c *Controller) before(group string, now issue, hash string) *issue {
	for _, one := range c.past(group, now.revision, hash) {
		if one.snapshot != nil && one.digest != now.digest && c.known(group, one.digest) == nil {
			return &one
		}
	}
	return nil
}

// elsewhere is what the companions have to know beside a policy that was served before the restart, or that other processes
// serve: of groups that have gone back from it, and of those in which not all have it yet.
func (c *Controller) elsewhere(compiled *Compiled) (all []*Compiled) {
	if !c.unequal() {
		return nil
	}
	groups, err := new(encoder).snapshots(compiled)
	if err != nil {
		return nil
	}
	defer c.remember()()
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		now, from := newIssue(compiled, groups[name]), ""
		if p := c.known(name, now.digest); p != nil {
			from = p.To
		} else if rec := c.record(name); rec != nil && !rec.Whole {
			from = rec.From
		}
		if from == "" {
			continue
		}
		if one := c.before(name, now, from); one != nil {
			all = append(all, older([]*Compiled{one.tables}, compiled)...)
		}
	}
	return all
}

// unequal tells whether there may be groups that are not served, all of them, what the policy has for them.
func (c *Controller) unequal() bool {
	if c.o.Parked == nil {
		return false
	}
	for e := range c.o.Parked.Entries() {
		if group, ok := strings.CutPrefix(e.Name, staged); ok && !c.record(group).over() || strings.HasPrefix(e.Name, parkedPart) {
			return true
		}
	}
	return false
}

// past yields what the history has for a group: of the policy with that content hash, and then from the last one back. Of
// the one that there is now it yields nothing but that it is there.
func (c *Controller) past(group, now, hash string) iter.Seq2[int, issue] {
	return func(yield func(int, issue) bool) {
		h := cmp.Or(c.shelf.rules, c.shelf.local)
		if h == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), storeTime)
		defer cancel()
		all, err := h.List(ctx)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		all = slices.DeleteFunc(all, func(r revision.Revision) bool {
			known := seen[r.Hash]
			seen[r.Hash] = true
			return known
		})
		if i := slices.IndexFunc(all, func(r revision.Revision) bool { return r.Hash == hash }); i > 0 {
			all = slices.Concat(all[i:i+1], all[:i], all[i+1:])
		}
		for i, r := range first(all, lookedBack+1) {
			one := issue{revision: r.Hash}
			if r.Hash != now {
				if one = c.issueOf(ctx, h, r, group); one.snapshot == nil {
					continue
				}
			}
			if !yield(i, one) {
				return
			}
		}
	}
}

// remember has what is compiled of the history kept until the function that it returns is called: groups look at the same
// revisions.
func (c *Controller) remember() (forget func()) {
	c.remembered = map[string]map[string]issue{}
	return func() { c.remembered = nil }
}

// issueOf is what a revision has for a group; without a snapshot where that can't be.
func (c *Controller) issueOf(ctx context.Context, h *revision.History, r revision.Revision, group string) issue {
	issues, ok := c.remembered[r.Hash]
	if !ok {
		issues = c.issuesOf(ctx, h, r)
		if c.remembered != nil {
			c.remembered[r.Hash] = issues
		}
	}
	return issues[group]
}

// issuesOf compiles a revision, by group.
func (c *Controller) issuesOf(ctx context.Context, h *revision.History, r revision.Revision) map[string]issue {
	files, err := h.Files(ctx, r)
	if err != nil {
		return nil
	}
	compiled, _, err := c.Try(files)
	if err != nil || compiled == nil {
		return nil
	}
	groups, err := new(encoder).snapshots(compiled)
	if err != nil {
		return nil
	}
	issues := make(map[string]issue, len(groups))
	for name, snapshot := range groups {
		issues[name] = newIssue(compiled, snapshot)
	}
	return issues
}

// known is what this or another process parked.
func (c *Controller) known(group, digest string) *Parked {
	if c.o.Parked == nil {
		return nil
	}
	e, ok := c.o.Parked.Get(parkedName(group, digest))
	if !ok {
		return nil
	}
	var p Parked
	if json.Unmarshal(e.Value, &p) != nil || p.Group != group {
		return nil
	}
	return &p
}

const parkedPart = "parked/"

func parkedName(group, digest string) string { return parkedPart + group + "/" + digest }

// Refused is told that an Envoy has refused something. It does not wait.
func (c *Controller) Refused() {
	select {
	case c.refused <- struct{}{}:
	default: // it is about to be looked at
	}
}

// watchFleet judges what Envoys refuse, until ctx ends.
func (c *Controller) watchFleet(ctx context.Context) error {
	if c.o.XDS == nil {
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var doubted time.Time
	muster := &c.muster
	for {
		refused := false
		select {
		case <-ctx.Done():
			return nil
		case <-c.refused:
			refused, doubted = true, time.Now()
		case <-tick.C:
		}
		if refused || time.Since(doubted) < doubtFor || muster.due() || c.staging() {
			c.judge(ctx, muster)
		}
		c.heed()
		c.tellStages(ctx)
		if !muster.deaf {
			c.spread(ctx) // what could not be told before
		}
		c.retellStages()
	}
}

// judge counts who refuses what is served, and has the groups go back in which too many do.
func (c *Controller) judge(ctx context.Context, m *muster) {
	nodes := c.o.XDS.Status()
	c.mu.Lock()
	c.approve(nodes)
	if c.observe(nodes, m.deaf) {
		c.tellNow()
		c.publish()
	}
	counts, reasons := c.count(nodes)
	c.mu.Unlock()
	m.tell(ctx, counts)
	c.mu.Lock()
	parked, held := c.failing()
	for group, own := range counts {
		st := c.fleet[group]
		all := m.sum(group, own)
		if st == nil || st.parked != nil || st.stage != nil || st.now.digest != own.Digest || !tooMany(all) {
			continue
		}
		st.parked, st.told = &Parked{Group: group, Time: time.Now(), Refused: all.Refused, Of: all.Connected, Reasons: reasons[group]}, false
		if !c.back(group, st) {
			st.parked = nil
			continue
		}
		parked = append(parked, st)
	}
	c.republish(parked)
	c.mu.Unlock()
	if len(parked) > 0 {
		c.spread(ctx)
	}
	c.promote(ctx, held)
}

// tooMany tells whether a group is to go back: one odd Envoy among others is left alone.
func tooMany(n tally) bool {
	return n.Refused > 0 && (n.Refused >= n.Connected || n.Refused > 1 && 10*n.Refused > n.Connected)
}

// count counts the Envoys of this process by group, and gives some of their reasons.
func (c *Controller) count(nodes []xds.NodeStatus) (map[string]tally, map[string][]Reason) {
	type envoy struct{ group, id, address string } // one may have several streams, and several may have one name
	seen := map[envoy]bool{}
	counts, reasons := map[string]tally{}, map[string][]Reason{}
	for _, n := range nodes {
		st := c.fleet[n.Group]
		if st == nil {
			continue
		}
		one := envoy{n.Group, n.ID, n.Address}
		t := counts[n.Group]
		t.Digest = st.now.digest
		refused, known := seen[one]
		if !known {
			t.Connected++
		}
		seen[one] = refused
		if found := refusals(n, st.now.at); len(found) > 0 && !refused && st.parked == nil && st.stage == nil {
			t.Refused++
			seen[one] = true
			reasons[n.Group] = first(append(reasons[n.Group], found...), reasonsKept)
		}
		counts[n.Group] = t
	}
	for group, t := range counts {
		if st := c.fleet[group]; st.plan != nil && c.o.Replica != "" {
			st.describe(&t, group, nodes)
			counts[group] = t
		}
	}
	return counts, reasons
}

// refusals is what an Envoy has refused since then, and still does.
func refusals(n xds.NodeStatus, since time.Time) (all []Reason) {
	for _, t := range n.Types {
		if t.State != xds.NACK || t.Time == nil || t.Time.Before(since) {
			continue
		}
		r := Reason{Node: n.ID, Type: t.Type, Error: t.Error}
		if len(t.Blamed) > 0 {
			r.Resource, r.Origin = t.Blamed[0].Resource, t.Blamed[0].Origin
		}
		all = append(all, r)
	}
	return all
}

// heed has the groups go back of which another process has parked what is served.
func (c *Controller) heed() {
	if c.o.Parked == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outcome.Load().Revision == "" {
		return // nothing is served yet
	}
	var parked []*stand
	for group, st := range c.fleet {
		if st.parked != nil {
			continue
		}
		st.told = true
		if st.parked = c.known(group, st.now.digest); st.parked != nil && st.stage != nil {
			st.fall(*st.parked)
		} else if st.parked != nil && !c.back(group, st) {
			st.parked = nil
		}
		if st.parked != nil {
			parked = append(parked, st)
		}
	}
	c.republish(parked)
	c.heedRecords()
}

// republish serves the groups that went back what they had, after the companions know it, and tells of it.
func (c *Controller) republish(parked []*stand) {
	if len(parked) == 0 {
		return
	}
	if err := c.loadTables(slices.Concat(c.tables, c.fleet.tables(c.tables[0]))); err != nil {
		c.o.Log.Error("group not rolled back", "error", err)
		for _, st := range parked {
			st.parked, st.stage, st.fell = nil, st.fell, nil // a stage stays one: it is judged again
		}
		return
	}
	c.publish()
	for _, st := range parked {
		st.fell = nil
		p := st.parked
		if p.Canaries {
			c.metrics.stages.WithLabelValues(p.Group, "failed").Inc()
		}
		c.metrics.rollbacks.WithLabelValues(p.Group).Inc()
		r := append(p.Reasons, Reason{})[0]
		why := "group rolled back: its envoys refuse the policy"
		if p.Canaries {
			why = "group rolled back: envoys that had the policy first did not keep it"
		}
		c.o.Log.Error(why, "group", p.Group, "revision", p.Revision, "to", p.To,
			"refused", p.Refused, "of", p.Of, "node", r.Node, "type", r.Type, "resource", r.Resource, "at", r.Origin, "error", r.Error)
	}
	next := c.retell()
	next.Changed, next.Rotated = false, nil // told already
	c.o.Report(next)
}

// retell has the outcome of the last load say how it stands by now.
func (c *Controller) retell() Outcome {
	next := *c.outcome.Load()
	c.tellParked(&next)
	c.outcome.Store(&next)
	return next
}

// spread tells other processes, and this one after a restart, what is parked.
func (c *Controller) spread(ctx context.Context) {
	if c.o.Parked == nil {
		return
	}
	untold := map[*stand]Parked{}
	c.mu.Lock()
	for _, st := range c.fleet {
		if st.parked != nil && !st.told {
			untold[st] = *st.parked
		}
	}
	c.mu.Unlock()
	for st, p := range untold {
		if err := c.putParked(ctx, p, st.now.digest); err != nil {
			c.o.Log.Warn("what envoys refused is not known to other processes", "group", p.Group, "error", err)
			if c.o.Replica != "" {
				continue // it is tried again
			}
		}
		c.mu.Lock()
		st.told = true
		c.mu.Unlock()
	}
}

func (c *Controller) putParked(ctx context.Context, p Parked, digest string) error {
	value, err := json.Marshal(p)
	if len(value) > parkedMax { // by odd names of nodes: that it is parked counts more than why
		p.Reasons = nil
		value, err = json.Marshal(p)
	}
	if err != nil {
		return err
	}
	return c.o.Parked.Put(ctx, store.Entry{Name: parkedName(p.Group, digest), Value: value, Expires: time.Now().Add(parkedFor)})
}

// retry forgets what is parked, so that it is tried again: what was in the way may be gone. What goes in stages has all of
// them anew; a stage that is under way goes on to all Envoys at once. It lists the groups of which all get it. The caller
// holds loading.
func (c *Controller) retry(ctx context.Context) (released []string, err error) {
	if c.o.XDS == nil {
		return nil, nil // nobody has refused anything here
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	before := map[string]stand{}
	c.mu.Lock()
	for group, st := range c.fleet {
		if st.parked != nil || st.stage != nil {
			before[group] = *st
		}
	}
	c.mu.Unlock()
	for _, group := range slices.Sorted(maps.Keys(before)) {
		if failed := c.tellRetried(ctx, group, before[group]); failed != nil {
			delete(before, group)
			err = errors.Join(err, failed)
		}
	}
	nodes := c.o.XDS.Status()
	c.mu.Lock()
	defer c.mu.Unlock()
	var over []*stand
	for group, was := range before {
		st := c.fleet[group]
		if st.parked != was.parked || st.stage != was.stage {
			continue // it has changed meanwhile, as another process has it
		}
		if st.now.at = time.Now(); st.parked != nil && st.plan != nil {
			st.stage, st.parked = newStage(*st.good, nil), nil
			c.choose(group, st, nodes)
			continue
		}
		over, released = append(over, st), append(released, group)
	}
	c.tellNow()
	if len(over) == 0 {
		c.publish()
		c.retell()
	}
	c.release(over)
	slices.Sort(released)
	return released, err
}

// tellRetried tells other processes that what a group has parked, or has some Envoys get first, is no longer held back.
func (c *Controller) tellRetried(ctx context.Context, group string, st stand) error {
	if st.parked != nil && c.o.Parked != nil {
		gone := store.Entry{Name: parkedName(group, st.now.digest), Expires: time.Now().Add(-time.Second)}
		if err := c.o.Parked.Put(ctx, gone); err != nil {
			return err
		}
	}
	if st.parked != nil && st.plan != nil {
		return nil // the stage that begins is told
	}
	return c.put(ctx, wholly(group, st.now))
}
