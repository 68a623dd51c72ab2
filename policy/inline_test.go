package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/policy"
)

const inlined = `gateways: {edge: {listeners: {http: {port: 1}}, defaults: {timeouts: {request: 15s}}}}
services: {web: {endpoints: [127.0.0.1:1]}}
routes:
  a:
    hostnames: [a.test]
    backends: {web: 1}
    timeouts:
      backendRequest: 2s
    cors:
      allowOrigins: ["https://a.test", "*"]
      maxAge: 10m
`

func TestInlineAndPlaces(t *testing.T) {
	m, problems := testLanguage().Load(policy.Files{"p.yaml": []byte(inlined)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, set := range m.Bound[m.Gateways[0]][0].Settings {
		got = append(got, fmt.Sprint(set.Kind.Key, " ", set.Node.Inline(), " ", set.Node.Places()))
	}
	want := []string{
		"cors {allowOrigins: [https://a.test, *], maxAge: 10m} [p.yaml:10:7 p.yaml:11:15]",
		"timeouts {request: 15s, backendRequest: 2s} [p.yaml:1:80 p.yaml:8:23]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var none *policy.Node
	if got := none.Get("x").Places(); got != nil {
		t.Errorf("of what is not written: got %v", got)
	}
}

func TestInlineOfMuch(t *testing.T) {
	long := strings.Replace(inlined, `"*"`, strings.Repeat("x, ", 100)+"x", 1)
	m, _ := testLanguage().Load(policy.Files{"p.yaml": []byte(long)})
	if m == nil {
		t.Fatal("the policy is refused")
	}
	got := m.Bound[m.Gateways[0]][0].Settings[0].Node.Inline()
	if !strings.HasSuffix(got, "…") || len(got) > 170 {
		t.Errorf("got %q, want the beginning", got)
	}
}
