package control

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/xds"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// counter counts nothing: the tests ask the limits themselves.
type counter struct{}

func (counter) Count(asks []*auth.Ask) {
	for _, a := range asks {
		a.Verdict = auth.Verdict{Allowed: true, Status: 200}
	}
}

// plane is a controller over real services, in a bubble: loads come from the test, time is fake.
type plane struct {
	*Controller
	t        *testing.T
	dir      string
	listener *bufconn.Listener
	envoys   int    // so many were started
	stop     func() // ends what watches the fleet; nil: nothing does
}

func newPlane(t *testing.T, o Options, withXDS bool) *plane {
	t.Helper()
	p := &plane{t: t, dir: o.Dir, listener: bufconn.Listen(1 << 16)}
	if p.dir == "" {
		p.dir = tree(t, map[string]string{"keys.json": string(publicKeys(t))})
	}
	o.Dir, o.Auth, o.Limits = p.dir, auth.New(auth.Options{Counter: counter{}}), ratelimit.New(ratelimit.Options{})
	server := grpc.NewServer(xds.ServerOptions()...)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	if withXDS {
		o.XDS = xds.New(xds.Options{Log: o.Log, Metrics: o.Metrics, OnNACK: func(xds.NodeStatus) { p.Refused() }})
		o.XDS.Register(server)
		done.Go(func() { _ = o.XDS.Run(ctx) })
		done.Go(func() { _ = server.Serve(p.listener) })
	}
	p.Controller = controller(o)
	p.Recall()
	t.Cleanup(func() {
		cancel()
		server.Stop()
		done.Wait()
		must(t, o.Limits.Close())
	})
	return p
}

// push makes a policy the one of the directory and loads it; it returns what it compiles to.
func (p *plane) push(text string) *Compiled {
	p.t.Helper()
	write(p.t, filepath.Join(p.dir, "policy.yaml"), text)
	p.Load()
	synctest.Wait()
	if o := p.Outcome(); o.Error != "" || o.Problems.HasErrors() || !o.Changed {
		p.t.Fatalf("push: %q %v", o.Error, o.Problems)
	}
	return compile(p.t, text)
}

// knows tells whether the companions answer for a policy's rule and limit.
func (p *plane) knows(c *Compiled) bool {
	p.t.Helper()
	rule, limit := knowsRule(p.t, p.o.Auth, c.Auth.Rules[0].ID()), knowsLimit(p.o.Limits, c.Limits.Limits[0].ID())
	if rule != limit {
		p.t.Errorf("the rule is known: %t, but the limit: %t", rule, limit)
	}
	return rule
}

// knowsRule asks without a token: 401 by a known rule, 503 by any other.
func knowsRule(t testing.TB, s *auth.Service, id string) bool {
	t.Helper()
	r, err := s.Check(context.Background(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{auth.RuleExtension: id},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Host: "app.test", Path: "/"}},
	}})
	must(t, err)
	switch code := int(r.GetDeniedResponse().GetStatus().GetCode()); code {
	case 401:
		return true
	case 503:
		return false
	default:
		t.Fatalf("check of %s: %d", id, code)
		return false
	}
}

func knowsLimit(s *ratelimit.Service, id string) bool {
	return s.Count(context.Background(), []string{id}, ratelimit.Attributes{Consumer: "demo/alice"}, 0).Status == 200
}

// proxy is a client that takes clusters and listeners; it answers as it is told.
type proxy struct {
	t      *testing.T
	id     string
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	leave  func() // ends its stream

	mu     sync.Mutex // guards what follows
	refuse bool       // NACK instead of ACK
	mute   bool       // neither
	seen   func()     // called before each answer
	pushes int
	took   []*discoveryv3.Resource
}

func (p *plane) envoy() *proxy {
	p.t.Helper()
	p.envoys++
	return p.envoyCalled(fmt.Sprintf("envoy-%d", p.envoys))
}

func (p *plane) envoyCalled(id string) *proxy {
	p.t.Helper()
	return p.envoyOf("edge", id)
}

func (p *plane) envoyOf(group, id string) *proxy {
	p.t.Helper()
	return p.resumes(group, id, nil)
}

// back connects an Envoy again, which goes on with what it has.
func (p *plane) back(e *proxy) *proxy {
	p.t.Helper()
	e.leave()
	synctest.Wait()
	return p.resumes("edge", e.id, e.took)
}

// resumes connects an Envoy that has these resources.
func (p *plane) resumes(group, id string, has []*discoveryv3.Resource) *proxy {
	p.t.Helper()
	conn, err := grpc.NewClient("passthrough:///plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.listener.DialContext(ctx) }))
	must(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	e := &proxy{t: p.t, id: id, leave: cancel, seen: func() {}, took: has}
	e.stream, err = discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	must(p.t, err)
	var done sync.WaitGroup
	done.Go(e.read)
	p.t.Cleanup(func() {
		cancel()
		done.Wait()
		must(p.t, conn.Close())
	})
	versions := map[string]map[string]string{}
	for _, r := range has {
		url := r.GetResource().GetTypeUrl()
		if versions[url] == nil {
			versions[url] = map[string]string{}
		}
		versions[url][r.GetName()] = r.GetVersion()
	}
	node := &corev3.Node{Id: id, Cluster: group}
	for _, url := range []string{resource.ClusterType, resource.ListenerType} {
		must(p.t, e.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, Node: node, InitialResourceVersions: versions[url]}))
	}
	must(p.t, e.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: resource.RouteType, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: versions[resource.RouteType],
	}))
	synctest.Wait()
	return e
}

