package tls_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"testing"

	"github.com/legation/legation/feature/golden"
	feature "github.com/legation/legation/feature/tls"
	"github.com/legation/legation/policy"
)

var kinds = []*policy.Kind{feature.ListenerKind, feature.ServiceKind}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds...) }

// showing is a client's configuration that shows a certificate whether or not the server would take it.
func showing(t *testing.T, config *tls.Config, c golden.Certificate) *tls.Config {
	t.Helper()
	chain, _ := pem.Decode(c.Chain)
	block, _ := pem.Decode(c.Key)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	config = config.Clone()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{chain.Bytes}, PrivateKey: key}, nil
	}
	return config
}

// ask is one request over a connection of its own; the error is that of a handshake that was refused.
func ask(t *testing.T, e *golden.Envoy, listener string, config *tls.Config, path string, headers ...string) (golden.Answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://a.test"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := e.Client(t, listener, config).Do(req)
	if err != nil {
		return golden.Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return golden.Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}, nil
}
