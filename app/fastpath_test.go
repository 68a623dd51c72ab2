package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/examples"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// eachPath runs a test with the fast path and without it.
func eachPath(t *testing.T, test func(t *testing.T, slow bool)) {
	t.Parallel()
	for name, slow := range map[string]bool{"fast path": false, "grpc-go": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, slow)
		})
	}
}

// bearer is a token that the quickstart's rule accepts.
func bearer(t testing.TB, sub string) string {
	t.Helper()
	token, err := auth.Sign(examples.TestKey(), map[string]any{
		"iss": examples.Issuer, "aud": examples.Audience, "sub": sub, "exp": time.Now().Add(time.Hour).Unix(),
	}, examples.TestKeyID)
	must(t, err)
	return "Bearer " + token
}

// checkOf is a request to a rule as Envoy tells of it.
func checkOf(rule, authorization string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.7"},
		}}},
		ContextExtensions: map[string]string{auth.RuleExtension: rule},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/orders", Host: "localhost", Headers: map[string]string{"authorization": authorization},
		}},
	}}
}

func limitOf(entries ...string) *rls.RateLimitRequest {
	d := &rlcommon.RateLimitDescriptor{}
	for i := 0; i+1 < len(entries); i += 2 {
		d.Entries = append(d.Entries, &rlcommon.RateLimitDescriptor_Entry{Key: entries[i], Value: entries[i+1]})
	}
	return &rls.RateLimitRequest{Domain: "legation", Descriptors: []*rlcommon.RateLimitDescriptor{d}}
}

// asIs sends bytes as they are, and gives those of the answer.
type asIs struct{ encoding.CodecV2 }

func (asIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (asIs) Unmarshal(b mem.BufferSlice, v any) error {
	*v.(*[]byte) = b.Materialize()
	return nil
}

// Both paths give one answer to everything, odd messages included.
func TestPathsAnswerAlike(t *testing.T) {
	t.Parallel()
	var ports [2]*grpc.ClientConn
	daily := strings.Replace(quickstart, "10/minute", "10/day", 1) // which gives nothing back meanwhile
	for i, slow := range []bool{false, true} {
		p, _ := running(t, Options{Dir: policyDir(t, daily), NoFastPath: slow})
		ports[i] = dial(t, p.address("companion"))
	}
	message := func(m proto.Message) string {
		b, err := proto.Marshal(m)
		must(t, err)
		return string(b)
	}
	good := message(checkOf("edge/orders", bearer(t, "alice")))
	limit := message(limitOf("limit", "route/orders/0", "consumer", "demo/carol"))
	const check, limits = authv3.Authorization_Check_FullMethodName, rls.RateLimitService_ShouldRateLimit_FullMethodName
	for _, row := range []struct {
		method, message string
		times           int // until the limit is used up
	}{
		{check, good, 12},
		{check, message(checkOf("edge/orders", bearer(t, "bob"))), 1},
		{check, message(checkOf("edge/orders", "")), 1},
		{check, message(checkOf("edge/orders", "Bearer x")), 1},
		{check, message(checkOf("edge/orders@000000000000", bearer(t, "alice"))), 1},
		{check, message(checkOf("", "")), 1},
		{check, "", 1},
		{check, strings.Replace(good, "localhost", "local\xffost", 1), 1},
		{check, strings.Replace(good, "Bearer", "Be\xc0rer", 1), 1},
		{check, strings.Replace(good, "authorization", "authorizatio\xff", 1), 1},
		{check, strings.Replace(good, "/orders", "/order\xff", 1), 1}, // also in the rule's name
		{check, strings.Replace(good, "192.0.2.7", "192.0.2.\xff", 1), 1},
		{check, good[:len(good)-1], 1},
		{check, "\x0b", 1},
		{limits, limit, 12},
		{limits, message(limitOf("limit", "route/orders/1")), 1},
		{limits, message(limitOf("generic_key", "x")), 1},
		{limits, strings.Replace(limit, "carol", "car\xffl", 1), 1},
		{limits, "", 1},
		{limits, limit[:len(limit)-1], 1},
		{"/envoy.service.auth.v3.Authorization/Other", good, 1},
		{"/nothing/Here", "", 1},
	} {
		for n := range row.times {
			var answers [2]string
			for i, c := range ports {
				answers[i] = plainAnswer(t, c, row.method, []byte(row.message))
			}
			if d := cmp.Diff(answers[1], answers[0]); d != "" {
				t.Errorf("%s %q, call %d (-grpc-go +fast path): %s", row.method, row.message, n, d)
			}
		}
	}
}

// plainAnswer is what a call is answered, without what the time is in.
func plainAnswer(t testing.TB, c *grpc.ClientConn, method string, message []byte) string {
	t.Helper()
	var reply []byte
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Invoke(ctx, method, message, &reply, grpc.ForceCodecV2(asIs{encoding.GetCodecV2("proto")})); err != nil {
		if code := status.Code(err); code == codes.Internal || code == codes.InvalidArgument {
			return "not read" // Envoy makes the same of both
		}
		return status.Code(err).String()
	}
	if method == authv3.Authorization_Check_FullMethodName {
		m := new(authv3.CheckResponse)
		must(t, proto.Unmarshal(reply, m))
		return fmt.Sprint(withoutTimes(m.GetOkResponse().GetResponseHeadersToAdd()), withoutTimes(m.GetDeniedResponse().GetHeaders()),
			m.GetOkResponse().GetHeaders(), m.GetDeniedResponse().GetStatus(), m.GetDeniedResponse().GetBody(), m.GetDynamicMetadata().AsMap())
	}
	m := new(rls.RateLimitResponse)
	must(t, proto.Unmarshal(reply, m))
	for _, s := range m.Statuses {
		s.DurationUntilReset = nil
	}
	return fmt.Sprint(m.OverallCode, m.Statuses)
}

func withoutTimes(list []*corev3.HeaderValueOption) (text []string) {
	for _, h := range list {
		if name := strings.ToLower(h.GetHeader().GetKey()); name != "ratelimit-reset" && name != "retry-after" {
			text = append(text, name+": "+h.GetHeader().GetValue())
		}
	}
	return text
}

// Over mutual TLS both paths answer all that the port is for, and only those who have a certificate.
func TestCompanionOverTLS(t *testing.T) { eachPath(t, testCompanionOverTLS) }

func testCompanionOverTLS(t *testing.T, slow bool) {
	files := newCertificates(t)
	p, _ := running(t, Options{Dir: policyDir(t, quickstart), TLSCert: files.cert, TLSKey: files.key, TLSCA: files.as, NoFastPath: slow})
	client := func(by *authority) *grpc.ClientConn {
		c, err := grpc.NewClient(p.address("companion"), grpc.WithTransportCredentials(credentials.NewTLS(files.client("first", by))))
		must(t, err)
		t.Cleanup(func() { must(t, c.Close()) })
		return c
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := authv3.NewAuthorizationClient(client(nil)).Check(ctx, checkOf("edge/orders", "")); status.Code(err) != codes.Unavailable {
		t.Errorf("without a certificate: %v", err)
	}
	for _, first := range []string{"check", "health"} { // what a connection asks first may decide who serves it
		c := client(&files.ca)
		if first == "health" {
			healthy(ctx, t, c)
		}
		r, err := authv3.NewAuthorizationClient(c).Check(ctx, checkOf("edge/orders", bearer(t, "alice")))
		must(t, err)
		if r.GetOkResponse() == nil {
			t.Errorf("check: %v", r)
		}
		l, err := rls.NewRateLimitServiceClient(c).ShouldRateLimit(ctx, limitOf("limit", "route/orders/0", "consumer", "demo/bob"))
		must(t, err)
		if l.OverallCode != rls.RateLimitResponse_OK {
			t.Errorf("limit: %v", l)
		}
		healthy(ctx, t, c)
		if got := services(ctx, t, c); !strings.Contains(got, "envoy.service.auth.v3.Authorization") || !strings.Contains(got, "envoy.service.ratelimit.v3.RateLimitService") {
			t.Errorf("reflection tells of %s", got)
		}
	}
}

func healthy(ctx context.Context, t testing.TB, c *grpc.ClientConn) {
	t.Helper()
	h, err := grpc_health_v1.NewHealthClient(c).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	must(t, err)
	if h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v", h)
	}
}

// services is what reflection tells.
func services(ctx context.Context, t testing.TB, c *grpc.ClientConn) string {
	t.Helper()
	s, err := grpc_reflection_v1.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
	must(t, err)
	must(t, s.Send(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{ListServices: "*"},
	}))
	r, err := s.Recv()
	must(t, err)
	must(t, s.CloseSend())
	return fmt.Sprint(r.GetListServicesResponse())
}

