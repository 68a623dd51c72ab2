package pki

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Use is what a certificate is for.
type Use string

// The uses. Gateways and sidecars show theirs to each other; Envoy, a client, shows one for nodes to the control plane.
const (
	ForNode    Use = "group"   // an Envoy that asks for the configuration of a group
	ForServer  Use = "server"  // a control plane
	ForGateway Use = "gateway" // a gateway that calls sidecars: a client
	ForSidecar Use = "sidecar" // a sidecar: both
)

// Order is a certificate to be.
type Order struct {
	Use         Use
	Name        string   // the group, gateway or sidecar; of a server the name of its files
	Hosts       []string // of a server: DNS names and addresses
	TrustDomain string   // of all others: the URI name is spiffe://TRUST-DOMAIN/gateway/NAME
	TTL         time.Duration
	Dir         string // where NAME.crt and NAME.key go; empty: the authority's directory
	Force       bool   // replaces files that are there
}

// Issued is a certificate that was signed.
type Issued struct {
	Certificate *x509.Certificate
	Use         Use
	Name        string
	Revoked     bool
	Cert, Key   string // files, of one that was made just now
}

// Serial is the serial number as it is written.
func (i Issued) Serial() string { return serialText(i.Certificate.SerialNumber) }

// Issue signs a certificate with a new key and writes both. It ends with the authority at the latest.
func (a *Authority) Issue(o Order) (Issued, error) {
	if err := o.check(); err != nil {
		return Issued{}, err
	}
	dir := o.Dir
	if dir == "" {
		dir = a.dir
	}
	i := Issued{Use: o.Use, Name: o.Name, Cert: filepath.Join(dir, o.Name+".crt"), Key: filepath.Join(dir, o.Name+".key")}
	for _, path := range []string{i.Cert, i.Key} {
		if _, err := os.Lstat(path); err == nil && !o.Force {
			return Issued{}, fmt.Errorf("%s is there already: renew it with legation pki renew, or replace it with --force", path)
		}
	}
	if !a.now.Before(a.cert.NotAfter) {
		return Issued{}, fmt.Errorf("the authority ended on %s: make another with legation pki init", a.cert.NotAfter.Format(time.DateOnly))
	}
	template := o.template()
	template.NotBefore, template.NotAfter = a.now.Add(-backdate), a.now.Add(o.TTL)
	if template.NotBefore.Before(a.cert.NotBefore) {
		template.NotBefore = a.cert.NotBefore
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	return i, a.sign(template, &i, dir)
}

func (a *Authority) sign(template *x509.Certificate, i *Issued, dir string) error {
	key, serial, err := newKey()
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	if i.Certificate, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	text := encode("CERTIFICATE", der)
	issued := filepath.Join(a.dir, "issued")
	if err := errors.Join(os.MkdirAll(issued, 0o700), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	// The copy first: what nobody knows of could not be revoked.
	if err := writeFile(filepath.Join(issued, i.Serial()+".crt"), text, 0o644); err != nil {
		return err
	}
	if err := writeKey(i.Key, key); err != nil {
		return err
	}
	return writeFile(i.Cert, text, 0o644)
}

// check tells what of the order can't be.
func (o Order) check() error {
	switch {
	case !isName(o.Name):
		return fmt.Errorf("%q can't be a name: want up to 63 of a-z, 0-9, - and ., beginning and ending with a letter or digit", o.Name)
	case o.Name == "ca":
		return errors.New("the name ca is that of the authority's own files")
	case o.TTL < time.Minute:
		return fmt.Errorf("a certificate that is good for %s is of no use: want at least a minute", o.TTL)
	case o.Use == ForServer && len(o.Hosts) == 0:
		return errors.New("name the hosts that Envoys dial: DNS names and addresses")
	case o.Use != ForServer && !isName(o.TrustDomain):
		return fmt.Errorf("%q can't be a trust domain: want a name such as example.com", o.TrustDomain)
	}
	for _, host := range o.Hosts {
		if net.ParseIP(host) == nil && !isHost(host) {
			return fmt.Errorf("%q is neither a DNS name nor an address", host)
		}
	}
	return nil
}

// template has the names, and what the certificate may be used for.
func (o Order) template() *x509.Certificate {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: o.Name, OrganizationalUnit: []string{string(o.Use)}}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	for _, host := range o.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	if o.Use != ForServer {
		t.URIs = []*url.URL{{Scheme: "spiffe", Host: o.TrustDomain, Path: "/gateway/" + o.Name}}
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if o.Use == ForServer || o.Use == ForSidecar {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return t
}

// isName holds names to what gateways and sidecars may be called.
func isName(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == "" &&
		!strings.ContainsAny(s[:1]+s[len(s)-1:], "-.") && !strings.Contains(s, "..")
}

func isHost(s string) bool {
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(label string) bool { return !isName(label) })
}

// Issued lists the certificates that the authority has signed, sorted by name and end.
func (a *Authority) Issued() ([]Issued, error) {
	dir := filepath.Join(a.dir, "issued")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []Issued
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".crt") {
			continue
		}
		c, err := readCertificate(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if c.CheckSignatureFrom(a.cert) != nil { // of an authority that was replaced
			continue
		}
		i := Issued{Certificate: c, Name: c.Subject.CommonName, Revoked: a.revoked(c.SerialNumber)}
		if units := c.Subject.OrganizationalUnit; len(units) == 1 {
			i.Use = Use(units[0])
		}
		all = append(all, i)
	}
	sortIssued(all)
	return all, nil
}

func sortIssued(all []Issued) {
	slices.SortFunc(all, func(x, y Issued) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), x.Certificate.NotAfter.Compare(y.Certificate.NotAfter), strings.Compare(x.Serial(), y.Serial()))
	})
}

