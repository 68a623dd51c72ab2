package control

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
	"github.com/legation/legation/xds"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Options is what a controller works on. A nil service is a role that this process does not have.
type Options struct {
	Dir     string // the policy directory; empty: the head of the history rules
	DataDir string // where the history of what was served is kept, and with it the last good files; empty keeps none
	// History is, without Dir, the one that several processes share; nil: the one in DataDir.
	History *revision.History
	// AllowShrink lets through what takes away more than half of what is served.
	AllowShrink bool
	// Parked is where processes tell each other what Envoys refused; nil keeps it to this one.
	Parked store.Board
	// Replica names this process among those that share Parked; empty where it is alone.
	Replica string
	// Secrets is where the secrets are kept that the policy names; nil looks none up: only Envoys need them.
	Secrets *Secrets
	// Validation has the real Envoy asked about each policy before anybody is handed it; nil asks nobody.
	Validation *Validation
	XDS        *xds.Server
	Auth       *auth.Service
	Limits     *ratelimit.Service
	Log        *slog.Logger
	Metrics    prometheus.Registerer
	// Report is told the outcome of every load that changed anything: a new revision, or other problems than before.
	Report func(Outcome)
	// Retain is how long the companions keep what an older policy asked for where no xDS role tells when the Envoys
	// have left it; default 10 minutes.
	Retain time.Duration
	// Grace is how long they keep it where xDS tells: after the last ACK there are still requests that were routed
	// before, and Envoys that are on their way back or take their policy from another replica. Default 10 seconds.
	Grace time.Duration
}

// Outcome is what one load of the policy came to.
type Outcome struct {
	Revision string          `json:"revision"` // being served; empty while nothing is
	Changed  bool            `json:"changed"`  // it was not served before, or not with these secrets
	Problems policy.Problems `json:"problems"` // of the files as they stand
	Error    string          `json:"error,omitempty"`
	Since    time.Time       `json:"since"`             // when the revision was published
	Read     time.Time       `json:"read"`              // when the directory was last read
	Secrets  []Secret        `json:"secrets,omitempty"` // that are served, by ID

	Source   string             `json:"source"`             // where the policy comes from: directory or revisions
	Accepted *revision.Revision `json:"accepted,omitempty"` // what the history says of Revision
	Pinned   bool               `json:"pinned,omitempty"`   // it is a rollback, which holds until the directory changes
	Shrink   *Shrink            `json:"shrink,omitempty"`   // what is refused as it takes away too much
	Parked   []Parked           `json:"parked,omitempty"`   // what Envoys refused, and what they are served instead
	Staged   []Staged           `json:"staged,omitempty"`   // what some Envoys of a group have before the others

	Rotated []string `json:"-"` // the IDs of the secrets that changed under the same revision

	Files policy.Files  `json:"-"` // the files as read, for the source lines of Problems
	Model *policy.Model `json:"-"` // of Revision
}

// Controller keeps what is served in step with the policy directory.
type Controller struct {
	o       Options
	lang    *policy.Language
	loader  *policy.Loader
	metrics metrics
	// validator asks Envoy; nil where nobody is asked.
	validator *validator
	outcome   atomic.Pointer[Outcome]
	loaded    chan struct{} // closed once a whole policy is served
	refused   chan struct{} // capacity 1: an Envoy has refused something

	// loading has loads and pushes come one after the other, however long Envoy is asked about one: what is found good
	// is served over what it was compared with.
	loading  sync.Mutex
	recalled bool
	told     time.Time // when the log was last told of certificates near their end
	compiler *compiler
	shelf    shelf
	shrink   *Shrink // of the last load
	approved string  // the revision that may take away as much as it does
	encoder  encoder

	// mu guards what is served. It is held for short work alone, as a group that goes back can't wait; who needs both takes
	// loading first.
	mu         sync.Mutex
	last       policy.Files // changed by loads alone, under both: it may be read under either
	tables     []*Compiled  // the one being served first, then those that an Envoy may still run
	settled    *time.Timer
	fleet      fleet
	muster     muster                      // but for what the other processes told, of the goroutine that watches the fleet
	remembered map[string]map[string]issue // while it is looked for: what earlier revisions have for the groups
}

