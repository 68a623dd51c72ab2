package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCertificatesThatClientsRefuse: the certificate a.test is for a.test and *.a.test.
func TestCertificatesThatClientsRefuse(t *testing.T) {
	source := vault{"a.crt": cert("a.test"), "a.key": key("a.test")}
	for _, tt := range []struct{ hostname, want string }{
		{"a.test", ""},
		{"A.Test", ""},
		{"'*.a.test'", ""},
		{"b.a.test", ""},
		{"b.test", "the certificate a is not for b.test: clients will refuse it"},
		{"c.b.a.test", "the certificate a is not for c.b.a.test: clients will refuse it"},
		{"'*.test'", "the certificate a is not for *.test: clients will refuse it"},
		{"'*.b.a.test'", "the certificate a is not for *.b.a.test: clients will refuse it"},
	} {
		in := files("a.yaml", "gateways: {edge: {listeners: {https: {port: 443, protocol: HTTPS, certificates: [{hostname: "+tt.hostname+", secret: a}]}}}}\n")
		model, problems := testLanguage().WithSecrets(source).Load(in)
		if model == nil {
			t.Fatal(problems.Err())
		}
		got := ""
		for _, p := range problems {
			got += p.Message
			if p.Hint != "it is for a.test, *.a.test" {
				t.Errorf("%s: got the hint %q", tt.hostname, p.Hint)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.hostname, diff)
		}
	}
}

// TestListenerWithoutItsSecret falls back with its file, and tells where the secret was looked for.
func TestListenerWithoutItsSecret(t *testing.T) {
	last := files("p.yaml", platform, "a.yaml", teamA)
	candidate := files("p.yaml", platform, "a.yaml", teamA2, "t.yaml", "gateways: {tls: {listeners: {https: {port: 443, protocol: HTTPS, certificates: [{secret: tls/a}]}}}}\n")
	got, model, problems := testLanguage().WithSecrets(vault{}).Isolate(candidate, last)
	if model == nil || len(problems) != 2 { // and the route a would have to say which gateway
		t.Fatalf("got %v, %v; want two problems and the rest served", model, problems)
	}
	if diff := cmp.Diff(show(files("p.yaml", platform, "a.yaml", teamA2)), show(got)); diff != "" {
		t.Errorf("served files (-want +got):\n%s", diff)
	}
	const want = "there is no secret tls/a: neither tls/a.crt in the secrets directory nor the variable LEGATION_SECRET_TLS_A_CRT"
	if problems[1].Message != want {
		t.Errorf("got %q, want %q", problems[1].Message, want)
	}
}
