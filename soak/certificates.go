package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
)

// certificates has legation make an authority of its own, a certificate for itself and one for the Envoys of a group: the
// flags that name them, and the Envoys' for simulated ones.
func (t *trial) certificates(group string) (server, client []string, config *tls.Config, err error) {
	dir := filepath.Join(t.rig.Dir, "pki")
	for _, args := range [][]string{{"init", dir}, {"issue", dir, "--server", "127.0.0.1"}, {"issue", dir, "--group", group}} {
		if _, err := t.rig.Run(t.ctx, append([]string{"pki"}, args...)...); err != nil {
			return nil, nil, nil, err
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	flags := func(name string) []string {
		return []string{"--tls-cert", file(name + ".crt"), "--tls-key", file(name + ".key"), "--tls-ca", file("ca.crt")}
	}
	own, err := tls.LoadX509KeyPair(file(group+".crt"), file(group+".key"))
	if err != nil {
		return nil, nil, nil, err
	}
	authority, err := os.ReadFile(file("ca.crt"))
	if err != nil {
		return nil, nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, nil, nil, errors.New("ca.crt holds no certificate")
	}
	return flags("legation"), flags(group), &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}, nil
}
