package credentials_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/credentials"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

var kinds = []*policy.Kind{
	credentials.APIKeyKind, credentials.KeysKind, credentials.BasicKind, credentials.MTLSKind, credentials.AnonymousKind,
}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

func load(t *testing.T, text string) *policy.Model {
	t.Helper()
	m, problems := policy.New(kinds...).Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return m
}

const hash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

const whole = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
auth:
  a: {apiKey: {header: [X-Api-Key, x-key], query: key, cookie: k, secret: auth/pepper, forward: true, headers: {X-Consumer: consumer}}}
  b: {apiKey: {query: [key]}}
  c: {basic: {secret: auth/staff, realm: Staff only, headers: {x-user: sub}}}
  d: {mtls: {identity: dns, allow: ["*.a.test"], headers: {x-serial: serial}}}
  e: {anonymous: {}}
consumers:
  acme:
    apiKeys:
      - {id: abc, hash: "` + hash + `", expires: 2027-01-01, entries: [b]}
      - {secret: consumers/acme, expires: "2027-01-01T12:00:00+01:00"}
`

func TestProviders(t *testing.T) {
	var got []auth.Provider
	for _, a := range load(t, whole).Auth {
		p, _ := policy.Find[auth.ProviderContributor](a.Settings)
		got = append(got, p.Provider(a.Name))
	}
	want := []auth.Provider{
		{Name: "a", APIKey: &auth.APIKey{
			Places:  []auth.KeyPlace{{Header: "x-api-key"}, {Header: "x-key"}, {Query: "key"}, {Cookie: "k"}},
			Pepper:  "auth/pepper",
			Forward: true,
			Headers: map[string]string{"x-consumer": "consumer"},
		}},
		{Name: "b", APIKey: &auth.APIKey{Places: []auth.KeyPlace{{Query: "key"}}}},
		{Name: "c", Basic: &auth.Basic{Users: "auth/staff", Realm: "Staff only", Headers: map[string]string{"x-user": "sub"}}},
		{Name: "d", MTLS: &auth.MTLS{Identity: auth.ByDNS, Allow: []string{"*.a.test"}, Headers: map[string]string{"x-serial": "serial"}}},
		{Name: "e", Anonymous: &auth.Anonymous{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeys(t *testing.T) {
	holder, _ := policy.Find[auth.KeyHolder](load(t, whole).Consumers[0].Settings)
	want := []auth.Key{
		{ID: "abc", Hash: hash, Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Entries: []string{"b"}},
		{Secret: "consumers/acme", Expires: time.Date(2027, 1, 1, 11, 0, 0, 0, time.UTC)},
	}
	if diff := cmp.Diff(want, holder.APIKeys()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStripHeaders(t *testing.T) {
	var got []string
	for _, a := range load(t, whole).Auth {
		for _, s := range policy.Each[envoy.Stripper](a.Settings) {
			got = append(got, s.StripHeaders()...)
		}
	}
	if diff := cmp.Diff([]string{"x-consumer", "x-user", "x-serial"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