// The switch decides who answers; what it answers is the same.
func TestFastPathIsASwitch(t *testing.T) {
	t.Parallel()
	for _, slow := range []bool{false, true} {
		p, _ := running(t, Options{Dir: policyDir(t, quickstart), NoFastPath: slow})
		_, err := authv3.NewAuthorizationClient(dial(t, p.address("companion"))).Check(t.Context(), checkOf("edge/orders", ""))
		must(t, err)
		want := 1.0
		if slow {
			want = 0
		}
		if got := loopCalls(t, p.metrics); got != want {
			t.Errorf("slow %t: the loop answered %v calls, want %v", slow, got, want)
		}
	}
}

func loopCalls(t testing.TB, r *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := r.Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() == "legation_callout_calls_total" {
			for _, m := range f.Metric {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// Whoever serves a connection bounds the calls that are in progress on it.
func TestCallsInProgressAreBounded(t *testing.T) {
	eachPath(t, func(t *testing.T, slow bool) {
		p, _ := running(t, Options{Dir: policyDir(t, quickstart), NoFastPath: slow})
		for _, path := range []string{authv3.Authorization_Check_FullMethodName, grpc_health_v1.Health_Check_FullMethodName} {
			c, err := net.Dial("tcp", p.address("companion"))
			must(t, err)
			t.Cleanup(func() { _ = c.Close() })
			must(t, c.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(c, http2.ClientPreface)
			must(t, err)
			f := http2.NewFramer(c, c)
			must(t, f.WriteSettings())
			var block bytes.Buffer
			fields := hpack.NewEncoder(&block)
			for _, field := range [][2]string{
				{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"},
			} {
				must(t, fields.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
			}
			must(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
			for most, ok := uint32(0), false; !ok; { // those that say it may not be the first
				frame, err := f.ReadFrame()
				must(t, err)
				if s, is := frame.(*http2.SettingsFrame); is {
					if most, ok = s.Value(http2.SettingMaxConcurrentStreams); ok && most != maxCalls {
						t.Errorf("%s: %d calls at once, want %d", path, most, maxCalls)
					}
				}
			}
		}
	})
}
