package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// listen opens a port; one that is taken is told with the setting that moves it.
func listen(what, setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, taken(what, address, setting)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return l, nil
}

func taken(what, address, cure string) error {
	return fmt.Errorf("%s: %s is taken by another process: stop that one, or choose another port with %s", what, address, cure)
}

// free tells whether an address can be listened on right now.
func free(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	return l.Close() == nil
}

// mutualTLS is the server side of mutual TLS from three PEM files. They are read again when they change, so that
// certificates rotate without a restart; a broken set leaves the last good one in use.
type mutualTLS struct {
	cert, key, ca string

	mu      sync.Mutex // guards what follows
	read    time.Time  // newest modification time of the three that was tried
	current *tls.Config
}

func newMutualTLS(cert, key, ca string) (*mutualTLS, error) {
	m := &mutualTLS{cert: cert, key: key, ca: ca}
	if _, err := m.config(nil); err != nil {
		return nil, err
	}
	return m, nil
}

// server is the configuration to serve with.
func (m *mutualTLS) server() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, GetConfigForClient: m.config}
}

func (m *mutualTLS) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.changed()
	if m.current != nil && !changed.After(m.read) {
		return m.current, nil
	}
	m.read = changed
	next, err := m.load()
	if err == nil {
		m.current = next
	}
	if m.current == nil {
		return nil, err
	}
	return m.current, nil
}

// changed is when the newest of the files was written.
func (m *mutualTLS) changed() time.Time {
	var newest time.Time
	for _, path := range []string{m.cert, m.key, m.ca} {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest
}

func (m *mutualTLS) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(m.cert, m.key)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	pem, err := os.ReadFile(m.ca)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--tls-ca: %s holds no certificate in PEM", m.ca)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}