// New returns a controller; nothing happens before Run.
func New(o Options) *Controller {
	o.Retain = cmp.Or(o.Retain, 10*time.Minute)
	o.Grace = cmp.Or(o.Grace, 10*time.Second)
	if o.Report == nil {
		o.Report = func(Outcome) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		o: o, lang: feature.Language(), metrics: newMetrics(o.Metrics),
		loaded: make(chan struct{}), refused: make(chan struct{}, 1), compiler: newCompiler(),
		muster: muster{board: o.Parked, name: o.Replica},
	}
	c.loader = c.lang.NewLoader()
	if o.Validation != nil {
		c.validator = newValidator(*o.Validation)
	}
	c.openShelf()
	c.outcome.Store(&Outcome{Problems: policy.Problems{}, Source: c.source()})
	return c
}

// Outcome is what the last load came to.
func (c *Controller) Outcome() Outcome { return *c.outcome.Load() }

// Loaded is closed once a whole policy is served.
func (c *Controller) Loaded() <-chan struct{} { return c.loaded }

// Run loads the policy as soon as its directory rests, and at every change until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if c.validator != nil {
		defer context.AfterFunc(ctx, c.validator.stop)()
	}
	c.Recall()
	c.awaitBoard(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.watchFleet(ctx) })
	group.Go(func() error { return c.level(ctx) })
	if c.shelf.rules != nil {
		c.Load()
		group.Go(func() error { c.follow(ctx); return nil })
	}
	if roots := c.watched(); len(roots) > 0 {
		w, err := newWatcher(c.o.Log, roots...)
		if err != nil {
			return err
		}
		group.Go(func() error { return w.run(ctx, c.Load) })
	}
	return group.Wait()
}

// Close gives back what [New] took, once nothing runs any more.
func (c *Controller) Close() error {
	if c.shelf.close == nil {
		return nil
	}
	return c.shelf.close()
}

// Recall takes up what was served from this directory before the restart: the fallback of the first load, and what the
// companions go on answering for until the Envoys are back. Run does it, unless it was done before: it had better be,
// before the companions' ports open.
func (c *Controller) Recall() {
	c.loading.Lock()
	defer c.loading.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recalled {
		return
	}
	c.recalled = true
	model := c.recall()
	if model == nil {
		return
	}
	compiled, err := c.compiler.compile(model)
	if err != nil {
		return
	}
	if tables := append([]*Compiled{compiled}, c.elsewhere(compiled)...); c.loadTables(tables) == nil {
		c.tables = tables
	}
}

// withCompanionSecrets is the loader that looks up what the companion needs, where it is needed here.
func (c *Controller) withCompanionSecrets() *policy.Loader {
	const kind = policy.CompanionSecret
	if s := c.o.Secrets; s != nil && (len(s.Kinds) == 0 || slices.Contains(s.Kinds, kind)) {
		return c.loader.WithSecrets(s.Read(), kind)
	}
	return c.loader
}

// watched is the directories that are watched.
func (c *Controller) watched() []*watched {
	var roots []*watched
	if c.o.Dir != "" {
		roots = append(roots, &watched{dir: c.o.Dir, wanted: policy.Wanted})
	}
	if c.o.Secrets != nil && c.o.Secrets.Dir != "" {
		roots = append(roots, &watched{dir: c.o.Secrets.Dir, wanted: secretFile})
	}
	return roots
}

// Load reads the policy's source and serves what is good of it.
func (c *Controller) Load() {
	c.loading.Lock()
	defer c.loading.Unlock()
	c.load()
}

// load is Load for who holds loading.
func (c *Controller) load() {
	c.shrink = nil
	candidate, problems, err := c.read()
	good := c.pick(candidate, unknown(c.last, problems))
	good.problems = append(append(policy.Problems{}, problems...), good.problems...)
	if len(c.last) == 0 && good.problems.HasErrors() {
		good.compiled = nil // without a last good version nothing is served until every file can be read
	}
	good.err = cmp.Or(good.err, err)
	c.conclude(candidate, good)
}

