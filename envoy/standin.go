package envoy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
)

// withStandIns is the bootstrap with a throwaway certificate in place of those whose files are not here.
func withStandIns(b *bootstrapv3.Bootstrap) (*bootstrapv3.Bootstrap, error) {
	certificate, private, err := standIn()
	if err != nil {
		return nil, err
	}
	chain, key := contents(certificate, ""), contents(private, "")
	complete := proto.Clone(b).(*bootstrapv3.Bootstrap)
	Walk(complete, func(m proto.Message) bool {
		switch m := m.(type) {
		case *tlsv3.TlsCertificate:
			if !missing(m.CertificateChain) && !missing(m.PrivateKey) {
				return false
			}
			m.CertificateChain, m.PrivateKey = chain, key
		case *tlsv3.CertificateValidationContext:
			if !missing(m.TrustedCa) {
				return false
			}
			m.TrustedCa = chain
		default:
			return false
		}
		return true
	})
	return complete, nil
}

func missing(s *corev3.DataSource) bool {
	if s.GetFilename() == "" {
		return false
	}
	_, err := os.Stat(s.GetFilename())
	return err != nil
}

// standIn is a certificate that has signed itself, and its key, which nobody gets but an Envoy that only validates.
func standIn() (chain, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate to validate with: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "legation validates"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate to validate with: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate to validate with: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
