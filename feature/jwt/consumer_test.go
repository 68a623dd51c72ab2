package jwt_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/feature/jwt"
	"github.com/legation/legation/policy"
)

const consumersHead = `
gateways: {edge: {listeners: {http: {port: 80}}}}
auth: {idp: {jwt: {issuer: a, audiences: any, jwks: "https://id.test/keys"}}}
consumers:
`

// BenchmarkManyNames reads the most names that a file can hold: one consumer's, and a consumer for each.
func BenchmarkManyNames(b *testing.B) {
	lang := policy.New(jwt.Kind, jwt.ConsumerKind)
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
	_, problems := policy.New(jwt.Kind, jwt.ConsumerKind).Load(policy.Files{"a.yaml": []byte(consumersHead + `
  c: {jwt: {idp: [x, y, x]}}
  b: {jwt: {idp: [z, x]}}
  a: {jwt: {idp: x}}
`)})
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprint(p.Path, " ", p.Message, " ", p.Also))
	}
	want := []string{
		`consumers.c.jwt.idp[0] the identity "idp/x" is the consumer "a" too [a.yaml:8:7]`,
		`consumers.c.jwt.idp[2] the identity "idp/x" stands here twice []`,
		`consumers.b.jwt.idp[1] the identity "idp/x" is the consumer "a" too [a.yaml:8:7]`,
	}
	if diff := strings.Join(got, "\n"); diff != strings.Join(want, "\n") {
		t.Errorf("got\n%s", diff)
	}
}

// TestManyNamesAreComparedOnce holds the cost of the check to the number of names: compared with each other, as many
// take 20 s.
func TestManyNamesAreComparedOnce(t *testing.T) {
	var names strings.Builder
	for i := range 90_000 {
		fmt.Fprintf(&names, "u%d, ", i)
	}
	start := time.Now()
	_, problems := policy.New(jwt.Kind, jwt.ConsumerKind).Load(policy.Files{
		"a.yaml": []byte(consumersHead + "  a: {jwt: {idp: [" + names.String() + "]}}\n"),
		"b.yaml": []byte("consumers:\n  b: {jwt: {idp: [" + names.String() + "]}}\n"),
	})
	if took := time.Since(start); took > 5*time.Second || len(problems) != 201 {
		t.Errorf("%d problems after %s", len(problems), took)
	}
}
