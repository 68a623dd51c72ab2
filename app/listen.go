package app

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
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
	log           *slog.Logger

	mu      sync.Mutex     // guards what follows
	tried   [3]os.FileInfo // the three as they were tried last
	current *tls.Config
}

func newMutualTLS(cert, key, ca string, log *slog.Logger) (*mutualTLS, error) {
	m := &mutualTLS{cert: cert, key: key, ca: ca, log: cmp.Or(log, slog.New(slog.DiscardHandler))}
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
	if !m.changed() && m.current != nil {
		return m.current, nil
	}
	next, err := m.load()
	switch {
	case err == nil:
		if m.current != nil {
			m.log.Info("tls certificates read again", "cert", m.cert)
		}
		m.current = next
	case m.current == nil:
		return nil, err
	default: // told once for each change of the files
		m.log.Error("tls certificates not read again: the last good ones stay in use", "error", err)
	}
	return m.current, nil
}

// changed tells whether the files are others than those that were tried last, or have other content. One that is put in
// place may well be older than the one before it.
func (m *mutualTLS) changed() bool {
	changed := false
	for i, path := range []string{m.cert, m.key, m.ca} {
		now, err := os.Stat(path)
		if err != nil {
			now = nil
		}
		was := m.tried[i]
		m.tried[i] = now
		switch {
		case was == nil || now == nil:
			changed = changed || was != now
		case !os.SameFile(was, now) || !was.ModTime().Equal(now.ModTime()) || was.Size() != now.Size():
			changed = true
		}
	}
	return changed
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
