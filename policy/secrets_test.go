package policy_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/policy"
)

// vault is secrets by the names of their files; a value that begins with "!" is an error.
type vault map[string]string

func (v vault) Secret(name string) ([]byte, error) {
	content, ok := v[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if why, bad := strings.CutPrefix(content, "!"); bad {
		return nil, errors.New(why)
	}
	return []byte(content), nil
}

// pairs are certificates that sign themselves, with their keys: made once, for RSA keys take their time.
var pairs = sync.OnceValue(func() map[string][2]string {
	made := make(map[string][2]string)
	for name, make := range map[string]func() (crypto.Signer, error){
		"a.test": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"b.test": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"p224":   func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P224(), rand.Reader) },
		"rsa":    func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"staple": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"weak":   func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 1024) },
	} {
		key, err := make()
		if err != nil {
			panic(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "*." + name},
			NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		}
		if name == "staple" { // TLS feature status_request
			template.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			panic(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			panic(err)
		}
		made[name] = [2]string{block("CERTIFICATE", der), block("PRIVATE KEY", keyDER)}
	}
	return made
})

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func cert(name string) string { return pairs()[name][0] }
func key(name string) string  { return pairs()[name][1] }

const vaulted = "gateways: {edge: {listeners: {http: {port: 80}}}}\nauth:\n  a: {vaulted: {certificate: tls/a, ca: {secret: ca}, text: words/one}}\n"

