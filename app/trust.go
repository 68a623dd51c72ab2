package app

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// trust is one state of the files of TLS: what the ports show, and whom they believe. Immutable.
type trust struct {
	pair        tls.Certificate
	authorities []*x509.Certificate
	pool        *x509.CertPool // of the authorities; nil without any
	lists       []*x509.RevocationList
	revoked     map[string]bool // by issuer and serial number
}

var errRevoked = errors.New("the certificate is revoked")

// readTrust reads the files; without the name of a CA nobody is believed.
func readTrust(cert, key, ca string) (*trust, error) {
	t := &trust{revoked: map[string]bool{}}
	var err error
	if t.pair, err = tls.LoadX509KeyPair(cert, key); err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	if ca == "" {
		return t, nil
	}
	content, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	if err := t.believe(content); err != nil {
		return nil, fmt.Errorf("--tls-ca: %s %w", ca, err)
	}
	return t, nil
}

// believe reads certificates of authorities, and the lists of what they have revoked.
func (t *trust) believe(content []byte) error {
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		content = rest
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return fmt.Errorf("holds a certificate that can't be read: %w", err)
			}
			t.authorities = append(t.authorities, c)
		case "X509 CRL":
			list, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				return fmt.Errorf("holds a revocation list that can't be read: %w", err)
			}
			t.lists = append(t.lists, list)
		default:
			return fmt.Errorf("holds something else than certificates and revocation lists (%.40q)", block.Type)
		}
	}
	switch {
	case len(t.authorities) == 0:
		return errors.New("holds no certificate in PEM")
	case strings.Contains(string(content), "-----BEGIN"):
		return errors.New("is not whole")
	}
	t.pool = x509.NewCertPool()
	for _, c := range t.authorities {
		t.pool.AddCert(c)
	}
	for i, list := range t.lists {
		if !slices.ContainsFunc(t.authorities, func(c *x509.Certificate) bool { return list.CheckSignatureFrom(c) == nil }) {
			return fmt.Errorf("holds a revocation list, number %d, that none of its authorities has signed", i+1)
		}
		for _, entry := range list.RevokedCertificateEntries {
			t.revoked[string(list.RawIssuer)+entry.SerialNumber.String()] = true
		}
	}
	return nil
}

// verify tells why the certificate of a client, first, with those that signed it, is not good now. A list of revoked ones
// that is overdue still counts.
func (t *trust) verify(chain []*x509.Certificate, now time.Time) error {
	if t.pool == nil {
		return errors.New("there is no --tls-ca any more")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	for _, good := range chains {
		if !slices.ContainsFunc(good, func(c *x509.Certificate) bool { return t.revoked[string(c.RawIssuer)+c.SerialNumber.String()] }) {
			return nil
		}
	}
	return errRevoked
}

// ends is when the first of our own certificates, and of the authorities, ends; zero for none.
func (t *trust) ends() (own, ca time.Time) {
	for _, c := range t.authorities {
		if ca.IsZero() || c.NotAfter.Before(ca) {
			ca = c.NotAfter
		}
	}
	return t.pair.Leaf.NotAfter, ca
}

// overdue is since when the oldest list of revoked certificates should have been followed by another; zero for none.
func (t *trust) overdue(now time.Time) (since time.Time) {
	for _, list := range t.lists {
		if !list.NextUpdate.IsZero() && list.NextUpdate.Before(now) && (since.IsZero() || list.NextUpdate.Before(since)) {
			since = list.NextUpdate
		}
	}
	return since
}
