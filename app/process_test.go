package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/callout"
	"github.com/legation/legation/control"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// dial connects to a gRPC port.
func dial(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// watch follows the health of a port.
func watch(t testing.TB, c *grpc.ClientConn) (next func() string, end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	stream, err := grpc_health_v1.NewHealthClient(c).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	must(t, err)
	return func() string {
		t.Helper()
		r, err := stream.Recv()
		must(t, err)
		return r.GetStatus().String()
	}, cancel
}

// A whole process answers on all its ports, says so, and ends when it is told to.
func TestProcessServes(t *testing.T) { eachPath(t, testProcessServes) }

func testProcessServes(t *testing.T, slow bool) {
	var log, out output
	p, stop := running(t, Options{
		Dir: policyDir(t, quickstart), DataDir: t.TempDir(), Out: &out, Log: slog.New(slog.NewTextHandler(&log, nil)), NoFastPath: slow,
	})
	for _, name := range []string{"xDS", "companion"} {
		next, end := watch(t, dial(t, p.address(name)))
		for got := next(); got != "SERVING"; got = next() {
			continue
		}
		end()
	}
	a, err := http.Get("http://" + p.address("admin") + "/readyz")
	must(t, err)
	must(t, a.Body.Close())
	if a.StatusCode != http.StatusOK {
		t.Errorf("readyz: got %s", a.Status)
	}
	if p.companionTarget() != p.address("companion") {
		t.Errorf("Envoys find the companion at %s", p.companionTarget())
	}
	if err := stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	for _, port := range p.ports {
		if !free(port.address) {
			t.Errorf("%s is still open", port.name)
		}
	}
	if !strings.Contains(log.String(), "policy served") || !strings.Contains(log.String(), "stopped") {
		t.Errorf("the log: %s", log.String())
	}
}

// Health says NOT_SERVING while there is no policy, and comes by itself.
func TestHealthFollowsThePolicy(t *testing.T) { eachPath(t, testHealthFollowsThePolicy) }

func testHealthFollowsThePolicy(t *testing.T, slow bool) {
	dir := policyDir(t, "routes: [\n")
	var out output
	p, err := newProcess(anywhere(Options{Dir: dir, Out: &out, Roles: []Role{Auth}, NoFastPath: slow}))
	must(t, err)
	must(t, p.open())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	next, end := watch(t, dial(t, p.address("companion")))
	defer end()
	if got := next(); got != "NOT_SERVING" {
		t.Errorf("without a policy: %s", got)
	}
	until(t, "the problem to be told", func() bool { return strings.Contains(out.String(), "policy.yaml:") })
	write(t, filepath.Join(dir, "policy.yaml"), quickstart)
	if got := next(); got != "SERVING" {
		t.Errorf("with a policy: %s", got)
	}
	end()
	cancel()
	must(t, await(t, "the end", ended))
	must(t, p.close())
}

// Secrets that go out where others can read them are warned of once, when they are first served.
func TestSecretsWithoutTLS(t *testing.T) {
	t.Parallel()
	with := control.Outcome{Changed: true, Revision: "1", Model: &policy.Model{}, Secrets: []control.Secret{{ID: "certificate/tls/a"}}}
	without := with
	without.Secrets = nil
	for _, row := range []struct {
		name    string
		o       Options
		outcome control.Outcome
		want    int
	}{
		{"all can reach them", Options{XDSAddress: "0.0.0.0:1", Insecure: true}, with, 1},
		{"no secrets", Options{XDSAddress: "0.0.0.0:1", Insecure: true}, without, 0},
		{"TLS", Options{XDSAddress: "0.0.0.0:1", TLSCert: "c"}, with, 0},
		{"loopback", Options{}, with, 0},
		{"no xDS", Options{XDSAddress: "0.0.0.0:1", Roles: []Role{Auth}}, with, 0},
	} {
		var log output
		row.o.Log = slog.New(slog.NewTextHandler(&log, nil))
		p := &process{o: row.o.withDefaults()}
		p.report(row.outcome)
		p.report(row.outcome)
		if got := strings.Count(log.String(), "SECRETS ARE SERVED WITHOUT TLS"); got != row.want {
			t.Errorf("%s: warned %d times, want %d: %s", row.name, got, row.want, log.String())
		}
	}
}

// What a rotation came to is told to people and the log, by the names of the secrets; a warning is no change.
func TestRotationIsTold(t *testing.T) {
	t.Parallel()
	var log, out output
	p := &process{o: Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Out: &out}.withDefaults(), people: true, reported: true}
	p.report(control.Outcome{Changed: true, Revision: "1", Model: &policy.Model{}, Rotated: []string{"certificate/tls/a", "secret/word"}})
	if !strings.Contains(out.String(), "live: new certificate/tls/a, secret/word, still revision 1") || strings.Count(log.String(), "secret rotated") != 2 {
		t.Errorf("got %s%s", out.String(), log.String())
	}
	p.report(control.Outcome{Revision: "1", Problems: policy.Problems{{Message: "certificate/tls/a expires", Warning: true}}})
	if strings.Contains(out.String(), "mended") || !strings.Contains(out.String(), "expires") {
		t.Errorf("a warning is told as %s", out.String())
	}
}