// Find gives the certificates that a name or a serial number means and that have not ended: all of a name.
func (a *Authority) Find(what string) ([]Issued, error) {
	all, err := a.Issued()
	if err != nil {
		return nil, err
	}
	var found []Issued
	for _, i := range all {
		if (i.Name == what || i.Serial() == strings.ToLower(what)) && a.now.Before(i.Certificate.NotAfter) {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no certificate that is still good has the name or serial number %q: legation pki show %s lists them", what, a.dir)
	}
	return found, nil
}

// Due is, of each name and use, the certificate that ends last, where that is within the time and the last third of its life;
// none where all have been revoked.
func (a *Authority) Due(within time.Duration) ([]Issued, error) {
	all, err := a.Issued()
	if err != nil {
		return nil, err
	}
	type kind struct {
		use  Use
		name string
	}
	last := map[kind]Issued{}
	for _, i := range all { // by their end
		if !i.Revoked {
			last[kind{i.Use, i.Name}] = i
		}
	}
	var due []Issued
	for _, i := range last {
		c := i.Certificate
		if left := c.NotAfter.Sub(a.now); left <= within && left <= c.NotAfter.Sub(c.NotBefore)/3 {
			due = append(due, i)
		}
	}
	sortIssued(due)
	return due, nil
}

// Renew signs another certificate of the same names, for as long as the old one was good, with a new key, and writes both in
// the place of the old files. The old certificate stays good until its end.
func (a *Authority) Renew(old Issued, dir string) (Issued, error) {
	if old.Revoked {
		return Issued{}, fmt.Errorf("the certificate %s of %s is revoked: issue another", old.Serial(), old.Name)
	}
	o := Order{
		Use: old.Use, Name: old.Name, Dir: dir, Force: true,
		TTL: old.Certificate.NotAfter.Sub(old.Certificate.NotBefore.Add(backdate)), Hosts: slices.Clone(old.Certificate.DNSNames),
	}
	for _, ip := range old.Certificate.IPAddresses {
		o.Hosts = append(o.Hosts, ip.String())
	}
	if len(old.Certificate.URIs) == 1 {
		o.TrustDomain = old.Certificate.URIs[0].Host
	}
	return a.Issue(o)
}

// Serials is the numbers of certificates, to revoke them.
func Serials(all []Issued) []*big.Int {
	var numbers []*big.Int
	for _, i := range all {
		numbers = append(numbers, i.Certificate.SerialNumber)
	}
	return numbers
}

func readCertificate(path string) (*x509.Certificate, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := decode(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}