// TestSecrets tells for what is kept under the names of the policy above what is wrong with it.
func TestSecrets(t *testing.T) {
	missing := func(file, variable string) string {
		name := strings.TrimSuffix(strings.TrimSuffix(file, ".crt"), ".key")
		return "there is no secret " + name + ": neither " + file + " in the secrets directory nor the variable LEGATION_SECRET_" + variable
	}
	for _, tt := range []struct {
		name  string
		holds vault
		want  []string
	}{
		{"good", vault{}, nil},
		{"RSA", vault{"tls/a.crt": cert("rsa"), "tls/a.key": key("rsa")}, nil},
		{"a chain, with comments", vault{"tls/a.crt": "leaf\n" + cert("a.test") + "\nissuer\n" + cert("b.test")}, nil},
		{"parameters before the key", vault{"tls/a.key": block("EC PARAMETERS", []byte{6, 0}) + key("a.test")}, nil},
		{"no certificate", vault{"tls/a.crt": "-"}, []string{missing("tls/a.crt", "TLS_A_CRT")}},
		{"no key", vault{"tls/a.key": "-"}, []string{missing("tls/a.key", "TLS_A_KEY")}},
		{"nothing", vault{"tls/a.crt": "-", "tls/a.key": "-", "ca.crt": "-", "words/one": "-"}, []string{missing("tls/a.crt", "TLS_A_CRT"), missing("ca.crt", "CA_CRT"), missing("words/one", "WORDS_ONE")}},
		{"unusable", vault{"words/one": "!others may read it: mode 0644"}, []string{"the secret words/one can't be used: words/one: others may read it: mode 0644"}},
		{"empty", vault{"words/one": "\n"}, []string{"the secret words/one is empty"}},
		{"not PEM", vault{"tls/a.crt": "MIIBINLINE"}, []string{"tls/a.crt is not PEM, or not as a whole"}},
		{"cut off", vault{"tls/a.crt": cert("a.test") + cert("b.test")[:99]}, []string{"tls/a.crt is not PEM, or not as a whole"}},
		{"the key in the certificate's file", vault{"tls/a.crt": cert("a.test") + key("a.test")}, []string{"tls/a.crt holds a private key: it would be shown as certificates are"}},
		{"a certificate in the key's file", vault{"tls/a.key": cert("a.test")}, []string{"tls/a.key holds no private key"}},
		{"several keys", vault{"tls/a.key": key("a.test") + key("b.test")}, []string{"tls/a.key holds several private keys"}},
		{"another key", vault{"tls/a.key": key("p224")}, []string{"the key tls/a.key does not belong to the first certificate of tls/a.crt"}},
		{"another sort of key", vault{"tls/a.key": key("rsa")}, []string{"the key tls/a.key does not belong to the first certificate of tls/a.crt"}},
		{"the issuer first", vault{"tls/a.crt": cert("b.test") + cert("a.test")}, []string{"the key tls/a.key does not belong to the first certificate of tls/a.crt"}},
		{"encrypted", vault{"tls/a.key": block("ENCRYPTED PRIVATE KEY", []byte("INLINE"))}, []string{"the key tls/a.key is encrypted: nobody would be there to give Envoy its passphrase"}},
		{"no key in the key", vault{"tls/a.key": block("PRIVATE KEY", []byte("INLINE"))}, []string{"the key tls/a.key can't be read: want an RSA or ECDSA key in PKCS #8, PKCS #1 or SEC 1"}},
		{"too few bits", vault{"tls/a.crt": cert("weak"), "tls/a.key": key("weak")}, []string{"the RSA key of tls/a.crt has 1024 bits: Envoy takes none below 2048"}},
		{"must-staple", vault{"tls/a.crt": cert("staple"), "tls/a.key": key("staple")}, []string{"tls/a.crt asks clients to insist on a stapled OCSP answer (must-staple): Envoy has none, and takes no such certificate"}},
		{"a curve that Envoy lacks", vault{"tls/a.crt": cert("p224"), "tls/a.key": key("p224")}, []string{"the key of tls/a.crt is on the curve P-224: Envoy takes P-256, P-384 and P-521"}},
		{"an authority of something else", vault{"ca.crt": block("PUBLIC KEY", []byte{1})}, []string{"ca.crt holds something else than certificates (PUBLIC KEY)"}},
		{"only a list of the revoked", vault{"ca.crt": block("X509 CRL", []byte{1})}, []string{"ca.crt holds no certificate"}},
		{"a broken list of the revoked", vault{"ca.crt": cert("a.test") + block("X509 CRL", []byte{1})}, []string{"revocation list 1 of ca.crt can't be read: malformed crl"}},
		{"a list in the certificate's file", vault{"tls/a.crt": cert("a.test") + block("X509 CRL", []byte{1})}, []string{"tls/a.crt holds a revocation list, which belongs beside authorities"}},
		{"an authority that is no certificate", vault{"ca.crt": block("CERTIFICATE", []byte{1})}, []string{"certificate 1 of ca.crt can't be read: malformed certificate"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := vault{"tls/a.crt": cert("a.test"), "tls/a.key": key("a.test"), "ca.crt": cert("b.test"), "words/one": "INLINE\n"}
			for name, content := range tt.holds {
				if all[name] = content; content == "-" {
					delete(all, name)
				}
			}
			_, problems := testLanguage().WithSecrets(all).Load(files("a.yaml", vaulted))
			var got []string
			for _, p := range problems {
				got = append(got, p.Message)
				if strings.Contains(p.Error()+p.Hint, "INLINE") {
					t.Errorf("what a secret holds is shown: %s", p)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestModelHasItsSecrets(t *testing.T) {
	in := files("a.yaml", vaulted+"  b: {vaulted: {text: words/one, ca: {file: ca.pem}}}\n", "b/b.yaml", "auth: {c: {vaulted: {ca: {file: ca.pem}}}, d: {vaulted: {ca: system}}}\n",
		"ca.pem", cert("a.test"), "b/ca.pem", cert("b.test")+"\n# twice\n"+cert("a.test"))
	source := vault{"tls/a.crt": "leaf\n" + cert("a.test"), "tls/a.key": key("a.test"), "ca.crt": cert("b.test"), "words/one": "two words\r\n"}
	at := func(file string, line, col int) policy.Pos { return policy.Pos{File: file, Line: line, Col: col} }
	want := []*policy.Secret{
		{Kind: policy.AuthoritySecret, Name: "ca", Value: []byte(cert("b.test")), Pos: at("a.yaml", 3, 50)},
		{Kind: policy.AuthoritySecret, Name: "file:b/ca.pem", Value: []byte(cert("b.test") + cert("a.test")), Pos: at("b/b.yaml", 1, 33)},
		{Kind: policy.AuthoritySecret, Name: "file:ca.pem", Value: []byte(cert("a.test")), Pos: at("a.yaml", 4, 45)},
		{Kind: policy.CertificateSecret, Name: "tls/a", Value: []byte(cert("a.test")), Key: []byte(key("a.test")), Pos: at("a.yaml", 3, 30)},
		{Kind: policy.OpaqueSecret, Name: "words/one", Value: []byte("two words"), Pos: at("a.yaml", 3, 61)},
	}
	with, problems := testLanguage().WithSecrets(source).Load(in)
	if with == nil {
		t.Fatal(problems.Err())
	}
	if diff := cmp.Diff(want, with.Secrets); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	if got := with.Secret("certificate/tls/a"); got != with.Secrets[3] || with.Secret("certificate/tls/b") != nil {
		t.Errorf("got %v by its ID", got)
	}
	without, problems := testLanguage().WithSecrets(source).WithSecrets(nil).Load(in)
	if without == nil {
		t.Fatal(problems.Err())
	}
	for _, i := range []int{0, 3, 4} { // files are no secrets
		want[i] = &policy.Secret{Kind: want[i].Kind, Name: want[i].Name, Pos: want[i].Pos}
	}
	if diff := cmp.Diff(want, without.Secrets); diff != "" {
		t.Errorf("secrets without a source (-want +got):\n%s", diff)
	}
	if with.Revision != without.Revision {
		t.Error("secrets change the revision")
	}
	in["b/ca.pem"] = []byte(cert("a.test"))
	if changed, _ := testLanguage().Load(in); changed == nil || changed.Revision == without.Revision {
		t.Error("a file of authorities does not change the revision")
	}
}

// TestSecretsByNameOnly: what can't be a name is a secret that somebody wrote, and is not repeated.
func TestSecretsByNameOnly(t *testing.T) {
	for _, ref := range []string{
		"text: INLINE", "text: ../inline", "text: /inline", "text: a//inline", "text: a/.inline", "text: inline/", "text: 'a inline'",
		"text: [inline]", "text: {a: inline}", "ca: inline", "ca: [inline]", "ca: {secret: INLINE}", "certificate: \"inline:INLINE\"",
		"certificate: |\n        -----BEGIN PRIVATE KEY-----\n        INLINE\n        -----END PRIVATE KEY-----\n     ", "ca: {secret: a, file: inline}",
		"text: " + strings.Repeat("inline", 40),
	} {
		in := files("a.yaml", "gateways: {edge: {listeners: {http: {port: 80}}}}\nauth:\n  a:\n    vaulted:\n      "+ref+"\n")
		_, problems := testLanguage().Load(in)
		var out bytes.Buffer
		if err := problems.Write(&out, in, false); err != nil {
			t.Fatal(err)
		}
		hides := !strings.ContainsAny(ref, "[{") || strings.Contains(ref, "INLINE")
		if len(problems) != 1 || hides && strings.Contains(strings.ToLower(out.String()), "inline") {
			t.Errorf("%s: got %d problems:\n%s", ref, len(problems), &out)
		}
	}
}

// TestSecretsThatGoBad stay as they are served; the files that newly refer to a bad one are to blame.
func TestSecretsThatGoBad(t *testing.T) {
	good := vault{"tls/a.crt": cert("a.test"), "tls/a.key": key("a.test"), "ca.crt": cert("b.test"), "words/one": "one"}
	last := files("a.yaml", vaulted)
	_, serving, problems := testLanguage().WithSecrets(good).Isolate(last, nil)
	if serving == nil {
		t.Fatal(problems.Err())
	}
	bad := vault{"tls/a.crt": cert("rsa"), "tls/a.key": key("a.test"), "words/one": "two"}
	candidate := files("a.yaml", vaulted+"  b: {vaulted: {text: words/one}}\n", "b.yaml", "auth: {c: {vaulted: {text: words/two}}}\n")
	got, model, problems := testLanguage().WithSecrets(bad).Isolate(candidate, last, serving.Secrets...)
	if model == nil || len(problems) != 3 {
		t.Fatalf("got model %v, problems %v; want 3 and a model", model, problems)
	}
	if diff := cmp.Diff(show(files("a.yaml", string(candidate["a.yaml"]))), show(got)); diff != "" {
		t.Errorf("served files (-want +got):\n%s", diff)
	}
	for _, id := range []string{"certificate/tls/a", "authority/ca"} {
		if diff := cmp.Diff(serving.Secret(id).Value, model.Secret(id).Value); diff != "" {
			t.Errorf("%s did not stay: %s", id, diff)
		}
	}
	if got := string(model.Secret("secret/words/one").Value); got != "two" {
		t.Errorf("a good secret is served as %q, want its new value", got)
	}
	if _, model, _ := testLanguage().WithSecrets(bad).Isolate(candidate, last); model != nil {
		t.Error("what refers to bad secrets is served, though nobody has good ones")
	}
}

func TestFilesOfSecrets(t *testing.T) {
	for id, want := range map[string]string{
		"certificate/tls/a": "tls/a.crt tls/a.key",
		"authority/tls/ca":  "tls/ca.crt",
		"secret/word":       "word",
		(policy.Authority{File: "tls/ca.crt"}).ID(): "",
	} {
		s := policy.SecretOf(id)
		if got := strings.Join(s.Files(), " "); got != want || s.ID() != id {
			t.Errorf("%s: got %q of %s, want %q", id, got, s.ID(), want)
		}
	}
}