// Each role is given only the secrets that it needs.
func TestSecretsByRole(t *testing.T) {
	t.Parallel()
	envoys := []policy.SecretKind{policy.CertificateSecret, policy.AuthoritySecret, policy.OpaqueSecret}
	for _, row := range []struct {
		roles []Role
		want  *control.Secrets
	}{
		{nil, &control.Secrets{Dir: "secrets"}},
		{[]Role{XDS}, &control.Secrets{Dir: "secrets", Kinds: envoys}},
		{[]Role{XDS, RateLimit}, &control.Secrets{Dir: "secrets", Kinds: envoys}},
		{[]Role{Auth, RateLimit}, &control.Secrets{Dir: "secrets", Kinds: []policy.SecretKind{policy.CompanionSecret}}},
		{[]Role{RateLimit}, nil},
	} {
		p := &process{o: Options{Roles: row.roles, SecretsDir: "secrets"}.withDefaults()}
		if d := cmp.Diff(row.want, p.secrets()); d != "" {
			t.Errorf("%v (-want +got):\n%s", row.roles, d)
		}
	}
}

// held is an auth service whose answer the test holds back.
type held struct {
	authv3.UnimplementedAuthorizationServer
	inside, release chan struct{}
}

func (h held) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	close(h.inside)
	<-h.release
	return &authv3.CheckResponse{}, nil
}

func (h held) Answer([]*callout.Call) {
	close(h.inside)
	<-h.release
}

// At the end health says so at once, a call in flight is answered, and no new one is taken.
func TestGRPCStopsGracefully(t *testing.T) { eachPath(t, testGRPCStopsGracefully) }

