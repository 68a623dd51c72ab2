package auth

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/prometheus/client_golang/prometheus"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/legation/legation/callout"
)

// empty answers without looking: what grpc-go itself costs.
type empty struct {
	authv3.UnimplementedAuthorizationServer
}

func (empty) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}}, nil
}

// BenchmarkCheck asks over loopback gRPC with 64 requests in flight. CPU is of the whole process, so the client's half
// is in all figures alike; what the service costs is the difference to empty.
func BenchmarkCheck(b *testing.B) {
	rule := staticRule()
	token := "Bearer " + rsaPair().sign(b, goodClaims(map[string]any{"tenant": map[string]any{"id": "t-1"}, "scope": "orders:read orders:write"}))
	limited := staticRule()
	limited.Name, limited.Limits = "edge/limited", []string{"l"}
	k := &fixedCounter{Verdict{Allowed: true, Headers: [][2]string{{"x-ratelimit-limit", "100"}, {"x-ratelimit-remaining", "99"}}}}
	cached := load(b, Options{Counter: k}, Table{Rules: []Rule{rule, limited}})
	uncached := load(b, Options{}, Table{Rules: []Rule{rule}})
	for _, p := range uncached.table.Load().providers {
		p.way.(*tokens).cache = nil
	}
	for _, run := range []struct {
		name    string
		service authv3.AuthorizationServer
		request *authv3.CheckRequest
		status  int
	}{
		{"empty", empty{}, envoyLike(rule.ID(), token), 0},
		{"RS256-cached", cached, envoyLike(rule.ID(), token), 200},
		{"RS256-cached-counted", cached, envoyLike(limited.ID(), token), 200},
		{"RS256", uncached, envoyLike(rule.ID(), token), 200},
		{"no-token", cached, envoyLike(rule.ID(), ""), 401},
		{"hostile", cached, envoyLike(rule.ID(), "Bearer "+forge(b, `{"alg":"none"}`, "{}")), 401},
	} {
		b.Run(run.name, func(b *testing.B) { inFlight(b, 64, run.service, run.request, run.status) })
	}
}

type fixedCounter struct{ v Verdict }

func (f *fixedCounter) Count(asks []*Ask) {
	for _, a := range asks {
		a.Verdict = f.v
	}
}

// envoyLike has about the headers that a browser's request has when Envoy asks.
func envoyLike(rule, authorization string) *authv3.CheckRequest {
	return ask(rule, authorization, ":authority", "api.example.com", ":method", "GET", ":path", "/v1/orders", ":scheme", "https",
		"accept", "*/*", "user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "x-forwarded-proto", "https",
		"x-forwarded-for", "198.51.100.9", "x-envoy-external-address", "198.51.100.9", "x-request-id", "7f6f1a2e-0f52-4d0b-9b0b-1d2f6f7f2a11")
}

func inFlight(b *testing.B, workers int, service authv3.AuthorizationServer, q *authv3.CheckRequest, status int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, service)
	go server.Serve(l)
	defer server.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	c := authv3.NewAuthorizationClient(conn)
	r, err := c.Check(b.Context(), q)
	if err != nil || status != 0 && flatten(r).status != status {
		b.Fatal(r, err)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	before, start := cpu(), time.Now()
	for range workers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := c.Check(b.Context(), q); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "req/s")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/req")
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDecide leaves gRPC out.
func BenchmarkDecide(b *testing.B) {
	rule := staticRule()
	token := "Bearer " + rsaPair().sign(b, goodClaims(map[string]any{"tenant": map[string]any{"id": "t-1"}}))
	es := "Bearer " + ecPair().sign(b, goodClaims(nil))
	ed := "Bearer " + ed25519Pair().sign(b, goodClaims(nil))
	cached, uncached := load(b, Options{}, Table{Rules: []Rule{rule}}), load(b, Options{}, Table{Rules: []Rule{rule}})
	for _, p := range uncached.table.Load().providers {
		p.way.(*tokens).cache = nil
	}
	for _, run := range []struct {
		name    string
		s       *Service
		token   string
		allowed bool
	}{
		{"RS256-cached", cached, token, true}, {"RS256", uncached, token, true}, {"ES256", uncached, es, true}, {"EdDSA", uncached, ed, true},
	} {
		b.Run(run.name, func(b *testing.B) {
			q := envoyLike(rule.ID(), run.token)
			b.ReportAllocs()
			for b.Loop() {
				r, err := run.s.Check(b.Context(), q)
				if err != nil || (r.GetOkResponse() != nil) != run.allowed {
					b.Fatal(r, err)
				}
			}
		})
	}
}

