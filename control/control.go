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
	"github.com/legation/legation/xds"
	"github.com/prometheus/client_golang/prometheus"
)

// Options is what a controller works on. A nil service is a role that this process does not have.
type Options struct {
	Dir     string // the policy directory
	DataDir string // where the last good files are kept; empty keeps none
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

// Outcome is what one load of the directory came to.
type Outcome struct {
	Revision string          `json:"revision"` // being served; empty while nothing is
	Changed  bool            `json:"changed"`  // it was not served before, or not with these secrets
	Problems policy.Problems `json:"problems"` // of the files as they stand
	Error    string          `json:"error,omitempty"`
	Since    time.Time       `json:"since"`             // when the revision was published
	Read     time.Time       `json:"read"`              // when the directory was last read
	Secrets  []Secret        `json:"secrets,omitempty"` // that are served, by ID

	Rotated []string `json:"-"` // the IDs of the secrets that changed under the same revision

	Files policy.Files  `json:"-"` // the files as read, for the source lines of Problems
	Model *policy.Model `json:"-"` // of Revision
}

// Controller keeps what is served in step with the policy directory.
type Controller struct {
	o       Options
	lang    *policy.Language
	loader  *policy.Loader
	kept    kept
	metrics metrics
	// validator asks Envoy; nil where nobody is asked.
	validator *validator
	outcome   atomic.Pointer[Outcome]
	loaded    chan struct{} // closed once a whole policy is served

	mu       sync.Mutex // loads come one after the other
	recalled bool
	last     policy.Files
	told     time.Time   // when the log was last told of certificates near their end
	tables   []*Compiled // the one being served first, then those that an Envoy may still run
	settled  *time.Timer
	compiler *compiler
	encoder  encoder
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
		o: o, lang: feature.Language(), kept: newKept(o.DataDir, o.Dir), metrics: newMetrics(o.Metrics),
		loaded: make(chan struct{}), compiler: newCompiler(),
	}
	c.loader = c.lang.NewLoader()
	if o.Validation != nil {
		c.validator = newValidator(*o.Validation)
	}
	c.outcome.Store(&Outcome{Problems: policy.Problems{}})
	return c
}

// Outcome is what the last load came to.
func (c *Controller) Outcome() Outcome { return *c.outcome.Load() }

// Loaded is closed once a whole policy is served.
func (c *Controller) Loaded() <-chan struct{} { return c.loaded }

// Run loads the directory as soon as it rests, and at every change until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	w, err := newWatcher(c.o.Log, c.watched()...)
	if err != nil {
		return err
	}
	if c.validator != nil {
		defer context.AfterFunc(ctx, c.validator.stop)()
	}
	c.Recall()
	return w.run(ctx, c.Load)
}

// Recall takes up what was served from this directory before the restart: the fallback of the first load, and what the
// companions go on answering for until the Envoys are back. Run does it, unless it was done before: it had better be,
// before the companions' ports open.
func (c *Controller) Recall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recalled {
		return
	}
	c.recalled = true
	var err error
	if c.last, err = c.kept.load(); err != nil {
		c.o.Log.Warn("last good policy not usable", "error", err)
	}
	if len(c.last) == 0 {
		return
	}
	model, _ := c.withCompanionSecrets().Load(c.last)
	if model == nil {
		return // written by another version; the first load tells what is wrong if it is needed
	}
	if compiled, err := c.compiler.compile(model); err == nil && c.loadTables([]*Compiled{compiled}) == nil {
		c.tables = []*Compiled{compiled}
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
	roots := []*watched{{dir: c.o.Dir, wanted: policy.Wanted}}
	if c.o.Secrets != nil && c.o.Secrets.Dir != "" {
		roots = append(roots, &watched{dir: c.o.Secrets.Dir, wanted: secretFile})
	}
	return roots
}

// Load reads the directory and serves what is good of it.
func (c *Controller) Load() {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.outcome.Load()
	next := *before
	next.Read, next.Changed, next.Error, next.Rotated = time.Now(), false, "", nil

	candidate, problems, err := c.read()
	if err != nil {
		next.Error = err.Error()
	}
	good := c.settle(candidate)
	next.Files, next.Problems = candidate, append(append(policy.Problems{}, problems...), good.problems...)
	if len(c.last) == 0 && next.Problems.HasErrors() {
		good.compiled = nil // without a last good version nothing is served until every file can be read
	}
	switch m := good.compiled; {
	case good.err != nil:
		next.Error = good.err.Error()
	case m == nil:
	case len(c.last) > 0 && c.emptied(m.Model):
		next.Error = "the policy has no gateway left: what was served before stays"
	default:
		if err := c.serve(m); err != nil {
			next.Error = err.Error()
			break
		}
		next.Revision, next.Changed, next.Since, next.Model = m.Model.Revision, true, time.Now(), m.Model
		next.Secrets, next.Rotated = secretsOf(m.Model), rotated(before.Model, m.Model)
		c.last = good.files
		if err := c.kept.save(good.files); err != nil {
			c.o.Log.Warn("last good policy not kept", "error", err)
		}
	}
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
	had := len(c.tables) == 0 || len(c.tables[0].Model.Gateways) > 0
	return len(m.Gateways) == 0 && (had || len(m.Domains) == 0)
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
	tables := append([]*Compiled{compiled}, older(c.tables, compiled)...)
	if err := c.loadTables(tables); err != nil {
		return err
	}
	c.tables = tables
	if c.o.XDS == nil {
		c.forgetAfter(compiled, c.o.Retain)
		return nil
	}
	publication := c.o.XDS.Publish(groups)
	go func() {
		<-publication.Done()
		// An Envoy that refused, or has not answered, goes on asking for what it had.
		if publication.Outcome().State == xds.Acknowledged {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.forgetAfter(compiled, c.o.Grace)
		}
	}()
	return nil
}

// forget drops the tables older than current, which every Envoy now runs; not if a newer one was served meanwhile.
func (c *Controller) forget(current *Compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tables) == 0 || c.tables[0] != current {
		return
	}
	c.tables = c.tables[:1:1]
	if err := c.loadTables(c.tables); err != nil {
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