// conclude serves what is good of the candidate, and tells what came of it. The caller holds loading.
func (c *Controller) conclude(candidate policy.Files, good settled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.outcome.Load()
	next := *before
	next.Read, next.Changed, next.Error, next.Rotated = time.Now(), false, "", nil
	next.Files, next.Problems = candidate, good.problems
	if good.err != nil {
		next.Error = good.err.Error()
	}
	if m := good.compiled; m != nil {
		if err := c.serve(m); err != nil {
			next.Error = err.Error()
		} else {
			next.Revision, next.Changed, next.Since, next.Model = m.Model.Revision, true, time.Now(), m.Model
			next.Secrets, next.Rotated = secretsOf(m.Model), rotated(before.Model, m.Model)
			c.last = good.files
			c.keep(good.files, m.Model)
		}
	}
	c.tell(&next)
	next.Problems = append(next.Problems, Expiring(next.Model, next.Read)...)
	c.outcome.Store(&next)
	c.metrics.observe(next)
	c.tellExpiring(next)
	if next.Revision != "" && before.Revision == "" {
		close(c.loaded)
	}
	if next.Changed || next.Error != before.Error || !sameProblems(before.Problems, next.Problems) {
		c.o.Report(next)
	}
}

// emptied tells whether a policy has lost all that it is there for. One for Envoys that others configure has domains alone.
func (c *Controller) emptied(m *policy.Model) bool {
	served := c.newest()
	had := served == nil || len(served.Model.Gateways) > 0
	return len(m.Gateways) == 0 && (had || len(m.Domains) == 0)
}

// newest is what is served, or was before the restart; nil where nothing was.
func (c *Controller) newest() *Compiled {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tables) == 0 {
		return nil
	}
	return c.tables[0]
}

// serve hands the companions their tables, then publishes. The companions keep what the policies before asked for
// until every Envoy has left them, so that no limit and no auth stands open for a moment.
func (c *Controller) serve(compiled *Compiled) error {
	groups, err := c.encoder.snapshots(compiled)
	if err != nil {
		return err
	}
	if len(c.tables) > 0 {
		for _, l := range changedListeners(c.tables[0], compiled) {
			c.o.Log.Warn("listener changed: its connections drain", "listener", l.Name, "at", l.Pos.String())
		}
	}
	before := c.fleet
	if c.o.XDS != nil {
		c.fleet = c.next(compiled, groups)
	}
	tables := slices.Concat([]*Compiled{compiled}, older(c.tables, compiled), before.tables(compiled))
	if err := c.loadTables(slices.Concat(tables, c.fleet.tables(compiled))); err != nil {
		c.fleet = before
		return err
	}
	c.tables = tables
	if c.o.XDS == nil {
		c.forgetAfter(compiled, c.o.Retain)
		return nil
	}
	c.tellNow()
	c.untilAcknowledged(c.publish(), compiled)
	return nil
}

// untilAcknowledged keeps what the companions know of older policies until the Envoys run what was published.
func (c *Controller) untilAcknowledged(publication *xds.Publication, compiled *Compiled) {
	go func() {
		<-publication.Done()
		// An Envoy that refused, or has not answered, goes on asking for what it had.
		if publication.Outcome().State == xds.Acknowledged {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.forgetAfter(compiled, c.o.Grace)
		}
	}()
}

// forget drops the tables older than current, which every Envoy now runs; not if a newer one was served meanwhile.
func (c *Controller) forget(current *Compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tables) == 0 || c.tables[0] != current {
		return
	}
	c.tables = c.tables[:1:1]
	if c.o.XDS == nil { // other processes serve it, maybe not to all
		if left := c.elsewhere(current); len(left) > 0 {
			c.tables = append(c.tables, left...)
			c.forgetAfter(current, c.o.Retain)
		}
	}
	if err := c.loadTables(slices.Concat(c.tables, c.fleet.tables(current))); err != nil {
		c.o.Log.Error("companion tables not trimmed", "error", err)
	}
}

// forgetAfter is forget after a while; a later call takes its place. The caller holds mu.
func (c *Controller) forgetAfter(current *Compiled, d time.Duration) {
	if c.settled != nil {
		c.settled.Stop()
	}
	c.settled = time.AfterFunc(d, func() { c.forget(current) })
}

func sameProblems(a, b policy.Problems) bool {
	return slices.EqualFunc(a, b, func(p, q *policy.Problem) bool { return p.Pos == q.Pos && p.Message == q.Message })
}