func testGRPCStopsGracefully(t *testing.T, slow bool) {
	service := held{inside: make(chan struct{}), release: make(chan struct{})}
	s := newGRPC(nil, 0)
	if !slow {
		s = newCalloutServer(callout.Options{Methods: map[string]callout.Method{authv3.Authorization_Check_FullMethodName: service.Answer}})
	}
	authv3.RegisterAuthorizationServer(s, service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.ready(true)
	ctx, cancel := context.WithCancel(t.Context())
	ended, answered := make(chan error, 1), make(chan error, 1)
	go func() { ended <- s.run(ctx, l, patience) }()
	c := dial(t, l.Addr().String())
	next, end := watch(t, c)
	if got := next(); got != "SERVING" {
		t.Errorf("got %s", got)
	}
	go func() {
		_, err := authv3.NewAuthorizationClient(dial(t, l.Addr().String())).Check(context.Background(), &authv3.CheckRequest{})
		answered <- err
	}()
	await(t, "the call", service.inside)

	cancel()
	if got := next(); got != "NOT_SERVING" {
		t.Errorf("told to end: got %s", got)
	}
	end()
	until(t, "the port to close", func() bool { return free(l.Addr().String()) })
	select {
	case err := <-ended:
		t.Fatalf("ended with a call in flight: %v", err)
	case err := <-answered:
		t.Fatalf("the call ended before its answer: %v", err)
	default:
	}
	s.ready(true) // too late: the policy came while the process ended
	close(service.release)
	if err := await(t, "the answer", answered); err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := await(t, "the end", ended); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// Streams that never end are cut off after the grace.
func TestEndlessStreamsAreCut(t *testing.T) { eachPath(t, testEndlessStreamsAreCut) }

func testEndlessStreamsAreCut(t *testing.T, slow bool) {
	s := newGRPC(nil, 0)
	if !slow {
		s = newCalloutServer(callout.Options{})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, l, 50*time.Millisecond) }()
	next, _ := watch(t, dial(t, l.Addr().String()))
	next()
	cancel()
	if err := await(t, "the end", ended); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// A port that is taken stops the start before anything runs, and gives all the others back.
func TestTakenPortStopsTheStart(t *testing.T) {
	t.Parallel()
	first, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer first.Close()
	second, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer second.Close()
	data := t.TempDir()
	err = Serve(t.Context(), Options{
		Dir: policyDir(t, quickstart), DataDir: data,
		XDSAddress: first.Addr().String(), CompanionAddress: "127.0.0.1:0", AdminAddress: second.Addr().String(),
	})
	for _, part := range []string{"xDS: " + first.Addr().String(), "--xds-address", "admin: " + second.Addr().String(), "--admin-address"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want it to say %q", err, part)
		}
	}
	s, err := claim(data)
	if err != nil || s.taken {
		t.Errorf("the data directory is still claimed: %v", err)
	}
	must(t, s.release())
}

// One part that fails ends the process, with its error.
func TestFailedPartEndsTheProcess(t *testing.T) {
	t.Parallel()
	p, err := newProcess(anywhere(Options{Dir: policyDir(t, quickstart)}))
	must(t, err)
	broken := errors.New("broken")
	p.ports = append(p.ports, port{name: "more", address: "127.0.0.1:0", run: func(context.Context, net.Listener) error { return broken }})
	must(t, p.open())
	if err := p.run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v, want what broke", err)
	}
	if r := p.readiness(); r.Ready || r.Waiting != "stopping" {
		t.Errorf("got %+v, want it to be stopping", r)
	}
	must(t, p.close())
}

// Problems and errors of a load reach people and the log; so does a policy that is served.
func TestReport(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, quickstart)
	var log, out output
	p := assemble(t, Options{Dir: dir, Out: &out, Log: slog.New(slog.NewTextHandler(&log, nil))})
	write(t, filepath.Join(dir, "policy.yaml"), quickstart+"nonsense: {}\n")
	p.control.Load()
	for _, part := range []string{"policy.yaml:14:1", "nonsense: {}", "^"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("people are told %q, want %q in it", out.String(), part)
		}
	}
	if !strings.Contains(log.String(), "policy has problems") || strings.Contains(log.String(), "policy served") {
		t.Errorf("the log: %s", log.String())
	}
	p.report(control.Outcome{Problems: policy.Problems{{Message: "odd", Warning: true}, {Message: "bad"}}})
	if !strings.Contains(log.String(), `problems=1 warnings=1 first=": bad"`) {
		t.Errorf("the log does not tell the error before the warning: %s", log.String())
	}
	write(t, filepath.Join(dir, "policy.yaml"), quickstart)
	p.control.Load()
	if !strings.Contains(log.String(), "policy served") || !strings.Contains(log.String(), "routes=2") {
		t.Errorf("the log: %s", log.String())
	}
}

