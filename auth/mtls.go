package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MTLS accepts the certificate that the client showed in the TLS handshake. Envoy has verified it by then: the listener
// says by whom it has to be signed.
type MTLS struct {
	Identity CertificateName   `json:"identity"`
	Allow    []string          `json:"allow,omitempty"`   // patterns of identities, * for any text; empty = any
	Headers  map[string]string `json:"headers,omitempty"` // request header (lower case) -> claim
}

// CertificateName is what of a certificate names the caller.
type CertificateName string

// The choices of CertificateName.
const (
	BySPIFFE      CertificateName = "spiffe"      // the one URI, spiffe://…
	ByDNS         CertificateName = "dns"         // the first DNS name that is allowed
	ByEmail       CertificateName = "email"       // the first address that is allowed
	BySubject     CertificateName = "subject"     // the whole: CN=alice,O=Example
	ByFingerprint CertificateName = "fingerprint" // SHA-256 of the certificate, in lower-case hexadecimal
)

var (
	errCertificate        = newRefusal("certificate_malformed", "the certificate can't be read")
	errCertificateExpired = newRefusal("certificate_expired", "the certificate is expired, or not valid yet")
	errCertificateName    = newRefusal("certificate_name", "the certificate has no name that is accepted")
)

// maxCertificate is the most bytes of a certificate as Envoy sends it.
const maxCertificate = 64 << 10

// certificateWay is the way of an [MTLS].
type certificateWay struct {
	*provider
	by    CertificateName
	allow []string

	mu    sync.RWMutex // guards what follows
	known map[[sha256.Size]byte]*judged
}

// judged is a certificate that was looked at.
type judged struct {
	grant *grant
	from  time.Time
	err   error
}

// mostJudged is how many certificates are remembered.
const mostJudged = 4096

func compileMTLS(_ *compiler, p Provider, to *provider) (_ way, err error) {
	m := p.MTLS
	if !slices.Contains([]CertificateName{BySPIFFE, ByDNS, ByEmail, BySubject, ByFingerprint}, m.Identity) {
		return nil, fmt.Errorf("there is no identity %q of certificates", m.Identity)
	}
	for _, pattern := range m.Allow {
		if err := checkPattern(m.Identity, pattern); err != nil {
			return nil, fmt.Errorf("allow: %w", err)
		}
	}
	w := &certificateWay{provider: to, by: m.Identity, allow: slices.Clone(m.Allow), known: map[[sha256.Size]byte]*judged{}}
	to.reading, err = newReading(Reading{Headers: m.Headers})
	return w, err
}

func (w *certificateWay) challenge() string { return `Mutual realm="` + w.name + `"` }

func (*certificateWay) same(other way) bool {
	_, ok := other.(*certificateWay)
	return ok
}

func (w *certificateWay) look(d *decision, now time.Time) finding {
	if d.certificate == "" {
		return finding{}
	}
	if len(d.certificate) > maxCertificate {
		return finding{err: errCertificate}
	}
	sum := sumOf(d.certificate)
	w.mu.RLock()
	j := w.known[sum]
	w.mu.RUnlock()
	if j == nil {
		j = w.judge(d.certificate)
		w.remember(sum, j)
	}
	switch {
	case j.err != nil:
		return finding{err: j.err}
	case now.Before(j.from) || !now.Before(j.grant.expires): // a connection may outlive its certificate
		return finding{err: errCertificateExpired}
	}
	return finding{grant: j.grant}
}

func (w *certificateWay) remember(sum [sha256.Size]byte, j *judged) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.known) >= mostJudged {
		clear(w.known)
	}
	w.known[sum] = j
}

// judge reads a certificate as Envoy sends it: PEM, URL-encoded.
func (w *certificateWay) judge(encoded string) *judged {
	text, err := url.PathUnescape(encoded)
	if err != nil {
		return &judged{err: errCertificate}
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return &judged{err: errCertificate}
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return &judged{err: errCertificate}
	}
	all := certificateClaims(c)
	identity := w.identity(c, all)
	if identity == "" {
		return &judged{err: errCertificateName}
	}
	all["sub"] = identity
	g, err := w.newGrant(all, c.NotAfter)
	if err != nil {
		return &judged{err: errCertificateName}
	}
	return &judged{grant: g, from: c.NotBefore}
}

// certificateClaims is what is told of a certificate.
func certificateClaims(c *x509.Certificate) claims {
	fingerprint := sha256.Sum256(c.Raw)
	var uris []string
	for _, u := range c.URIs {
		uris = append(uris, u.String())
	}
	all := claims{
		"subject": nameText(c.RawSubject), "issuer": nameText(c.RawIssuer), "serial": hex.EncodeToString(c.SerialNumber.Bytes()),
		"fingerprint": hex.EncodeToString(fingerprint[:]), "notAfter": json.Number(strconv.FormatInt(c.NotAfter.Unix(), 10)),
	}
	for name, list := range map[string][]string{"uri": uris, "dns": c.DNSNames, "email": c.EmailAddresses} {
		var values []any
		for _, v := range list {
			values = append(values, v)
		}
		if values != nil {
			all[name] = values
		}
	}
	return all
}

// nameText is a distinguished name by RFC 2253, in the order that it has there: the last part first.
func nameText(raw []byte) string {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return ""
	}
	return name.String()
}

// identity is the name of the caller, "" for none that is accepted.
func (w *certificateWay) identity(c *x509.Certificate, all claims) string {
	var names []string
	switch w.by {
	case BySPIFFE:
		if len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" || c.URIs[0].Host == "" { // who has several is nobody: SPIFFE's X.509-SVID, 2
			return ""
		}
		names = []string{c.URIs[0].String()}
	case ByDNS:
		for _, name := range c.DNSNames {
			names = append(names, strings.ToLower(name))
		}
	case ByEmail:
		names = c.EmailAddresses
	case BySubject:
		names = []string{nameText(c.RawSubject)}
	default:
		names = []string{all["fingerprint"].(string)}
	}
	for _, name := range names {
		if name != "" && (len(w.allow) == 0 || slices.ContainsFunc(w.allow, func(p string) bool { return glob(p, name) })) {
			return name
		}
	}
	return ""
}

// checkPattern tells why no identity can be of the pattern: what is not spelled as identities are would refuse everybody.
func checkPattern(by CertificateName, pattern string) error {
	switch {
	case pattern == "" || pattern != strings.TrimSpace(pattern):
		return errors.New("want a name, with * for any text in it")
	case by == BySPIFFE && !strings.HasPrefix(pattern, "spiffe://"):
		return errors.New("want a name that begins with spiffe://")
	case by == ByDNS && pattern != strings.ToLower(pattern), by == ByFingerprint && strings.Trim(pattern, "0123456789abcdef*") != "":
		return errors.New("want lower case, without colons or spaces")
	case by == ByEmail && !strings.ContainsAny(pattern, "@*"):
		return errors.New("want an address, such as alice@example.com")
	}
	return nil
}

// glob tells whether a text is that of a pattern, in which * stands for any text.
func glob(pattern, text string) bool {
	first, rest, several := strings.Cut(pattern, "*")
	if !several {
		return pattern == text
	}
	if !strings.HasPrefix(text, first) {
		return false
	}
	text = text[len(first):]
	for {
		part, more, again := strings.Cut(rest, "*")
		if !again {
			return strings.HasSuffix(text, part)
		}
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text, rest = text[at+len(part):], more
	}
}
