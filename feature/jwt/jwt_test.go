package jwt_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/jwt"
	"github.com/legation/legation/policy"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", jwt.Kind, jwt.IntrospectionKind) }

const keys = `{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": "lK3MG4-4UmJxvT5ZBr2cwABl-HjGzJJ60bLFCy16Q64", "y": "WdXsgi4cDzPV4YG_QZfMtpGgPYcPPbK5GVOpGzD-flE"}]}`

func load(t *testing.T) *policy.Model {
	t.Helper()
	m, problems := policy.New(jwt.Kind).Load(policy.Files{"team/keys.json": []byte(keys), "team/policy.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 10000}}}}
auth:
  idp:
    jwt:
      issuer: https://id.test/
      audiences: [orders, carts]
      jwks: {file: keys.json}
      consumer: client_id
      headers: {X-User: sub, x-tenant: tenant.id}
      skew: 10s
  other: {jwt: {issuer: other, audiences: any, jwks: "https://id.test/keys"}}
`)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestProvider(t *testing.T) {
	m := load(t)
	var got []auth.Provider
	for _, a := range m.Auth {
		p, _ := policy.Find[auth.ProviderContributor](a.Settings)
		got = append(got, p.Provider(a.Name))
	}
	want := []auth.Provider{
		{Name: "idp", JWT: &auth.JWT{
			Issuer: "https://id.test/", Audiences: []string{"orders", "carts"}, JWKS: auth.JWKS{Keys: []byte(keys)},
			Reading: auth.Reading{Consumer: "client_id", Headers: map[string]string{"x-user": "sub", "x-tenant": "tenant.id"}}, Skew: 10 * time.Second,
		}},
		{Name: "other", JWT: &auth.JWT{Issuer: "other", JWKS: auth.JWKS{URL: "https://id.test/keys"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStripHeaders(t *testing.T) {
	idp, _ := policy.Find[envoy.Stripper](load(t).Auth[0].Settings)
	if diff := cmp.Diff([]string{"x-tenant", "x-user"}, idp.StripHeaders()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
