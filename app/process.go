package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/callout"
	"github.com/legation/legation/control"
	"github.com/legation/legation/nodes"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
	"github.com/legation/legation/xds"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// process is the rooms of one process, put together.
type process struct {
	o        Options
	started  time.Time
	state    state
	people   bool // somebody sits at the terminal: run
	reported bool // the first load was told of; only the controller's goroutine asks
	exposed  bool // secrets that go out without TLS were warned of; as above
	metrics  *prometheus.Registry
	store    store.Store
	shared   *store.Shared // what processes share beside counts
	limits   *ratelimit.Service
	auth     *auth.Service
	xds      *xds.Server
	loads    *xds.Loads
	nodes    *nodes.Gate // nil: certificates name groups by themselves
	tls      *portTLS    // nil: the gRPC ports are in plain text
	refusals refusals
	control  *control.Controller
	stopping atomic.Bool
	tidy     tidy

	ports    []port
	health   []*portHealth                       // of those that speak gRPC
	onServed atomic.Pointer[func(*policy.Model)] // told of every new revision
}

// port is one open port and what answers there.
type port struct {
	name, flag, address string
	run                 func(context.Context, net.Listener) error
	listener            net.Listener
}

// Serve runs the roles until ctx ends.
func Serve(ctx context.Context, o Options) error {
	p, err := newProcess(o)
	if err != nil {
		return err
	}
	if err := p.open(); err != nil {
		return errors.Join(err, p.close())
	}
	p.announce()
	return errors.Join(p.run(ctx), p.close())
}

// liveHeap is what was in use at the last collection, go_gc_heap_live_bytes: of all metrics of memory it is the one that rises
// with a leak and with nothing else.
var liveHeap = collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile("^/gc/heap/live:bytes$")}

