package store

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// needsTLS skips a test where redis-server was built without TLS, as PyPI's is.
func needsTLS(t *testing.T) {
	t.Helper()
	const nowhere = "0" // it has nowhere to listen, and ends
	out, _ := exec.Command(redisServer(t), "--port", nowhere, "--tls-port", nowhere).CombinedOutput()
	if strings.Contains(string(out), "Bad directive") {
		t.Skip("redis-server was built without TLS")
	}
}

func TestRedisOverTLS(t *testing.T) {
	needsTLS(t)
	cert, key, roots := selfSigned(t)
	port := freePort(t)
	plain := startRedis(t, "--tls-port", fmt.Sprint(port), "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	url := fmt.Sprintf("rediss://127.0.0.1:%d", port)

	trusted := open(t, Options{URL: url, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	until(t, patience, "the store to be ready", func() bool { return trusted.Health().OK })
	heals(t, trusted)

	stranger := open(t, Options{URL: url}) // its authorities don't know the certificate
	isDown(t, stranger)
	until(t, patience, "the reason", func() bool { return strings.Contains(stranger.Health().Reason, "certificate") })

	refused := open(t, Options{URL: "rediss://" + plain.addr()})
	isDown(t, refused)
}

func selfSigned(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, roots
}
