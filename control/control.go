package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
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
	XDS     *xds.Server
	Auth    *auth.Service
	Limits  *ratelimit.Service
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Report is told the outcome of every load that changed anything: a new revision, or other problems than before.
	Report func(Outcome)
	// Retain is how long the companions keep what an older policy asked for where no xDS role tells when the Envoys
	// have left it; default 10 minutes.
	Retain time.Duration
}

// Outcome is what one load of the directory came to.
type Outcome struct {
	Revision string          `json:"revision"` // being served; empty while nothing is
	Changed  bool            `json:"changed"`  // it was not served before
	Problems policy.Problems `json:"problems"` // of the files as they stand
	Error    string          `json:"error,omitempty"`
	Since    time.Time       `json:"since"` // when the revision was published
	Read     time.Time       `json:"read"`  // when the directory was last read

	Files policy.Files  `json:"-"` // the files as read, for the source lines of Problems
	Model *policy.Model `json:"-"` // of Revision
}

// Controller keeps what is served in step with the policy directory.
type Controller struct {
	o       Options
	lang    *policy.Language
	kept    kept
	metrics metrics
	outcome atomic.Pointer[Outcome]
	loaded  chan struct{} // closed once a whole policy is served

	mu      sync.Mutex // loads come one after the other
	last    policy.Files
	tables  []*Compiled // the one being served first, then those that an Envoy may still run
	settled *time.Timer
}

// New returns a controller; nothing happens before Run.
func New(o Options) *Controller {
	if o.Retain == 0 {
		o.Retain = 10 * time.Minute
	}
	if o.Report == nil {
		o.Report = func(Outcome) {}
	}
	c := &Controller{
		o: o, lang: feature.Language(), kept: newKept(o.DataDir), metrics: newMetrics(o.Metrics),
		loaded: make(chan struct{}),
	}
	c.outcome.Store(&Outcome{Problems: policy.Problems{}})
	return c
}

// Outcome is what the last load came to.
func (c *Controller) Outcome() Outcome { return *c.outcome.Load() }

// Loaded is closed once a whole policy is served.
func (c *Controller) Loaded() <-chan struct{} { return c.loaded }

// Run loads the directory now and at every change until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	w, err := newWatcher(c.o.Dir)
	if err != nil {
		return err
	}
	if c.last, err = c.kept.load(); err != nil {
		c.o.Log.Warn("last good policy not usable", "error", err)
	}
	c.Load(ctx)
	return w.run(ctx, func() { c.Load(ctx) })
}

// Load reads the directory and serves what is good of it.
func (c *Controller) Load(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.outcome.Load()
	next := *before
	next.Read, next.Changed, next.Error = time.Now(), false, ""

	candidate, problems, err := ReadDir(c.o.Dir)
	if err != nil {
		next.Error = err.Error()
		candidate = c.last // what is served does not change because the directory went away
	}
	if len(problems) > 0 {
		// A file that can't be read is not a file that was deleted: it stays as it was served.
		candidate = withUnread(candidate, c.last, problems)
	}
	files, model, found := c.lang.Isolate(candidate, c.last)
	if c.last == nil && problems.HasErrors() {
		model = nil // without a last good version nothing is served until every file can be read
	}
	next.Files, next.Problems = candidate, slices.Concat(problems, found)
	if model != nil && model.Revision != before.Revision {
		if err := c.serve(ctx, model); err != nil {
			if told := Problems(err); len(told) > 0 {
				next.Problems = slices.Concat(next.Problems, told)
			} else {
				next.Error = err.Error()
			}
		} else {
			next.Revision, next.Changed, next.Since, next.Model = model.Revision, true, time.Now(), model
			c.last = files
			if err := c.kept.save(files); err != nil {
				c.o.Log.Warn("last good policy not kept", "error", err)
			}
		}
	}
	c.outcome.Store(&next)
	c.metrics.observe(next)
	if next.Revision != "" && before.Revision == "" {
		close(c.loaded)
	}
	if next.Changed || next.Error != before.Error || !sameProblems(before.Problems, next.Problems) {
		c.o.Report(next)
	}
}

// serve hands the companions their tables, then publishes. The companions keep what the policies before asked for
// until every Envoy has left them, so that no limit and no auth stands open for a moment.
func (c *Controller) serve(_ context.Context, m *policy.Model) error {
	compiled, err := Compile(m)
	if err != nil {
		return err
	}
	groups, err := compiled.snapshots()
	if err != nil {
		return err
	}
	if len(c.tables) > 0 {
		for _, l := range changedListeners(c.tables[0], compiled) {
			c.o.Log.Warn("listener changed: its connections drain", "listener", l.Name, "at", l.Pos.String())
		}
	}
	tables := append([]*Compiled{compiled}, first(c.tables, retained)...)
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
			c.forget(compiled)
		}
	}()
	return nil
}

// retained is how many older policies the companions know at most, where an Envoy never takes the newer ones.
const retained = 8

func first[T any](list []T, n int) []T { return list[:min(n, len(list))] }

// loadTables loads the companions with the newest table and what the older ones have beyond it.
func (c *Controller) loadTables(tables []*Compiled) error {
	if c.o.Limits != nil {
		c.o.Limits.Load(union(tables, func(t *Compiled) []ratelimit.Limit { return t.Limits }))
	}
	if c.o.Auth == nil {
		return nil
	}
	rules := union(tables, func(t *Compiled) []auth.Rule { return t.Auth.Rules })
	if err := c.o.Auth.Load(auth.Table{Rules: rules, Consumers: tables[0].Auth.Consumers}); err != nil {
		return fmt.Errorf("load the auth rules: %w", err)
	}
	return nil
}

// union is what all tables hold, each once, the newest last: of several versions with one name the last is current.
func union[T interface{ ID() string }](tables []*Compiled, pick func(*Compiled) []T) []T {
	var list []T
	seen := map[string]bool{}
	for _, t := range tables {
		for _, one := range pick(t) {
			if id := one.ID(); !seen[id] {
				seen[id] = true
				list = append(list, one)
			}
		}
	}
	slices.Reverse(list)
	return list
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

func (c *Controller) forgetAfter(current *Compiled, d time.Duration) {
	if c.settled != nil {
		c.settled.Stop()
	}
	c.settled = time.AfterFunc(d, func() { c.forget(current) })
}

// withUnread adds to candidate the last version of the files, and of what is below the folders, that are there and
// can't be read.
func withUnread(candidate, last policy.Files, problems policy.Problems) policy.Files {
	files := maps.Clone(candidate)
	if files == nil {
		files = policy.Files{}
	}
	for name, data := range last {
		unread := func(p *policy.Problem) bool { return name == p.Pos.File || strings.HasPrefix(name, p.Pos.File+"/") }
		if slices.ContainsFunc(problems, unread) {
			files[name] = data
		}
	}
	return files
}

func sameProblems(a, b policy.Problems) bool {
	return slices.EqualFunc(a, b, func(p, q *policy.Problem) bool { return p.Pos == q.Pos && p.Message == q.Message })
}