func newProcess(o Options) (*process, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	p := &process{o: o, started: time.Now(), metrics: prometheus.NewRegistry(), refusals: refusals{log: o.Log}}
	p.metrics.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(liveHeap)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := p.build(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// build makes the rooms that the roles ask for.
func (p *process) build() (err error) {
	o := p.o
	if p.state, err = claim(o.DataDir); err != nil {
		return err
	}
	if o.Dir == "" && o.Redis == "" && p.state.dir == "" {
		return usagef("without a directory what is pushed has to be kept: give --data-dir of its own, or --redis")
	}
	if p.state.taken {
		o.Log.Warn("data directory used by another process: the last good policy, its history and counts are not kept", "dir", o.DataDir,
			"hint", "give each process its own --data-dir, and all of them one --redis to share limits")
	}
	if o.TLSCert != "" {
		if p.tls, err = newPortTLS(o.TLSCert, o.TLSKey, o.TLSCA, o.Log); err != nil {
			return usageError{err}
		}
		p.metrics.MustRegister(p.tls)
	}
	if p.shared, err = store.OpenShared(p.storeOptions()); err != nil {
		return usagef("--redis: %w", err)
	}
	if err := p.companion(); err != nil {
		return err
	}
	if err := p.serveXDS(); err != nil {
		return err
	}
	validation, err := p.validation()
	if err != nil {
		return err
	}
	p.control = control.New(control.Options{
		Dir: o.Dir, DataDir: p.state.dir, Secrets: p.secrets(), Validation: validation, XDS: p.xds, Auth: p.auth, Limits: p.limits,
		Log: o.Log, Metrics: p.metrics, Report: p.report,
		History: p.history(), Parked: p.shared.Board("parked"), Replica: p.replica(), AllowShrink: o.AllowShrink,
	})
	p.control.Recall()
	return p.addAdmin()
}

// storeOptions is how the stores are opened.
func (p *process) storeOptions() store.Options {
	return store.Options{URL: p.o.Redis, Timeout: p.o.RedisTimeout, Path: p.state.file("counts"), Log: p.o.Log, Metrics: p.metrics}
}

// history is the revisions that several processes share; nil where a directory rules, or this process is alone.
func (p *process) history() *revision.History {
	if p.o.Dir != "" || p.o.Redis == "" {
		return nil
	}
	return revision.New(p.shared.Archive("policy"), p.o.Log)
}

// replica names this process among those that share a Redis.
func (p *process) replica() string {
	if p.o.Redis == "" {
		return ""
	}
	return rand.Text()
}

// secrets is where the policy's secrets are kept, and those that the roles need: a companion's host needs none of what
// Envoys are given, nor the other way round. nil where the roles need none.
func (p *process) secrets() *control.Secrets {
	s := &control.Secrets{Dir: p.o.SecretsDir}
	switch {
	case p.o.has(XDS) && p.o.has(Auth):
	case p.o.has(XDS):
		s.Kinds = []policy.SecretKind{policy.CertificateSecret, policy.AuthoritySecret, policy.OpaqueSecret}
	case p.o.has(Auth):
		s.Kinds = []policy.SecretKind{policy.CompanionSecret}
	default:
		return nil
	}
	return s
}

// companion makes the services that Envoy asks for each request.
func (p *process) companion() error {
	if !p.o.companion() {
		return nil
	}
	var err error
	if p.store, err = store.Open(p.storeOptions()); err != nil {
		return usagef("--redis: %w", err)
	}
	p.limits = ratelimit.New(ratelimit.Options{Store: p.store, Log: p.o.Log, Metrics: p.metrics})
	var services []func(grpc.ServiceRegistrar)
	methods := map[string]callout.Method{}
	if p.o.has(RateLimit) {
		services = append(services, p.limits.Register)
		methods[rls.RateLimitService_ShouldRateLimit_FullMethodName] = p.limits.Answer
	}
	if p.o.has(Auth) {
		p.auth = auth.New(auth.Options{
			Counter: control.NewCounter(p.limits), Log: p.o.Log, Metrics: p.metrics,
			Decisions: p.o.Decisions, DecisionRate: p.o.DecisionRate,
			Keys: p.shared.Board("keys"), Revoked: p.shared.Board("revoked"), Sessions: p.shared.Records("session"),
		})
		services = append(services, p.auth.Register)
		methods[authv3.Authorization_Check_FullMethodName] = p.auth.Answer
	}
	p.addGRPC("companion", "--companion-address", p.o.CompanionAddress, p.companionServer(methods), services...)
	return nil
}

// maxCall is the most bytes of a call's message: Envoy sends headers, which it bounds far lower, and no bodies.
const maxCall = 1 << 20

// maxCalls is how many calls a connection may have in progress where grpc-go serves it, which has no bound of its own:
// as many as on the fast path.
const maxCalls = 1000

// companionServer answers methods fast, unless the fast path is off.
func (p *process) companionServer(methods map[string]callout.Method) grpcServer {
	age := p.o.age(p.o.CompanionAddress)
	tls := p.serverTLS(never)
	if p.o.TLSCA == "" { // nobody could be checked; it is on loopback then
		tls = nil
	}
	o := []grpc.ServerOption{
		grpc.ForceServerCodecV2(callout.AnyText()), grpc.NumStreamWorkers(64), grpc.MaxRecvMsgSize(maxCall),
		grpc.MaxConcurrentStreams(maxCalls),
	}
	if p.o.NoFastPath {
		if tls == nil {
			return newGRPC(nil, age, o...)
		}
		return newGRPC(p.credentials(never), age, o...)
	}
	return newCalloutServer(callout.Options{
		Methods: methods, TLS: tls, MaxMessage: maxCall, MaxAge: age, Log: p.o.Log, Metrics: p.metrics,
	}, o...)
}

// addGRPC adds a gRPC port.
func (p *process) addGRPC(name, flag, address string, s grpcServer, services ...func(grpc.ServiceRegistrar)) {
	for _, register := range services {
		register(s)
	}
	p.health = append(p.health, s.health)
	p.ports = append(p.ports, port{name: name, flag: flag, address: address, run: func(ctx context.Context, l net.Listener) error {
		s.ready(false)
		go func() {
			select {
			case <-p.control.Loaded():
				s.ready(true)
			case <-ctx.Done():
			}
		}()
		if p.tls != nil {
			l = p.tls.guard(l)
		}
		return s.run(ctx, l, stopGrace)
	}})
}

func (p *process) addAdmin() error {
	a, err := newAdmin(p)
	if err != nil {
		return err
	}
	p.ports = append(p.ports, port{
		name: "admin", flag: "--admin-address", address: p.o.AdminAddress,
		run: func(ctx context.Context, l net.Listener) error {
			defer context.AfterFunc(ctx, a.tools.Stop)() // its streams have no end of their own
			return serveTools(ctx, l, a.handler(p.metrics))
		},
	})
	return nil
}

// open opens all ports before anything runs, so that one that is taken stops nothing half-way.
func (p *process) open() error {
	var errs []error
	for i := range p.ports {
		what := &p.ports[i]
		var err error
		if what.listener, err = listen(what.name, what.flag, what.address); err != nil {
			errs = append(errs, err)
			continue
		}
		what.address = what.listener.Addr().String() // the kernel's choice where the port is 0
	}
	return errors.Join(errs...)
}

// close gives back what newProcess and open took.
func (p *process) close() error {
	var errs []error
	p.tidy.stop()
	for _, port := range p.ports {
		if port.listener != nil {
			_ = port.listener.Close() // closed already where it was served
		}
	}
	if p.control != nil {
		errs = append(errs, p.control.Close())
	}
	if p.limits != nil {
		errs = append(errs, p.limits.Close())
	}
	if p.shared != nil {
		errs = append(errs, p.shared.Close())
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	return errors.Join(append(errs, p.state.release())...)
}

// stateDir is where run keeps what it has to know of its Envoys.
func (p *process) stateDir() string {
	if p.state.dir != "" {
		return p.state.dir
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("legation-%d", os.Getpid()))
}

// companionTarget is where Envoys find the companion.
func (p *process) companionTarget() string {
	return cmp.Or(p.o.CompanionTarget, p.address("companion"))
}

// announce logs what is open, and to whom.
func (p *process) announce() {
	for _, port := range p.ports {
		to := p.audience(port.name)
		if to == "" {
			p.o.Log.Info("listening", "port", port.name, "address", port.address)
			continue
		}
		p.o.Log.Info("listening", "port", port.name, "address", port.address, "answers", to)
	}
}

// address is where the port is open.
func (p *process) address(name string) string {
	for _, port := range p.ports {
		if port.name == name {
			return port.address
		}
	}
	return ""
}

// report tells people and the log what a load came to.
func (p *process) report(o control.Outcome) {
	if o.Error != "" {
		p.o.Log.Error("policy not loaded", "error", o.Error)
	}
	if len(o.Problems) > 0 {
		o.Problems.Write(p.o.Out, o.Files, p.o.Colour)
		if !p.people {
			p.logProblems(o)
		}
	}
	if p.people && p.reported && o.Revision != "" {
		p.tell(o)
	}
	p.reported = true
	if o.Changed {
		p.o.Log.Info("policy served", "revision", o.Revision, "gateways", len(o.Model.Gateways), "routes", len(o.Model.Routes),
			"services", len(o.Model.Services))
		for _, id := range o.Rotated {
			p.o.Log.Info("secret rotated", "secret", id)
		}
		p.warnOfPlaintext(o)
		tuneCollector()
		p.tidy.loaded()
		if tell := p.onServed.Load(); tell != nil {
			(*tell)(o.Model)
		}
	}
}

// logProblems tells the log of the first problem that keeps a change back, or else of the first warning.
func (p *process) logProblems(o control.Outcome) {
	errs, warnings := o.Problems.Split()
	if len(errs) == 0 {
		p.o.Log.Warn("policy has warnings", "warnings", len(warnings), "first", warnings[0].Error())
		return
	}
	p.o.Log.Warn("policy has problems", "problems", len(errs), "warnings", len(warnings), "first", errs[0].Error(), "serving", o.Revision)
}

// warnOfPlaintext tells, once, that everybody on the network may read or ask for the keys that are served.
func (p *process) warnOfPlaintext(o control.Outcome) {
	if p.exposed || len(o.Secrets) == 0 || !p.o.openXDS() {
		return
	}
	p.exposed = true
	p.o.Log.Error("SECRETS ARE SERVED WITHOUT TLS: whoever reaches the xDS port can have the private keys of this policy",
		"address", p.address("xDS"), "secrets", len(o.Secrets), "hint", "give --tls-cert, --tls-key and --tls-ca")
}

// tell tells the person at the terminal how it stands after a change of the files.
func (p *process) tell(o control.Outcome) {
	now := time.Now().Format(time.TimeOnly)
	switch bad := o.Problems.HasErrors() || o.Error != ""; {
	case bad && o.Changed:
		fmt.Fprintf(p.o.Out, "%s live: what is good of it, revision %s\n", now, o.Revision)
	case bad:
		fmt.Fprintf(p.o.Out, "%s nothing changed: still revision %s\n", now, o.Revision)
	case len(o.Rotated) > 0:
		fmt.Fprintf(p.o.Out, "%s live: new %s, still revision %s\n", now, strings.Join(o.Rotated, ", "), o.Revision)
	case o.Changed:
		fmt.Fprintf(p.o.Out, "%s live: revision %s\n", now, o.Revision)
	case len(o.Problems) > 0: // warnings, which speak for themselves
	default:
		fmt.Fprintf(p.o.Out, "%s mended: nothing is wrong any more, still revision %s\n", now, o.Revision)
	}
}

// served has tell called with the model of every new revision.
func (p *process) served(tell func(*policy.Model)) { p.onServed.Store(&tell) }

// run serves until ctx ends or one part fails, which ends all. When ctx ends all goes on as before until those who ask
// whether the process is well know that it stops.
func (p *process) run(told context.Context) error {
	lasting, end := context.WithCancel(context.WithoutCancel(told))
	defer end()
	group, ctx := errgroup.WithContext(lasting)
	defer context.AfterFunc(told, func() {
		p.stopping.Store(true)
		p.leave(ctx)
		end()
	})()
	context.AfterFunc(ctx, func() { p.stopping.Store(true) })
	for _, port := range p.ports {
		group.Go(func() error { return port.run(ctx, port.listener) })
	}
	if p.xds != nil {
		group.Go(func() error { return p.xds.Run(ctx) })
		group.Go(func() error { return p.loads.Run(ctx) })
	}
	if p.auth != nil {
		group.Go(func() error { return p.auth.Run(ctx) })
	}
	if p.nodes != nil {
		group.Go(func() error { return p.nodes.Run(ctx) })
	}
	if p.tls != nil {
		group.Go(func() error {
			p.tls.watch(ctx)
			return nil
		})
	}
	group.Go(func() error { return p.control.Run(ctx) })
	err := group.Wait()
	p.stopping.Store(true) // before AfterFunc's goroutine, when the parts end at once
	p.o.Log.Info("stopped")
	return err
}

// leave tells those who ask for the health of a port that the process stops. The Envoys of run have ended before it.
func (p *process) leave(ctx context.Context) {
	if p.people {
		return
	}
	var ports sync.WaitGroup
	for _, h := range p.health {
		ports.Go(func() { h.leave(ctx) })
	}
	ports.Wait()
}

// status lists so many resources of Envoys at most; of one node only, or of all when it is empty.
func (p *process) status(d xds.Detail) Status {
	s := Status{Version: p.o.Version, Started: p.started, Roles: p.o.Roles, Policy: p.control.Outcome(), Nodes: []xds.NodeStatus{}}
	if p.xds != nil {
		n := p.xds.Nodes(d)
		s.Nodes, s.Left, s.Unlisted = append(s.Nodes, n.Connected...), n.Left, n.Unlisted
		s.Loads = p.loads.Snapshot()
	}
	if p.store != nil {
		health := p.store.Health()
		s.Store = &health
	}
	if p.shared != nil {
		health := p.shared.Health()
		s.Shared = &health
	}
	if p.auth != nil {
		s.Keys = p.auth.Health()
	}
	return s
}

// readiness is not ready before a whole policy is served and while the process stops. What is degraded does not make
// it unready: the services answer as the policy says for that case.
func (p *process) readiness() readiness {
	r := readiness{Degraded: []string{}}
	outcome := p.control.Outcome()
	switch {
	case p.stopping.Load():
		r.Waiting = "stopping"
	case outcome.Revision == "":
		r.Waiting = "no whole policy has been loaded yet"
		if n := keepBack(outcome.Problems); n > 0 {
			r.Waiting += fmt.Sprintf(": %d problems keep it back, see the log or legation status", n)
		}
	default:
		r.Ready = true
	}
	if outcome.Error != "" {
		r.Degraded = append(r.Degraded, "policy: "+outcome.Error)
	}
	if n := keepBack(outcome.Problems); n > 0 {
		r.Degraded = append(r.Degraded, fmt.Sprintf("policy: %d problems keep changes back", n))
	}
	for _, parked := range outcome.Parked {
		why := "as its Envoys refuse what there is for it"
		if parked.Canaries {
			why = "as Envoys that had it first did not keep what there is for it"
		}
		r.Degraded = append(r.Degraded, "policy: gateway "+parked.Group+" was rolled back, "+why)
	}
	if p.store != nil {
		if h := p.store.Health(); !h.OK {
			r.Degraded = append(r.Degraded, "store: "+h.Reason)
		}
	}
	if p.shared != nil {
		if h := p.shared.Health(); !h.OK {
			r.Degraded = append(r.Degraded, "shared store: "+h.Reason)
		}
		if p.auth != nil && !p.shared.Board("revoked").Known() {
			r.Degraded = append(r.Degraded, "revocations: not known yet, so that nobody is let in: Redis has not been read, and there is no copy here")
		}
	}
	if p.auth != nil {
		for _, k := range p.auth.Health() {
			if k.Error != "" {
				r.Degraded = append(r.Degraded, "keys: "+k.URL+": "+k.Error)
			}
		}
	}
	r.Degraded = append(r.Degraded, p.access()...)
	slices.Sort(r.Degraded)
	return r
}

// keepBack counts the problems that are more than warnings.
func keepBack(problems policy.Problems) int {
	errs, _ := problems.Split()
	return len(errs)
}
