package auth

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// maxRedirects is how often an answer may point elsewhere before a fetch is given up.
const maxRedirects = 3

// newClient makes the client that fetches key sets. Every address is judged when it is dialed, after DNS and for each
// redirect anew, and connections are not kept, so that no name can be rebound behind the check. No proxy is used.
func newClient(transport http.RoundTripper, roots *x509.CertPool) *http.Client {
	if transport == nil {
		transport = byScheme{
			https: newTransport(guard{}, roots),
			http:  newTransport(guard{loopbackOnly: true}, nil),
		}
	}
	return &http.Client{Transport: transport, CheckRedirect: checkRedirect}
}

// newPoster makes the client that asks issuers about tokens. What it sends is secret, so it goes nowhere but to the URL
// that was written. Its connections are kept: they stay with the address that was judged.
func newPoster(transport http.RoundTripper, roots *x509.CertPool) *http.Client {
	if transport == nil {
		kept := func(g guard, roots *x509.CertPool) *http.Transport {
			t := newTransport(g, roots)
			t.DisableKeepAlives, t.IdleConnTimeout, t.MaxIdleConnsPerHost = false, 30*time.Second, introspectMost
			return t
		}
		transport = byScheme{https: kept(guard{}, roots), http: kept(guard{loopbackOnly: true}, nil)}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return fetchError("redirected")
	}}
}

type byScheme struct{ https, http http.RoundTripper }

func (b byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return b.https.RoundTrip(r)
	}
	return b.http.RoundTrip(r)
}

func newTransport(g guard, roots *x509.CertPool) *http.Transport {
	return transportOver(&net.Dialer{Timeout: fetchTimeout, Control: g.control}, roots)
}

func transportOver(d *net.Dialer, roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    fetchTimeout,
		ResponseHeaderTimeout:  fetchTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// fetchError is a reason of ours not to fetch: it holds nothing that somebody else wrote.
type fetchError string

func (e fetchError) Error() string { return string(e) }

func checkRedirect(next *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fetchError("redirected too often")
	}
	if next.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https" {
		return fetchError("redirected from https to http")
	}
	return checkURL(next.URL.String())
}

// checkURL tells whether a key set may be fetched from there, as far as the text of the URL says. What its name stands
// for is judged when it is dialed.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || len(raw) > 2048 {
		return fetchError("the URL is not valid")
	}
	if u.User != nil || u.Fragment != "" {
		return fetchError("the URL may not hold a user or a fragment")
	}
	address, notLiteral := netip.ParseAddr(u.Hostname())
	if notLiteral == nil {
		if err := checkAddress(address); err != nil {
			return err
		}
	}
	loopback := u.Hostname() == "localhost" || notLiteral == nil && address.Unmap().IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return fetchError("the URL has to be https (http to loopback only)")
	}
	return nil
}

// guard judges an address in the moment it is connected to.
type guard struct{ loopbackOnly bool }

func (g guard) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fetchError("the address is not understood")
	}
	if g.loopbackOnly && !at.Addr().Unmap().IsLoopback() {
		return errNotLoopback
	}
	return checkAddress(at.Addr())
}

// forbidden are what metadata services live at, beside link-local addresses, and addresses that are no host's.
var forbidden = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.0/24"),       // Oracle (.192), protocol assignments
	netip.MustParsePrefix("240.0.0.0/4"),        // reserved, broadcast
	netip.MustParsePrefix("fd00:ec2::/32"),      // Amazon
	netip.MustParsePrefix("fd20:ce::/32"),       // Google
	netip.MustParsePrefix("fec0::/10"),          // site-local, long gone
	netip.MustParsePrefix("64:ff9b:1::/48"),     // local NAT64: any IPv4 address may hide in it
	netip.MustParsePrefix("2001::/32"),          // Teredo: the same
}

// checkAddress refuses addresses that no key set comes from, but that a server is easily tricked to ask. Loopback and
// private ranges are allowed: identity providers in the house live there.
func checkAddress(a netip.Addr) error {
	a = embedded(a.WithZone("").Unmap())
	if a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return errForbidden
	}
	for _, p := range forbidden {
		if p.Contains(a) {
			return errForbidden
		}
	}
	return nil
}

const (
	errForbidden   = fetchError("a link-local, metadata, multicast or reserved address is never asked")
	errNotLoopback = fetchError("http goes to loopback only")
)

// embedded is the IPv4 address that a gateway makes of a NAT64, 6to4 or IPv4-compatible one.
func embedded(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case netip.MustParsePrefix("::/96").Contains(a) && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:16]))
	}
	return a
}
