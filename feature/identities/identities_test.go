package identities_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/identities"
	"github.com/legation/legation/policy"
)

// tokens, password and apiKey stand for ways to tell who calls.
type (
	tokens   string
	password string
	apiKey   string
)

var (
	tokenKind    = policy.Define[tokens]("jwt", policy.InAuth, "")
	passwordKind = policy.Define[password]("password", policy.InAuth, "")
	apiKeyKind   = policy.Define[apiKey]("apiKey", policy.InAuth, "")
)

func (*tokens) Check(*policy.Check)   {}
func (*password) Check(*policy.Check) {}
func (*apiKey) Check(*policy.Check)   {}
func (*apiKey) NamesConsumers() bool  { return true }

var language = policy.New(tokenKind, passwordKind, apiKeyKind, identities.Kind, identities.JWTKind)

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", tokenKind, passwordKind, apiKeyKind, identities.Kind, identities.JWTKind)
}

func TestIdentities(t *testing.T) {
	m, problems := language.Load(policy.Files{"a.yaml": []byte(consumersHead + `
  acme: {jwt: {idp: [alice, bob]}, identities: {staff: carol, idp: dan}}
  initech: {identities: {staff: alice}}
`)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, c := range m.Consumers {
		var all []string
		for _, i := range policy.Each[auth.Identifier](c.Settings) {
			all = append(all, i.Identities()...)
		}
		got = append(got, all)
	}
	want := [][]string{{"idp/dan", "staff/carol", "idp/alice", "idp/bob"}, {"staff/alice"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

const consumersHead = `
gateways: {edge: {listeners: {http: {port: 80}}}}
auth: {idp: {jwt: a}, staff: {password: a}, keys: {apiKey: a}}
consumers:
`

// BenchmarkManyNames reads the most names that a file can hold: one consumer's, and a consumer for each.
func BenchmarkManyNames(b *testing.B) {
	lang := language
	var one, each strings.Builder
	for i := range 90_000 {
		fmt.Fprintf(&one, "u%d, ", i)
	}
	for i := range 19_000 {
		fmt.Fprintf(&each, "  c%d: {jwt: {idp: u%d}}\n", i, i)
	}
	for name, text := range map[string]string{"one": "  c: {jwt: {idp: [" + one.String() + "]}}\n", "each": each.String()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if m, problems := lang.Load(policy.Files{"a.yaml": []byte(consumersHead + text)}); m == nil {
					b.Fatal(problems.Err())
				}
			}
		})
	}
}

func TestIdentityOfSeveralConsumersIsToldAtTheLater(t *testing.T) {
	_, problems := language.Load(policy.Files{"a.yaml": []byte(consumersHead + `
  c: {jwt: {idp: [x, y, x]}}
  b: {identities: {idp: [z, x]}}
  a: {jwt: {idp: x}}
`)})
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprint(p.Path, " ", p.Message, " ", p.Also))
	}
	want := []string{
		`consumers.c.jwt.idp[0] the identity "idp/x" is the consumer "a" too [a.yaml:8:7]`,
		`consumers.c.jwt.idp[2] the identity "idp/x" stands here twice []`,
		`consumers.b.identities.idp[1] the identity "idp/x" is the consumer "a" too [a.yaml:8:7]`,
	}
	if diff := strings.Join(got, "\n"); diff != strings.Join(want, "\n") {
		t.Errorf("got\n%s", diff)
	}
}

// twice is a policy of two consumers that both name n identities.
func twice(n int) policy.Files {
	var names strings.Builder
	for i := range n {
		fmt.Fprintf(&names, "u%d, ", i)
	}
	return policy.Files{
		"a.yaml": []byte(consumersHead + "  a: {jwt: {idp: [" + names.String() + "]}}\n"),
		"b.yaml": []byte("consumers:\n  b: {jwt: {idp: [" + names.String() + "]}}\n"),
	}
}

func TestOfManyProblemsSomeAreTold(t *testing.T) {
	if _, problems := language.Load(twice(5_000)); len(problems) != 201 {
		t.Errorf("got %d problems, want 200 and one that tells of more", len(problems))
	}
}

// BenchmarkNamesOfTwo shows the cost of the check: in proportion to the names, as long as they are not compared with each
// other.
func BenchmarkNamesOfTwo(b *testing.B) {
	for _, n := range []int{10_000, 90_000} {
		files, lang := twice(n), language
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				lang.Load(files)
			}
		})
	}
}
