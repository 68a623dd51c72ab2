package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// certificate is a certificate as Envoy sends it.
func certificate(t testing.TB, c x509.Certificate, uris ...string) string {
	t.Helper()
	for _, u := range uris {
		c.URIs = append(c.URIs, must(url.Parse(u)))
	}
	c.SerialNumber = big.NewInt(0xabc)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificate(rand.Reader, &c, &c, key.Public(), key))
	return envoyEscapes.Replace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// envoyEscapes is what Envoy escapes in PEM.
var envoyEscapes = strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D")

func mtlsRule(m MTLS) Rule {
	return Rule{Name: "edge/" + string(m.Identity), Providers: []Provider{{Name: "work", MTLS: &m}}}
}

func TestCertificates(t *testing.T) {
	headers := map[string]string{"x-name": "sub", "x-uri": "uri", "x-subject": "subject", "x-issuer": "issuer", "x-serial": "serial", "x-dns": "dns"}
	s := load(t, Options{}, Table{Rules: []Rule{
		mtlsRule(MTLS{Identity: BySPIFFE, Allow: []string{"spiffe://a.test/*", "spiffe://b.test/x"}}),
		mtlsRule(MTLS{Identity: ByDNS, Allow: []string{"*.a.test"}}),
		mtlsRule(MTLS{Identity: ByEmail}),
		mtlsRule(MTLS{Identity: BySubject, Headers: headers}),
		mtlsRule(MTLS{Identity: ByFingerprint}),
	}})
	c := dial(t, s)
	subject := pkix.Name{Organization: []string{"Example, Inc."}, CommonName: "alice"}
	for _, test := range []struct {
		name, rule, certificate, want string
	}{
		{"allowed", "spiffe", certificate(t, x509.Certificate{}, "spiffe://a.test/x/y"), "200 work/spiffe://a.test/x/y"},
		{"the very name", "spiffe", certificate(t, x509.Certificate{}, "spiffe://b.test/x"), "200 work/spiffe://b.test/x"},
		{"longer than the name", "spiffe", certificate(t, x509.Certificate{}, "spiffe://b.test/xy"), "401 certificate_name"},
		{"another domain", "spiffe", certificate(t, x509.Certificate{}, "spiffe://a.test.evil/x"), "401 certificate_name"},
		{"two URIs", "spiffe", certificate(t, x509.Certificate{}, "spiffe://a.test/x", "spiffe://a.test/y"), "401 certificate_name"},
		{"no spiffe", "spiffe", certificate(t, x509.Certificate{}, "https://a.test/x"), "401 certificate_name"},
		{"no URI", "spiffe", certificate(t, x509.Certificate{DNSNames: []string{"a.test"}}), "401 certificate_name"},
		{"second DNS name", "dns", certificate(t, x509.Certificate{DNSNames: []string{"b.test", "X.a.test"}}), "200 work/x.a.test"},
		{"no DNS name", "dns", certificate(t, x509.Certificate{Subject: pkix.Name{CommonName: "x.a.test"}}), "401 certificate_name"},
		{"email", "email", certificate(t, x509.Certificate{EmailAddresses: []string{"alice@a.test"}}), "200 work/alice@a.test"},
		{"subject", "subject", certificate(t, x509.Certificate{Subject: subject}), `200 work/CN=alice,O=Example\, Inc.`},
		{"no subject", "subject", certificate(t, x509.Certificate{}), "401 certificate_name"},
		{"no certificate", "spiffe", "", "401 no_credentials"},
		{"no PEM", "spiffe", "abc", "401 certificate_malformed"},
		{"bad escape", "spiffe", "%zz", "401 certificate_malformed"},
		{"a key", "spiffe", envoyEscapes.Replace("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "401 certificate_malformed"},
		{"no DER", "spiffe", envoyEscapes.Replace("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "401 certificate_malformed"},
		{"too large", "spiffe", strings.Repeat("a", maxCertificate+1), "401 certificate_malformed"},
	} {
		for range 2 { // the second time it is remembered
			q := ask("edge/"+test.rule, "", "x-forwarded-client-cert", "URI=spiffe://a.test/x")
			q.Attributes.Source.Certificate = test.certificate
			got := check(t, c, q)
			told := fmt.Sprint(got.status, " ", got.meta["reason"])
			if got.status == 200 {
				told = fmt.Sprint("200 ", got.meta["consumer"])
			}
			if told != test.want {
				t.Errorf("%s: got %s, want %s", test.name, told, test.want)
			}
		}
	}

	q := ask("edge/fingerprint", "")
	q.Attributes.Source.Certificate = certificate(t, x509.Certificate{})
	if got := check(t, c, q); got.status != 200 || len(got.meta["consumer"].(string)) != len("work/")+64 {
		t.Errorf("fingerprint: %d %v", got.status, got.meta)
	}
	q = ask("edge/subject", "")
	q.Attributes.Source.Certificate = certificate(t, x509.Certificate{Subject: subject, DNSNames: []string{"a.test", "b.test"}}, "spiffe://a.test/x")
	name := `CN=alice,O=Example\, Inc.`
	want := map[string]string{
		"x-name": strings.ReplaceAll(name, ",", "%2C"), "x-subject": strings.ReplaceAll(name, ",", "%2C"), "x-issuer": strings.ReplaceAll(name, ",", "%2C"),
		"x-uri": "spiffe://a.test/x", "x-serial": "0abc", "x-dns": "a.test,b.test",
	}
	if diff := cmp.Diff(want, check(t, c, q).headers); diff != "" {
		t.Error(diff)
	}
}

func TestCertificateEndsWhileItsConnectionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := load(t, Options{}, Table{Rules: []Rule{mtlsRule(MTLS{Identity: BySPIFFE})}})
		q := ask("edge/spiffe", "")
		q.Attributes.Source.Certificate = certificate(t, x509.Certificate{}, "spiffe://a.test/x")
		status := func() string {
			a := flatten(must(s.Check(t.Context(), q)))
			return fmt.Sprint(a.status, " ", a.meta["reason"])
		}
		got := []string{status()}
		time.Sleep(time.Hour)
		got = append(got, status())
		if diff := cmp.Diff([]string{"200 <nil>", "401 certificate_expired"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBadMTLSIsRefused(t *testing.T) {
	for _, m := range []MTLS{
		{Identity: "cn"},
		{Identity: BySPIFFE, Allow: []string{""}},
		{Identity: BySPIFFE, Allow: []string{"a.test/*"}},
		{Identity: ByDNS, Allow: []string{"A.test"}},
		{Identity: ByFingerprint, Allow: []string{"AB:CD"}},
		{Identity: ByEmail, Allow: []string{"alice"}},
		{Identity: ByDNS, Headers: map[string]string{"host": "sub"}},
	} {
		if New(Options{}).Load(Table{Rules: []Rule{mtlsRule(m)}}) == nil {
			t.Errorf("%+v was loaded", m)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "a", true},
		{"a*", "ab", true},
		{"a*", "ba", false},
		{"*a", "a", true},
		{"*a", "ba", true},
		{"*a", "ab", false},
		{"*", "", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "axbxc", true},
		{"a*b*c", "ac", false},
		{"a*b*c", "abcd", false},
		{"**", "x", true},
	} {
		if got := glob(test.pattern, test.text); got != test.want {
			t.Errorf("%s and %s: %v", test.pattern, test.text, got)
		}
	}
}