// BenchmarkAnswer decides turns of so many calls; cpu-ns/call is the CPU of one.
func BenchmarkAnswer(b *testing.B) {
	rule, limited := staticRule(), staticRule()
	limited.Name, limited.Limits = "edge/limited", []string{"l"}
	rateLimit := Verdict{Allowed: true, Headers: [][2]string{{"RateLimit-Limit", "100"}, {"RateLimit-Remaining", "99"}, {"RateLimit-Reset", "60"}}}
	s := load(b, Options{Counter: &fixedCounter{rateLimit}, Metrics: prometheus.NewRegistry()}, Table{Rules: []Rule{rule, limited}})
	good := func(n int) string {
		return "Bearer " + rsaPair().sign(b, goodClaims(map[string]any{"sub": fmt.Sprint("user-", n), "tenant": map[string]any{"id": "t-1"}, "scope": "orders:read orders:write"}))
	}
	for _, kind := range []struct {
		name, rule    string
		authorization func(n int) string
		status        int
	}{
		{"warm", rule.ID(), good, 200},
		{"counted", limited.ID(), good, 200},
		{"anonymous", rule.ID(), func(int) string { return "" }, 401},
		{"hostile", rule.ID(), func(int) string { return "Bearer " + forge(b, `{"alg":"none"}`, "{}") }, 401},
	} {
		for _, size := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%s-%d", kind.name, size), func(b *testing.B) {
				turn := make([]*callout.Call, size)
				for i := range turn {
					turn[i] = &callout.Call{Message: must(proto.Marshal(envoyLike(kind.rule, kind.authorization(i))))}
				}
				s.Answer(turn)
				if got := flatten(read(b, turn[0])).status; got != kind.status {
					b.Fatal(got)
				}
				b.ReportAllocs()
				before := cpu()
				for b.Loop() {
					for _, c := range turn {
						c.Reply = c.Reply[:0]
					}
					s.Answer(turn)
				}
				b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N*size), "cpu-ns/call")
			})
		}
	}
}

// BenchmarkAnswerNew decides turns of tokens that were never seen before.
func BenchmarkAnswerNew(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			rule := staticRule()
			s := load(b, Options{}, Table{Rules: []Rule{rule}})
			for _, p := range s.table.Load().providers {
				p.way.(*tokens).cache = nil
			}
			turn := make([]*callout.Call, size)
			for i := range turn {
				token := "Bearer " + rsaPair().sign(b, goodClaims(map[string]any{"sub": fmt.Sprint("user-", i)}))
				turn[i] = &callout.Call{Message: must(proto.Marshal(envoyLike(rule.ID(), token)))}
			}
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				s.Answer(turn)
			}
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N*size), "cpu-ns/call")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "wall-ns/call")
		})
	}
}

// BenchmarkBare is what the library alone takes for the same tokens as BenchmarkDecide: the signature, without any rule.
func BenchmarkBare(b *testing.B) {
	for _, run := range []struct {
		alg  jwa.SignatureAlgorithm
		pair keyPair
	}{{jwa.RS256(), rsaPair()}, {jwa.ES256(), ecPair()}, {jwa.EdDSA(), ed25519Pair()}} {
		b.Run(run.alg.String(), func(b *testing.B) {
			token := []byte(run.pair.sign(b, goodClaims(map[string]any{"tenant": map[string]any{"id": "t-1"}})))
			public := run.pair.private.Public()
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				if _, err := jws.Verify(token, jws.WithKey(run.alg, public)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/call")
		})
	}
}