func (e *proxy) read() {
	for {
		r, err := e.stream.Recv()
		if err != nil {
			return // the test is over
		}
		e.mu.Lock()
		e.pushes++
		e.took = append(e.took, r.GetResources()...)
		e.seen()
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
		if e.refuse {
			answer.ErrorDetail = &statuspb.Status{Code: 13, Message: "no"}
		}
		if !e.mute {
			_ = e.stream.Send(answer)
		}
		e.mu.Unlock()
	}
}

func (e *proxy) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// The companions know a policy before the first Envoy is told of it, and the one before until a while after the ACK.
func TestCompanionsBeforeEnvoys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, Options{Grace: 10 * time.Second}, true)
		first := p.push(protected(1, 10))
		e := p.envoy()
		second := compile(t, protected(2, 20))
		early, before := false, 0
		e.set(func() {
			before = e.pushes
			e.seen = func() { early = early || !p.knows(second) || !p.knows(first) }
		})
		p.push(protected(2, 20))
		if e.set(func() { e.seen = func() {} }); e.pushes == before {
			t.Fatal("the Envoy was told nothing")
		}
		if early {
			t.Error("the Envoy was told before the companions, or they had forgotten what it ran")
		}
		if !p.knows(first) || !p.knows(second) {
			t.Error("just after the ACK: a policy is not known; requests that were routed before still ask for the first")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if p.knows(first) || !p.knows(second) {
			t.Error("a while after the ACK: want the second policy only")
		}
	})
}

// An Envoy that refuses, or says nothing, goes on asking for what it has.
func TestCompanionsKeepWhatARefusingEnvoyRuns(t *testing.T) {
	t.Parallel()
	for name, behave := range map[string]func(*proxy){
		"NACK":   func(e *proxy) { e.refuse = true },
		"silent": func(e *proxy) { e.mute = true },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlane(t, Options{Grace: 10 * time.Second}, true)
			first := p.push(protected(1, 10))
			e := p.envoy()
			e.set(func() { behave(e) })
			second := p.push(protected(2, 20))
			time.Sleep(time.Hour)
			synctest.Wait()
			if !p.knows(first) || !p.knows(second) {
				t.Errorf("%s: an hour later a policy is not known", name)
			}
		})
	}
}

// What an Envoy that never takes anything may still run is bounded.
func TestOlderPoliciesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, Options{}, true)
		var all []*Compiled
		all = append(all, p.push(protected(1, 10)))
		e := p.envoy()
		e.set(func() { e.mute = true })
		for i := range retained + 3 {
			all = append(all, p.push(protected(2+i, 20+i)))
		}
		for i, c := range all {
			if want := i >= len(all)-1-retained; p.knows(c) != want {
				t.Errorf("policy %d of %d is known: %t, want %t", i, len(all), !want, want)
			}
		}
	})
}

// Without xDS nobody tells when the Envoys have left a policy.
func TestCompanionAloneRetains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, Options{Retain: time.Minute}, false)
		first, second := p.push(protected(1, 10)), p.push(protected(2, 20))
		time.Sleep(59 * time.Second)
		synctest.Wait()
		third := p.push(protected(3, 30)) // a later policy starts the wait anew
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if !p.knows(first) || !p.knows(second) || !p.knows(third) {
			t.Error("before the time is over: a policy is not known")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if p.knows(first) || p.knows(second) || !p.knows(third) {
			t.Error("after that time: want the third policy only")
		}
	})
}

// A policy that comes back while the other one is being left is not forgotten with it.
func TestPolicyComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, Options{Grace: 10 * time.Second}, true)
		p.envoy()
		first, second := p.push(protected(1, 10)), p.push(protected(2, 20))
		p.push(protected(1, 10))
		time.Sleep(time.Minute)
		synctest.Wait()
		if !p.knows(first) || p.knows(second) {
			t.Errorf("knows the first: %t, the second: %t; want the first only", p.knows(first), p.knows(second))
		}
	})
}

// After a restart with another policy the Envoys are away for some seconds, and still run the one before.
func TestRestartAnswersForTheEnvoysThatAreAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		data := t.TempDir()
		p := newPlane(t, Options{DataDir: data}, true)
		first := p.push(protected(1, 10))
		p = newPlane(t, Options{Dir: p.dir, DataDir: data}, true)
		second := p.push(protected(2, 20))
		time.Sleep(6 * time.Second) // the longest that an Envoy waits before it connects again
		synctest.Wait()
		if !p.knows(first) || !p.knows(second) {
			t.Error("a policy is not known while the Envoys are on their way back")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if p.knows(first) || !p.knows(second) {
			t.Error("a minute later: want the second policy only")
		}
	})
}