// Every metric of a whole process is named and explained as the others are, and none has a label that callers fill.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	p, _ := running(t, Options{Dir: policyDir(t, quickstart)})
	families, err := p.metrics.Gather()
	must(t, err)
	name := regexp.MustCompile(`^legation_(control|xds|store|ratelimit|auth|callout)_[a-z]+(_[a-z]+)*$`)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "go_") || strings.HasPrefix(f.GetName(), "process_") {
			continue
		}
		counter := f.GetType().String() == "COUNTER"
		if !name.MatchString(f.GetName()) || counter != strings.HasSuffix(f.GetName(), "_total") {
			t.Errorf("%s (%s): want legation_ROOM_NOUN_UNIT, and _total for counters only", f.GetName(), f.GetType())
		}
		if !strings.HasSuffix(f.GetHelp(), ".") || len(f.GetHelp()) < 10 {
			t.Errorf("%s: help %q is no sentence", f.GetName(), f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains([]string{"group", "type", "result", "limit", "by", "method", "code", "reason", "kind", "entry"}, l.GetName()) {
					t.Errorf("%s: label %s may be without bounds", f.GetName(), l.GetName())
				}
			}
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	must(t, err)
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "legation_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
}

// The counter hands over who called, and what the limits say.
func TestCounter(t *testing.T) {
	t.Parallel()
	limits := ratelimit.New(ratelimit.Options{})
	t.Cleanup(func() { must(t, limits.Close()) })
	limit := ratelimit.Limit{
		Name: "route/app/0", Rate: ratelimit.Rate{Requests: 1, Window: 24 * time.Hour},
		By: []ratelimit.By{{Kind: ratelimit.Consumer}, {Kind: ratelimit.Header, Name: "x-tenant"}, {Kind: ratelimit.Claim, Name: "team"}},
	}
	limits.Load(ratelimit.Table{Limits: []ratelimit.Limit{limit}})
	who := func(consumer, tenant, team string) auth.Caller {
		only := func(name, value string) func(string) string {
			return func(asked string) string {
				if asked == name {
					return value
				}
				return ""
			}
		}
		return auth.Caller{Identified: consumer != "", Consumer: consumer, Header: only("x-tenant", tenant), Claim: only("team", team)}
	}
	c := control.NewCounter(limits)
	for i, row := range []struct {
		caller auth.Caller
		status int
	}{
		{who("demo/alice", "a", "red"), 200},
		{who("demo/alice", "a", "red"), 429},
		{who("demo/bob", "a", "red"), 200},
		{who("demo/alice", "b", "red"), 200},
		{who("demo/alice", "a", "blue"), 200},
		{who("", "a", "red"), 200}, // nobody that is known: not counted
		{who("", "a", "red"), 200},
	} {
		v := countOne(c, limit.ID(), row.caller)
		if v.Status != row.status || v.Allowed != (row.status == 200) {
			t.Errorf("call %d: got %+v, want %d", i, v, row.status)
		}
		if row.status == 429 && (v.Limit != limit.Name || !strings.Contains(fmt.Sprint(v.Headers), "Retry-After")) {
			t.Errorf("call %d: got %+v, want the limit's name and Retry-After", i, v)
		}
	}
	if v := countOne(c, "route/app/0@000000000000", who("demo/alice", "", "")); v.Allowed || v.Status != 503 {
		t.Errorf("a limit that is not known: got %+v, want 503", v)
	}
}

func countOne(c auth.Counter, limit string, who auth.Caller) auth.Verdict {
	a := &auth.Ask{Limits: []string{limit}, Caller: who}
	c.Count([]*auth.Ask{a})
	return a.Verdict
}

// Over mutual TLS both gRPC ports ask for a certificate; the admin port stays HTTP.
func TestPortsOverTLS(t *testing.T) { eachPath(t, testPortsOverTLS) }

func testPortsOverTLS(t *testing.T, slow bool) {
	c := newCertificates(t)
	p, _ := running(t, Options{Dir: policyDir(t, quickstart), TLSCert: c.cert, TLSKey: c.key, TLSCA: c.as, NoFastPath: slow})
	for _, name := range []string{"xDS", "companion"} {
		conn, err := net.Dial("tcp", p.address(name))
		must(t, err)
		_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		must(t, err)
		answer, _ := io.ReadAll(conn)
		if len(answer) > 7 { // an alert of TLS has seven bytes
			t.Errorf("%s answers %q without TLS", name, answer)
		}
		must(t, conn.Close())
	}
	a, err := http.Get("http://" + p.address("admin") + "/healthz")
	must(t, err)
	must(t, a.Body.Close())
}
