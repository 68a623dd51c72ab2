package policy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"strings"
)

// leastRSA is the number of bits below which Envoy takes no RSA key.
const leastRSA = 2048

// certificate takes a chain and its key into the secret when they are fit for Envoy.
func (h *held) certificate(chain, key []byte) *flaw {
	crt, keyFile := h.secret.Name+".crt", h.secret.Name+".key"
	certs, lists, wrong := certificates(crt, chain)
	if wrong != nil {
		return wrong
	}
	if len(lists) > 0 {
		return flawf("%s holds a revocation list, which belongs beside authorities", crt)
	}
	block, wrong := onlyKey(keyFile, key)
	if wrong != nil {
		return wrong
	}
	value, keyPEM := encode(certs), pem.EncodeToMemory(block)
	pair, err := tls.X509KeyPair(value, keyPEM)
	switch {
	case err != nil && strings.Contains(err.Error(), "does not match"):
		return &flaw{
			"the key " + keyFile + " does not belong to the first certificate of " + crt,
			"the certificate of the server stands first in " + crt + ", those that signed it follow",
		}
	case err != nil:
		return flawf("the key %s can't be read: want an RSA or ECDSA key in PKCS #8, PKCS #1 or SEC 1", keyFile)
	}
	if wrong := weak(crt, pair.Leaf); wrong != nil {
		return wrong
	}
	if mustStaple(pair.Leaf) {
		return &flaw{crt + " asks clients to insist on a stapled OCSP answer (must-staple): Envoy has none, and takes no such certificate", "have it issued without must-staple"}
	}
	h.secret.Value, h.secret.Key, h.leaf = value, keyPEM, pair.Leaf
	return nil
}

// weak tells of keys that Envoy does not take.
func weak(file string, c *x509.Certificate) *flaw {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < leastRSA {
			return &flaw{flawf("the RSA key of %s has %d bits: Envoy takes none below %d", file, bits, leastRSA).message, "make one of 2048 bits, or an ECDSA key (P-256)"}
		}
	case *ecdsa.PublicKey:
		if name := key.Params().Name; name == "P-224" {
			return &flaw{flawf("the key of %s is on the curve %s: Envoy takes P-256, P-384 and P-521", file, name).message, "make one on P-256"}
		}
	}
	return nil
}

// tlsFeature is the extension of a certificate that names what a server has to offer with it (RFC 7633).
var tlsFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// mustStaple tells whether a certificate is good only beside an OCSP answer.
func mustStaple(c *x509.Certificate) bool {
	const statusRequest = 5
	for _, e := range c.Extensions {
		var features []int
		if _, err := asn1.Unmarshal(e.Value, &features); e.Id.Equal(tlsFeature) && err == nil && slices.Contains(features, statusRequest) {
			return true
		}
	}
	return false
}

// revocations is the type of the PEM blocks that list certificates which are no longer good.
const revocations = "X509 CRL"

// authorities reads certificates to trust, and the lists of those that they have revoked.
func authorities(file string, content []byte) ([]byte, *flaw) {
	certs, lists, wrong := certificates(file, content)
	if wrong != nil {
		return nil, wrong
	}
	for i, list := range lists {
		if _, err := x509.ParseRevocationList(list.Bytes); err != nil {
			return nil, flawf("revocation list %d of %s can't be read: %s", i+1, file, strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
	return encode(append(certs, lists...)), nil
}

// certificates reads a file of certificates, of which there is at least one, and revocation lists.
func certificates(file string, content []byte) (certs, lists []*pem.Block, wrong *flaw) {
	blocks, wrong := pemBlocks(file, content)
	if wrong != nil {
		return nil, nil, wrong
	}
	for _, b := range blocks {
		switch {
		case b.Type == revocations:
			lists = append(lists, &pem.Block{Type: b.Type, Bytes: b.Bytes})
			continue
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			return nil, nil, &flaw{file + " holds a private key: it would be shown as certificates are", "leave only certificates in it"}
		case b.Type != "CERTIFICATE":
			return nil, nil, flawf("%s holds something else than certificates (%s)", file, cut(b.Type))
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return nil, nil, flawf("certificate %d of %s can't be read: %s", len(certs)+1, file, strings.TrimPrefix(err.Error(), "x509: "))
		}
		certs = append(certs, &pem.Block{Type: b.Type, Bytes: b.Bytes})
	}
	if len(certs) == 0 {
		return nil, nil, flawf("%s holds no certificate", file)
	}
	return certs, lists, nil
}

// onlyKey reads a file with one private key.
func onlyKey(file string, content []byte) (*pem.Block, *flaw) {
	blocks, wrong := pemBlocks(file, content)
	if wrong != nil {
		return nil, wrong
	}
	var key *pem.Block
	for _, b := range blocks {
		switch {
		case !strings.HasSuffix(b.Type, "PRIVATE KEY"): // such as EC PARAMETERS, which the key repeats
		case b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "":
			return nil, &flaw{"the key " + file + " is encrypted: nobody would be there to give Envoy its passphrase", "decrypt it with openssl pkey"}
		case key != nil:
			return nil, flawf("%s holds several private keys", file)
		default:
			key = &pem.Block{Type: b.Type, Bytes: b.Bytes}
		}
	}
	if key == nil {
		return nil, flawf("%s holds no private key", file)
	}
	return key, nil
}

func pemBlocks(file string, content []byte) ([]*pem.Block, *flaw) {
	var blocks []*pem.Block
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		blocks, content = append(blocks, block), rest
	}
	if len(blocks) == 0 || bytes.Contains(content, []byte("-----BEGIN")) {
		return nil, &flaw{file + " is not PEM, or not as a whole", "it begins with -----BEGIN, and each part ends with -----END"}
	}
	return blocks, nil
}

func encode(blocks []*pem.Block) []byte {
	var out []byte
	for _, b := range blocks {
		out = append(out, pem.EncodeToMemory(b)...)
	}
	return out
}

// leafOf reads the first certificate of a chain that was read before.
func leafOf(chain []byte) *x509.Certificate {
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}
