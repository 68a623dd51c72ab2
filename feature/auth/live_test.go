package auth_test

import (
	"net"
	"strconv"
	"testing"

	companion "github.com/legation/legation/auth"
	"github.com/legation/legation/feature/auth"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// full is a rate limit service whose limits are all used up.
type full struct{}

func (full) Count(asks []*companion.Ask) {
	for _, a := range asks {
		a.Verdict = companion.Verdict{
			Allowed: a.Caller.Header("x-full") == "", Status: 429, Headers: [][2]string{{"retry-after", "7"}},
		}
	}
}

// tokens stands for a way to tell who calls whose keys are never there.
type tokens string

func (*tokens) Check(*policy.Check) {}

func (k *tokens) Provider(name string) companion.Provider {
	return companion.Provider{Name: name, JWT: &companion.JWT{Issuer: "a", JWKS: companion.JWKS{URL: string(*k)}}}
}

// TestGRPCStatusThroughEnvoy holds what a gRPC client gets of each kind of denial from the real Envoy.
func TestGRPCStatusThroughEnvoy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := golden.FreePort(t)
	kinds := []*policy.Kind{auth.Kind, policy.Define[tokens]("tokens", policy.InAuth, ""), policy.Define[quota]("quota", policy.Layers, "").Stack()}
	m, problems := policy.New(kinds...).Load(policy.Files{"policy.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: ` + strconv.Itoa(port) + `, address: 127.0.0.1}}}}
auth: {idp: {tokens: "http://127.0.0.1:1/keys"}}
services: {s: {endpoints: ["127.0.0.1:1"]}}
routes: {r: {hostnames: [a.test], auth: [idp], quota: [total], backends: {s: 1}}}
`)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	service := companion.New(companion.Options{Counter: full{}})
	if err := service.Load(auth.Table(m)); err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	service.Register(server)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	golden.Start(t, m, kinds, l.Addr().String())

	conn, err := grpc.NewClient("127.0.0.1:"+strconv.Itoa(port), grpc.WithAuthority("a.test"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, test := range []struct {
		headers []string
		want    codes.Code
		message string
	}{
		{nil, codes.Unauthenticated, "credentials are needed"},
		{[]string{"authorization", "Bearer a,Bearer b"}, codes.InvalidArgument, "the request is not acceptable"},
		{[]string{"x-full", "1"}, codes.ResourceExhausted, "too many requests"},
	} {
		var header metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), test.headers...)
		err := conn.Invoke(ctx, "/shop.Orders/List", &emptypb.Empty{}, &emptypb.Empty{}, grpc.Header(&header), grpc.WaitForReady(true))
		if s := status.Convert(err); s.Code() != test.want || s.Message() != test.message {
			t.Errorf("%v: got %s %q (%v), want %s", test.headers, s.Code(), s.Message(), header, test.want)
		}
	}
}