// A rule that the auth service refuses stops the policy before anything is published.
func TestRefusedTableIsNotPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, Options{}, true)
		p.o.Auth = auth.New(auth.Options{}) // counts nothing, so that it refuses rules with limits
		e := p.envoy()
		write(t, filepath.Join(p.dir, "policy.yaml"), protected(1, 10))
		p.Load()
		synctest.Wait()
		if o := p.Outcome(); o.Revision != "" || o.Error == "" {
			t.Errorf("got %+v, want an error", o)
		}
		if e.set(func() {}); e.pushes != 0 {
			t.Errorf("%d responses were sent", e.pushes)
		}
		p.o.Auth = auth.New(auth.Options{Counter: counter{}})
		p.Load()
		synctest.Wait()
		if o := p.Outcome(); o.Revision == "" || o.Error != "" {
			t.Errorf("the next load: got %+v, want it served", o)
		}
	})
}

// A new listener, cluster and so on carry the line that they come from, and one change is one snapshot for each group.
func TestEveryGroupIsPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, Options{}, true)
		p.push("gateways:\n  edge: {listeners: {http: {port: 1}}}\n  other: {listeners: {http: {port: 2}}}\n" +
			"services: {app: {endpoints: [\"127.0.0.1:1\"]}}\n" +
			"auth: {demo: {jwt: {issuer: \"https://quickstart.legation.test/\", audiences: [quickstart], jwks: {file: keys.json}}}}\n" +
			"routes: {app: {gateways: [edge], hostnames: [app.test], auth: [demo], rateLimit: {rate: 1/hour}, backends: {app: 1}}}\n")
		p.envoy()
		nodes := p.o.XDS.Status()
		if len(nodes) != 1 || nodes[0].Group != "edge" {
			t.Fatalf("got %+v, want the one Envoy", nodes)
		}
		for _, one := range nodes[0].Types {
			if one.Type != "route" && one.State != xds.ACK {
				t.Errorf("%s: got %s, want ACK", one.Type, one.State)
			}
		}
	})
}

// The companions know what each of the last policies asked for once, and the newest last: of several versions of one name the
// last is current. What the newest has of an older one is not kept twice.
func TestCompanionsKnowWhatOlderPoliciesHadBeyond(t *testing.T) {
	t.Parallel()
	rule := func(name, version string) auth.Rule { return auth.Rule{Name: name, Limits: []string{version}} }
	var tables []*Compiled
	for _, rules := range [][]auth.Rule{
		{rule("a", "1"), rule("b", "1"), rule("c", "1")},
		{rule("a", "2"), rule("b", "1")},
		{rule("new", "1"), rule("a", "3"), rule("b", "1")},
		{rule("new", "1"), rule("a", "3"), rule("b", "1")},
	} {
		next := &Compiled{Auth: auth.Table{Rules: rules}}
		tables = append([]*Compiled{next}, older(tables, next)...)
	}
	got := union(tables, func(c *Compiled) []auth.Rule { return c.Auth.Rules })
	want := []auth.Rule{rule("a", "1"), rule("c", "1"), rule("a", "2"), rule("new", "1"), rule("a", "3"), rule("b", "1")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	tables = tables[:1]
	if got := union(tables, func(c *Compiled) []auth.Rule { return c.Auth.Rules }); &got[0] != &tables[0].Auth.Rules[0] {
		t.Error("of one policy: got another list than its own")
	}
}

// The policy that was recalled and the one that is loaded after it are often the same.
func TestATwinIsNotKept(t *testing.T) {
	t.Parallel()
	recalled, loaded := compile(t, protected(1, 10)), compile(t, protected(1, 10))
	if got := older([]*Compiled{recalled}, loaded); len(got) != 0 {
		t.Errorf("got %d older policies, want none", len(got))
	}
}

// Many changes while requests come in: no request ever meets a companion that does not know what an Envoy runs.
func TestNoGapWhilePoliciesChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, Options{Grace: time.Second}, true)
		before := p.push(protected(1, 1))
		e := p.envoy()
		gaps := 0
		for i := range 20 {
			now := compile(t, protected(2+i, 2+i))
			e.set(func() {
				e.seen = func() {
					if !p.knows(before) || !p.knows(now) {
						gaps++
					}
				}
			})
			p.push(protected(2+i, 2+i))
			e.set(func() { before = now })
			time.Sleep(time.Duration(i%4) * 400 * time.Millisecond)
		}
		if gaps > 0 {
			t.Errorf("%d gaps", gaps)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.tables); n > retained+1 {
			t.Errorf("%d tables are kept", n)
		}
	})
}

// endpointsOf asks for these.
func endpointsOf(names ...string) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: names}
}

// port is that of the endpoint of a service, as the Envoy was told last. The caller holds mu.
func (e *proxy) port(t *testing.T, name string) (port uint32) {
	t.Helper()
	for _, r := range e.took {
		if r.GetName() != name || r.GetResource().GetTypeUrl() != resource.EndpointType {
			continue
		}
		var a endpointv3.ClusterLoadAssignment
		must(t, r.GetResource().UnmarshalTo(&a))
		port = a.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress().GetPortValue()
	}
	return port
}
