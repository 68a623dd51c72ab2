package trial

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/cookiejar"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/explain"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// Options is what is tested, and how.
type Options struct {
	Dir      string         // of the policy, and of the test files below it
	Cases    []string       // further folders of test files
	Envoy    string         // path; empty looks for it
	Match    *regexp.Regexp // only cases of such names are run; nil: all
	FailFast bool           // the first case that fails is the last one
	Timeout  time.Duration  // of the whole run; default 5 minutes
	Begin    func(file, name string)
	Tell     func(Result, policy.Files) // of each case as it ends
}

// Report is what came of a run.
type Report struct {
	Files    policy.Files    // the policy's and those of cases, for the lines of problems
	Problems policy.Problems // of the policy or of the test files: with an error among them nothing was run
	Results  []Result        // in the order of the files
	Routes   []Route         // of the policy, by name
	Took     time.Duration
}

// Route is how often cases reached a route.
type Route struct {
	Name    string
	At      policy.Pos
	Reached int
}

// Verdict is how a case ended.
type Verdict string

// The ways in which cases end.
const (
	Passed  Verdict = "ok"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped"
)

// Result is what came of a case.
type Result struct {
	File     string // as in At
	Path     string // of the file, from the working directory on
	Name     string
	At       policy.Pos
	Verdict  Verdict
	Why      string // of a skipped case
	Took     time.Duration
	Requests int
	Log      []string // the requests and what became of them, each in a line; the first of many
	Failure  *Failure
}

// maxLog is how many requests of a case are told.
const maxLog = 100

// Failure is the first request of a case that something else became of than is expected.
type Failure struct {
	Problems policy.Problems // every difference, at its place
	Asked    string          // the request, in a line
	Got      string          // what became of it, in a line
	Explain  string          // what explain says of it
}

const defaultTimeout = 5 * time.Minute

// errTimeout is why a run ended early.
type errTimeout struct{ after time.Duration }

func (e errTimeout) Error() string {
	return fmt.Sprintf("the cases took longer than %s: run fewer of them, or give them more time with --timeout", e.after)
}

// Run tests a policy. The error tells that it could not be tested; what cases have shown is in the report, as far as they
// were run.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	begun := time.Now()
	report := new(Report)
	defer func() { report.Took = time.Since(begun) }()
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, errTimeout{o.Timeout})
	defer cancel()
	r := &run{o: o, report: report}
	if err := r.prepare(); err != nil || report.Problems.HasErrors() {
		return report, err
	}
	binary, _, err := envoy.Find(o.Envoy)
	if err != nil {
		return report, err
	}
	r.rig = &rig{compiled: r.compiled, issuer: r.issuer}
	defer func() { err = errors.Join(err, r.rig.close()) }()
	gateways := r.gateways()
	if len(gateways) > 0 {
		if err := r.rig.start(ctx, binary, gateways, r.authority); err != nil {
			return report, cmp.Or(context.Cause(ctx), err)
		}
	}
	err = r.cases(ctx)
	r.cover()
	return report, err
}

// run is one run on its way.
type run struct {
	o         Options
	report    *Report
	files     []*File
	compiled  *control.Compiled
	issuer    *issuer
	authority *authority
	rig       *rig
	reached   map[string]int // routes
	stale     bool           // Envoys have counted something, or have seen endpoints fail
	local     bool           // Envoys count some limits by themselves
}

