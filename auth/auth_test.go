package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/legation/legation/callout"
)

const issuer = "https://id.example.com/"

// keyPair is a private key in the forms that tests need.
type keyPair struct {
	kid     string
	private crypto.Signer
	pem     []byte
}

var (
	rsaPair     = sync.OnceValue(func() keyPair { return newPair("rsa-1", must(rsa.GenerateKey(rand.Reader, 2048))) })
	rsaOther    = sync.OnceValue(func() keyPair { return newPair("rsa-2", must(rsa.GenerateKey(rand.Reader, 2048))) })
	ecPair      = sync.OnceValue(func() keyPair { return newPair("ec-1", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))) })
	ed25519Pair = sync.OnceValue(func() keyPair { // always the same, for fuzzing: its workers are processes of their own
		return newPair("ed-1", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newPair(kid string, private crypto.Signer) keyPair {
	der := must(x509.MarshalPKCS8PrivateKey(private))
	return keyPair{kid, private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
}

// jwk is the public half as it stands in a key set.
func (k keyPair) jwk() map[string]any {
	key := must(jwk.Import(k.private.Public()))
	m := map[string]any{}
	if err := json.Unmarshal(must(json.Marshal(key)), &m); err != nil {
		panic(err)
	}
	m["kid"], m["use"] = k.kid, "sig"
	return m
}

// without is the public half, less one member.
func (k keyPair) without(name string) map[string]any {
	m := k.jwk()
	delete(m, name)
	return m
}

// with is the public half with one member changed.
func (k keyPair) with(name string, value any) map[string]any {
	m := k.jwk()
	m[name] = value
	return m
}

func jwks(keys ...map[string]any) []byte {
	return must(json.Marshal(map[string]any{"keys": keys}))
}

func (k keyPair) sign(t testing.TB, c map[string]any) string {
	t.Helper()
	s, err := Sign(k.pem, c, k.kid)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// goodClaims are claims that jwtRule accepts, with changes: nil takes a claim away.
func goodClaims(changes map[string]any) map[string]any {
	c := map[string]any{
		"iss": issuer, "sub": "alice", "aud": "orders",
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// forge makes a token of raw JSON, signed with RS256 by the good key whatever the header says.
func forge(t testing.TB, header, payload string) string {
	t.Helper()
	input := b64(header) + "." + b64(payload)
	digest := sha256.Sum256([]byte(input))
	sig, err := rsaPair().private.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(string(sig))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// jwtRule is a rule with static keys.
func jwtRule(keys []byte) Rule {
	return Rule{Name: "edge/orders", Providers: []Provider{{Name: "idp", JWT: &JWT{
		Issuer:    issuer,
		Audiences: []string{"orders"},
		JWKS:      JWKS{Keys: keys},
		Reading:   Reading{Headers: map[string]string{"x-auth-user": "sub", "x-auth-tenant": "tenant.id"}},
	}}}}
}

func staticRule() Rule { return jwtRule(jwks(rsaPair().jwk(), ecPair().jwk(), ed25519Pair().jwk())) }

func load(t testing.TB, o Options, table Table) *Service {
	t.Helper()
	s := New(o)
	if err := s.Load(table); err != nil {
		t.Fatal(err)
	}
	return s
}

// dial gives a client that asks s over gRPC and by Answer, and finds the answers equal.
func dial(t testing.TB, s *Service) authv3.AuthorizationClient {
	return both{t, serve(t, s), s}
}

// serve serves s over gRPC.
func serve(t testing.TB, s *Service) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	s.Register(server)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	c, err := grpc.NewClient("passthrough:///auth", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type both struct {
	t testing.TB
	c *grpc.ClientConn
	s *Service
}

func (b both) Check(ctx context.Context, q *authv3.CheckRequest, o ...grpc.CallOption) (*authv3.CheckResponse, error) {
	b.t.Helper()
	byCheck, err := authv3.NewAuthorizationClient(b.c).Check(ctx, q, o...)
	if err != nil {
		return nil, err
	}
	call := &callout.Call{Message: must(proto.Marshal(q))}
	b.s.Answer([]*callout.Call{call})
	call.Finish(ctx)
	if byAnswer := read(b.t, call); !proto.Equal(byCheck, byAnswer) {
		b.t.Errorf("Check and Answer differ:\n%v\n%v", byCheck, byAnswer)
	}
	return byCheck, nil
}

// read is what Envoy reads of the answer.
func read(t testing.TB, c *callout.Call) *authv3.CheckResponse {
	t.Helper()
	r := new(authv3.CheckResponse)
	if err := proto.Unmarshal(c.Reply, r); err != nil || c.Code != codes.OK {
		t.Fatalf("answered %v %s, %v", c.Code, c.Text, err)
	}
	return r
}

// ask is a request as Envoy sends it, with an authorization header unless it is "".
func ask(rule, authorization string, headers ...string) *authv3.CheckRequest {
	h := map[string]string{}
	if authorization != "" {
		h["authorization"] = authorization
	}
	for i := 0; i+1 < len(headers); i += 2 {
		h[headers[i]] = headers[i+1]
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.7"},
		}}},
		ContextExtensions: map[string]string{RuleExtension: rule},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/v1/orders", Host: "api.example.com", Headers: h,
		}},
	}}
}

// answer is a response, flattened.
type answer struct {
	status  int
	body    string
	headers map[string]string // set on the request when allowed, on the answer when denied
	removed []string
	added   map[string]string // to the response, when allowed
	meta    map[string]any
}

func check(t testing.TB, c authv3.AuthorizationClient, q *authv3.CheckRequest) answer {
	t.Helper()
	r, err := c.Check(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return flatten(r)
}

func flatten(r *authv3.CheckResponse) answer {
	a := answer{status: 200, headers: map[string]string{}, added: map[string]string{}, meta: r.DynamicMetadata.AsMap()}
	fill := func(m map[string]string, all []*corev3.HeaderValueOption) {
		for _, h := range all {
			m[h.Header.Key] += h.Header.Value // twice the same name would show
		}
	}
	if d := r.GetDeniedResponse(); d != nil {
		a.status, a.body = int(d.Status.Code), d.Body
		fill(a.headers, d.Headers)
		if r.Status.Code == 0 { // Envoy would let it pass
			a.status = 200
		}
		return a
	}
	a.removed = r.GetOkResponse().GetHeadersToRemove()
	fill(a.headers, r.GetOkResponse().GetHeaders())
	fill(a.added, r.GetOkResponse().GetResponseHeadersToAdd())
	return a
}
