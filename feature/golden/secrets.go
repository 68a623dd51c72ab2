package golden

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/legation/legation/envoy/certtest"
)

// Authority signs certificates for a test: see [certtest.Authority]. Nothing of it stands in a file.
type Authority = certtest.Authority

// Certificate is a certificate and its key, PEM.
type Certificate = certtest.Certificate

// NewAuthority makes an authority that has signed itself.
func NewAuthority(t testing.TB, name string) *Authority { return certtest.NewAuthority(t, name) }

// Secrets is a [policy.SecretSource] with what a test needs, made anew in each run.
type Secrets struct {
	files        map[string][]byte
	authorities  map[string]*Authority
	certificates map[string]Certificate
}

// root is the name of the authority that signs what names no other.
const root = ""

// NewSecrets makes the secrets that lines list, one each:
//
//	tls/example  certificate example.test *.example.test
//	mesh/ca      authority
//	mesh/orders  certificate spiffe://mesh/orders by mesh/ca
//	idp/client   text abc
//
// A certificate is for host names, IP addresses or URIs; without an authority that was listed before it is signed by one
// that is no secret, [Secrets.Authority] of "". Lines that begin with # are comments.
func NewSecrets(t testing.TB, lines string) *Secrets {
	t.Helper()
	s := &Secrets{
		files:        make(map[string][]byte),
		authorities:  map[string]*Authority{root: NewAuthority(t, "golden")},
		certificates: make(map[string]Certificate),
	}
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(line, "#") {
			s.add(t, words)
		}
	}
	return s
}

func (s *Secrets) add(t testing.TB, words []string) {
	t.Helper()
	kind := ""
	if len(words) > 1 {
		kind = words[1]
	}
	switch name, rest := words[0], words[min(2, len(words)):]; {
	case kind == "authority" && len(rest) == 0:
		s.authorities[name] = NewAuthority(t, name)
		s.files[name+".crt"] = s.authorities[name].PEM()
	case kind == "text" && len(rest) == 1:
		s.files[name] = []byte(rest[0])
	case kind == "certificate" && len(rest) > 2 && rest[len(rest)-2] == "by":
		s.Issue(t, name, rest[len(rest)-1], rest[:len(rest)-2]...)
	case kind == "certificate" && len(rest) > 0:
		s.Issue(t, name, root, rest...)
	default:
		t.Fatalf("secrets: %q is no secret", strings.Join(words, " "))
	}
}

// Issue makes a certificate, or makes it anew, signed by one of the authorities.
func (s *Secrets) Issue(t testing.TB, name, by string, names ...string) Certificate {
	t.Helper()
	c := s.Authority(t, by).Issue(t, names...)
	s.certificates[name], s.files[name+".crt"], s.files[name+".key"] = c, c.Chain, c.Key
	return c
}

// Secret is what is kept under a file's name.
func (s *Secrets) Secret(name string) ([]byte, error) {
	if content, ok := s.files[name]; ok {
		return content, nil
	}
	return nil, fmt.Errorf("secret %s: %w", name, fs.ErrNotExist)
}

// Authority is one that is listed, or with "" the one that signs what names no other.
func (s *Secrets) Authority(t testing.TB, name string) *Authority {
	t.Helper()
	a := s.authorities[name]
	if a == nil {
		t.Fatalf("secrets: there is no authority %s", name)
	}
	return a
}

// Certificate is one that is listed.
func (s *Secrets) Certificate(t testing.TB, name string) Certificate {
	t.Helper()
	c, ok := s.certificates[name]
	if !ok {
		t.Fatalf("secrets: there is no certificate %s", name)
	}
	return c
}