// prepare reads the policy and the cases. What is wrong with either is in the report.
func (r *run) prepare() error {
	files, unread, err := control.ReadDir(r.o.Dir)
	if err != nil {
		return err
	}
	unread, _ = unread.Split() // of policy in files of cases these tell themselves
	tests, err := readTests(r.o.Dir, "")
	if err != nil {
		return err
	}
	beside := map[string]bool{} // the policy
	for name := range tests {
		beside[name] = true
	}
	for _, dir := range r.o.Cases {
		more, err := readTests(dir, dir)
		if err != nil {
			return err
		}
		maps.Copy(tests, more)
	}
	if len(tests) == 0 {
		return fmt.Errorf("no cases: there is no file *_test.yaml below %s", strings.Join(append([]string{r.o.Dir}, r.o.Cases...), " or "))
	}
	r.report.Files = maps.Clone(files)
	maps.Copy(r.report.Files, tests)
	r.files, r.reached = parse(tests), map[string]int{}
	for _, f := range r.files {
		if f.path = f.name; beside[f.name] {
			f.path = filepath.Join(r.o.Dir, filepath.FromSlash(f.name))
		}
	}
	told := func(more ...policy.Problems) {
		r.report.Problems = slices.Concat(unread, slices.Concat(more...), problems(r.files))
	}
	if r.authority, err = newAuthority(); err != nil {
		return err
	}
	m, wrong := feature.Language().Load(files) // the names of the secrets alone
	if m == nil {
		told(wrong)
		return nil
	}
	if err := r.compile(files, m, told); err != nil || r.compiled == nil {
		return err
	}
	p := newPreparing(r.compiled, r.issuer)
	count := 0
	for _, f := range r.files {
		p.cases(f)
		count += len(f.Cases)
	}
	if count > maxCases {
		return fmt.Errorf("more than %d cases", maxCases)
	}
	told(wrong)
	if count > 0 && !r.report.Problems.HasErrors() && !slices.ContainsFunc(r.files, r.anyWanted) {
		return fmt.Errorf("nothing was run: of %s none has a name that %q finds", plural(count, "case"), r.o.Match)
	}
	return nil
}

// compile makes what is served, with secrets and keys of the run in it.
func (r *run) compile(files policy.Files, names *policy.Model, told func(...policy.Problems)) error {
	fetched := r.fetched()
	held, err := newSecrets(names, r.files, r.authority)
	if err != nil {
		return err
	}
	m, wrong := feature.Language().WithSecrets(held).Load(files)
	blame(wrong, r.files)
	if m == nil {
		told(wrong)
		return nil
	}
	r.issuer = newIssuer(m, fetched)
	if err := r.issuer.adopt(); err != nil {
		return err
	}
	r.compiled, err = control.Compile(m)
	if refused := control.Problems(err); len(refused) > 0 {
		r.compiled = nil
		told(wrong, refused)
		return nil
	}
	for _, l := range feature.Limits(m) {
		r.local = r.local || l.Mode == "perEnvoy"
	}
	return err
}

// fetched is what URLs answer, as all files say together.
func (r *run) fetched() map[string][]byte {
	all := map[string][]byte{}
	for _, f := range r.files {
		for _, url := range slices.Sorted(maps.Keys(f.Fetched)) {
			said := must(json.Marshal(f.Fetched[url].json))
			if before, ok := all[url]; ok && !bytes.Equal(before, said) {
				at := keyIn(f.node.Get("fetched"), url)
				f.doc.KeyErrorf(at, "the URL answers something else in another file: all files are run together").Hintf("say it in one of the files only")
			}
			all[url] = said
		}
	}
	return all
}

// blame tells where cases say what a secret holds that the policy can't use.
func blame(problems policy.Problems, files []*File) {
	for _, p := range problems {
		for _, f := range files {
			for name, said := range f.Secrets {
				if strings.Contains(p.Message, "the secret "+name+":") {
					p.Also = append(p.Also, said.node.KeyOf().Pos)
					p.Hint = cmp.Or(p.Hint, "this is what the cases say that it holds")
				}
			}
		}
	}
}

// wanted tells whether a case is run.
func (r *run) wanted(c *Case) bool { return r.o.Match == nil || r.o.Match.MatchString(c.Name) }

func (r *run) anyWanted(f *File) bool { return slices.ContainsFunc(f.Cases, r.wanted) }

