// Package pki is a small authority in a directory: it signs certificates for control planes, for the Envoys that ask them,
// and for sidecars, and takes them back. legation pki calls it; nothing else needs it.
//
// The directory holds ca.key, the one secret; ca.crt, the authority's certificate and the list of those that it has
// revoked; and below issued/ a copy of each certificate that it has signed, by serial number. Certificates and their keys are
// written where the caller says, the key first, each file at once.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// How long certificates are good unless told otherwise.
const (
	AuthorityTTL = 10 * 365 * 24 * time.Hour
	LeafTTL      = 365 * 24 * time.Hour
)

// backdate is how much earlier than now a certificate begins, for clocks that are behind.
const backdate = 5 * time.Minute

// Authority is the authority of a directory.
type Authority struct {
	dir   string
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	lists []*x509.RevocationList
	now   time.Time
}

// Init makes an authority in a directory. Where there is one already it is refused unless force is said, which makes all
// certificates of the old one worthless.
func Init(dir, name string, ttl time.Duration, force bool, now time.Time) (*Authority, error) {
	if ttl < time.Hour {
		return nil, fmt.Errorf("an authority that is good for %s is of no use: want at least an hour", ttl)
	}
	for _, file := range []string{"ca.crt", "ca.key"} {
		if _, err := os.Lstat(filepath.Join(dir, file)); err == nil && !force {
			return nil, fmt.Errorf("%s holds an authority already: choose another directory, or replace it with --force", dir)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, serial, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(ttl),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := writeKey(filepath.Join(dir, "ca.key"), key); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, "ca.crt"), encode("CERTIFICATE", der), 0o644); err != nil {
		return nil, err
	}
	return Open(dir, now)
}

// Open reads the authority of a directory.
func Open(dir string, now time.Time) (*Authority, error) {
	a := &Authority{dir: dir, now: now}
	if err := a.readCertificate(); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "ca.key")
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: others can read the authority's key (mode %04o): chmod 600 %[1]s", path, mode)
	}
	if a.key, err = readKey(path); err != nil {
		return nil, err
	}
	if !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", path, filepath.Join(dir, "ca.crt"))
	}
	return a, nil
}

// Look is Open without the key, for who wants to know what there is.
func Look(dir string, now time.Time) (*Authority, error) {
	a := &Authority{dir: dir, now: now}
	return a, a.readCertificate()
}

// Certificate is the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Path is the file that others trust the authority by.
func (a *Authority) Path() string { return filepath.Join(a.dir, "ca.crt") }

func (a *Authority) readCertificate() error {
	path := a.Path()
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no authority in %s: make one with legation pki init %[1]s", a.dir)
	}
	if err != nil {
		return err
	}
	a.lists = nil
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			if a.cert != nil {
				return fmt.Errorf("%s holds more than one certificate: it is no authority of legation pki", path)
			}
			if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		case "X509 CRL":
			list, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			a.lists = append(a.lists, list)
		}
	}
	if a.cert == nil || !a.cert.IsCA {
		return fmt.Errorf("%s holds no certificate of an authority", path)
	}
	return nil
}

// lock keeps others from changing the directory until release is called.
func (a *Authority) lock() (release func(), err error) {
	f, err := os.Open(filepath.Join(a.dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // which gives the lock back
}

// Revoke takes certificates back, which are then refused as soon as ca.crt has been copied to where it is trusted.
func (a *Authority) Revoke(serials []*big.Int) error {
	release, err := a.lock()
	if err != nil {
		return err
	}
	defer release()
	a.cert = nil
	if err := a.readCertificate(); err != nil { // another may have been quicker
		return err
	}
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: a.now.Add(-backdate), NextUpdate: a.cert.NotAfter}
	for _, old := range a.lists {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, old.RevokedCertificateEntries...)
		if old.Number != nil && old.Number.Cmp(list.Number) >= 0 {
			list.Number = new(big.Int).Add(old.Number, big.NewInt(1))
		}
	}
	for _, serial := range serials {
		if !a.revoked(serial) {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: a.now})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		return err
	}
	text := slices.Concat(encode("CERTIFICATE", a.cert.Raw), encode("X509 CRL", der))
	if err := writeFile(a.Path(), text, 0o644); err != nil {
		return err
	}
	a.cert = nil
	return a.readCertificate()
}

func (a *Authority) revoked(serial *big.Int) bool {
	return slices.ContainsFunc(a.lists, func(l *x509.RevocationList) bool {
		return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
	})
}

// newKey makes a key, which Envoy takes on this curve, and a serial number that nobody can guess.
func newKey() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	return key, serial.Add(serial, big.NewInt(1)), nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: not a key in PKCS #8", path) // the words of the library could hold it
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: want an ECDSA key", path)
	}
	return ec, nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, encode("PRIVATE KEY", der), 0o600)
}

// writeFile puts a file in place at once, so that nobody reads a half of it.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is in place
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// serialText is how serial numbers are written.
func serialText(serial *big.Int) string { return strings.ToLower(serial.Text(16)) }

func decode(content []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("holds no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