// gateways are those that cases ask.
func (r *run) gateways() []string {
	names := map[string]bool{}
	for _, f := range r.files {
		for _, c := range f.Cases {
			for _, s := range c.steps() {
				if r.wanted(c) && c.Skip == "" {
					names[s.asked.gateway.Name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// cases runs them, one after the other.
func (r *run) cases(ctx context.Context) error {
	for _, f := range r.files {
		for _, c := range f.Cases {
			if !r.wanted(c) {
				continue
			}
			if r.o.Begin != nil {
				r.o.Begin(f.name, c.Name)
			}
			result, err := r.one(ctx, f, c)
			if err != nil {
				if cause := context.Cause(ctx); cause != nil {
					return cause
				}
				return fmt.Errorf("%s: %s: %w", f.name, c.Name, cmp.Or(r.rig.ended(), err))
			}
			r.report.Results = append(r.report.Results, result)
			if r.o.Tell != nil {
				r.o.Tell(result, r.report.Files)
			}
			if result.Verdict != Failed {
				continue
			}
			if err := r.rig.ended(); err != nil || r.o.FailFast {
				return err
			}
		}
	}
	return nil
}

// one runs a case.
func (r *run) one(ctx context.Context, f *File, c *Case) (result Result, err error) {
	result = Result{File: f.name, Path: f.path, Name: c.Name, At: c.key.Pos, Verdict: Passed}
	if c.Skip != "" {
		result.Verdict, result.Why = Skipped, c.Skip
		return result, nil
	}
	begun := time.Now()
	defer func() { result.Took = time.Since(begun) }()
	if err := r.fresh(ctx); err != nil {
		return result, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return result, err
	}
	asks := &client{rig: r.rig, authority: r.authority, jar: jar}
	if err := r.rig.samples.behave(c.Upstreams); err != nil {
		return result, err
	}
	for n, s := range c.steps() {
		if s != &c.Step {
			if err := r.rig.samples.behave(s.Upstreams); err != nil {
				return result, err
			}
		}
		if s.Later != nil {
			r.rig.companion.later(time.Duration(*s.Later))
		}
		for time := range s.times() {
			result.Requests++
			line := ""
			if result.Failure, line, err = r.step(ctx, asks, s); err != nil {
				return result, err
			}
			if len(result.Log) < maxLog {
				result.Log = append(result.Log, line)
			}
			if result.Failure != nil {
				result.Verdict = Failed
				result.Failure.Asked += which(c, s, n, time)
				return result, nil
			}
		}
	}
	return result, nil
}

// which tells which of several requests of a case it is.
func which(c *Case, s *Step, step, time int) string {
	var parts []string
	if len(c.steps()) > 1 {
		parts = append(parts, fmt.Sprintf("step %d of %d", step+1, len(c.steps())))
	}
	if s.times() > 1 {
		parts = append(parts, fmt.Sprintf("request %d of %d", time+1, s.times()))
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// fresh has everything as a case finds it.
func (r *run) fresh(ctx context.Context) error {
	misbehaved, err := r.rig.samples.recover()
	if err != nil {
		return err
	}
	r.rig.samples.forget()
	if err := r.rig.companion.fresh(); err != nil {
		return err
	}
	if r.stale && (r.local || misbehaved) {
		if err := r.rig.renew(ctx, misbehaved); err != nil {
			return err
		}
	}
	r.stale = true
	return nil
}

// journalWait is how long it may take until Envoy tells what it has done.
const (
	journalWait = 5 * time.Second
	refusedWait = 200 * time.Millisecond // of a connection that it has closed: then it may say nothing at all
	copyWait    = time.Second            // until a copy arrives, which nobody waits for
	noCopyWait  = 50 * time.Millisecond  // for one that must not arrive
	refundWait  = 50 * time.Millisecond  // until something is given back, after an answer that it may be given back for
)

// step sends a request once, and tells in a line what came of it.
func (r *run) step(ctx context.Context, asks *client, s *Step) (_ *Failure, line string, _ error) {
	if s.Request.Login != nil {
		if err := asks.login(ctx, s.Request, &s.asked); err != nil {
			if ctx.Err() != nil {
				return nil, "", err
			}
			at := s.Request.Login.node
			return r.failure(s, policy.Problems{{Pos: at.Pos, Path: at.Path(), Message: err.Error()}}, nil), "", nil
		}
	}
	r.rig.samples.forget()
	h, err := asks.ask(ctx, s.Request, &s.asked)
	if err != nil {
		return nil, "", err
	}
	o := r.outcome(ctx, s, h)
	line = s.line() + ": " + o.line()
	if problems := s.Expect.judge(o); len(problems) > 0 {
		return r.failure(s, problems, o), line, nil
	}
	return nil, line, ctx.Err()
}

// line is the request in a line.
func (s *Step) line() string {
	if s.Request.Send != "" {
		return "bytes to " + s.asked.gateway.Name + "/" + s.asked.listener.Name
	}
	return s.Request.Method + " " + s.asked.url
}

// outcome gathers what became of a request.
func (r *run) outcome(ctx context.Context, s *Step, h *heard) *outcome {
	wait := journalWait
	if h.status == 0 && h.err != nil {
		wait = refusedWait
	}
	o := &outcome{heard: h, entry: r.rig.journal.take(ctx, h.client, wait)}
	if o.entry == nil {
		return o
	}
	routes := r.compiled.Model.Bound[s.asked.gateway]
	name := cmp.Or(o.entry.RouteName, o.entry.CustomTags[routeTag])
	if i := slices.IndexFunc(routes, func(b *policy.BoundRoute) bool { return b.Name == name }); i >= 0 {
		o.route = routes[i].Name
		o.counted = routes[i].Settings.Has("rateLimit") || routes[i].Settings.Has("plan")
		r.reached[o.route]++
	}
	if o.entry.UpstreamRemoteAddress != nil {
		o.upstream = o.entry.UpstreamCluster
	}
	r.gather(ctx, s, o)
	if s.asked.refunds && o.status >= 400 {
		r.rig.companion.awaitRefund(ctx, refundWait)
	}
	return o
}

// gather takes what the samples have got of the request. Copies come in their own time: where one is expected it is awaited.
func (r *run) gather(ctx context.Context, s *Step, o *outcome) {
	expected, wait := 0, copyWait
	if m := s.Expect.Mirrored; m != nil {
		expected = len(slices.DeleteFunc(slices.Clone(m.values), func(name string) bool { return name == none }))
		if expected == 0 {
			expected, wait = 1, noCopyWait // until one comes that must not
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		all, more := r.rig.samples.since(o.entry.id)
		o.received, o.mirrored = nil, nil
		for _, g := range all {
			if g.service == o.upstream || o.upstream == "" && g.service == o.entry.UpstreamCluster {
				o.received = append(o.received, g)
			} else {
				o.mirrored = append(o.mirrored, g)
			}
		}
		if len(o.mirrored) >= expected {
			return
		}
		select {
		case <-more:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// failure is what is told of a request that did not become what is expected.
func (r *run) failure(s *Step, problems policy.Problems, o *outcome) *Failure {
	f := &Failure{Problems: problems, Asked: s.line()}
	if o != nil {
		f.Got = o.line()
	}
	if s.Request.Send != "" {
		return f
	}
	p := explain.Policy{Model: r.compiled.Model, Resources: r.compiled.Resources, Kinds: feature.All()}
	if e, err := p.Explain(question(s.Request, s.asked.url)); err == nil {
		var b strings.Builder
		if e.Write(&b, false) == nil {
			f.Explain = b.String()
		}
	}
	return f
}

// line tells an outcome in a line.
func (o *outcome) line() string {
	text := "no answer"
	if o.status != 0 {
		text = fmt.Sprint(o.status)
	} else if o.err != nil {
		text += " (" + o.err.Error() + ")"
	}
	if o.entry == nil {
		return text
	}
	parts := []string{text, "route " + cmp.Or(o.route, none), "upstream " + cmp.Or(o.upstream, none)}
	if n := len(o.received); n > 1 {
		parts = append(parts, fmt.Sprintf("%d attempts", n))
	}
	auth, limit := o.auth(), o.limit()
	if auth.decision != none {
		parts = append(parts, "auth "+auth.decision+in(auth.consumer)+in(auth.reason))
	}
	if limit.decision != none {
		parts = append(parts, "limit "+limit.decision+in(limit.name))
	}
	if o.entry.details != "" {
		parts = append(parts, "details "+o.entry.details)
	}
	return strings.Join(parts, ", ")
}

func in(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// cover lists the routes that the policy wrote, and how often each was reached.
func (r *run) cover() {
	for _, route := range r.compiled.Model.Routes {
		if !strings.Contains(route.Name, "/") {
			r.report.Routes = append(r.report.Routes, Route{route.Name, route.Pos, r.reached[route.Name]})
		}
	}
}
