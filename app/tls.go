package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// portTLS is the server side of TLS of the gRPC ports, from three PEM files. They are read again when they change, so that
// certificates rotate without a restart; a broken set leaves the last good one in use. Connections whose client certificate
// is good no longer are ended.
type portTLS struct {
	cert, key, ca string // no ca: client certificates are not asked for
	log           *slog.Logger

	mu      sync.Mutex     // guards what follows
	tried   [3]os.FileInfo // the three as they were tried last
	current *trust
	wrong   error               // with the files as they are now
	open    map[string]*guarded // connections, by the addresses of both ends
}

func newPortTLS(cert, key, ca string, log *slog.Logger) (*portTLS, error) {
	p := &portTLS{cert: cert, key: key, ca: ca, log: cmp.Or(log, slog.New(slog.DiscardHandler)), open: map[string]*guarded{}}
	if _, err := p.trust(); err != nil {
		return nil, err
	}
	return p, nil
}

// server is the configuration to serve with. A client certificate is needed unless optional says otherwise, and is checked
// in any case. No session is taken up again: it would go on by a certificate that was judged by other files.
func (p *portTLS) server(optional func() bool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		t, err := p.trust()
		if err != nil {
			return nil, err
		}
		ask := tls.RequireAndVerifyClientCert
		switch {
		case t.pool == nil:
			ask = tls.NoClientCert
		case optional():
			ask = tls.VerifyClientCertIfGiven
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, SessionTicketsDisabled: true,
			Certificates: []tls.Certificate{t.pair}, ClientCAs: t.pool, ClientAuth: ask,
			VerifyConnection: func(s tls.ConnectionState) error { return p.admit(hello.Conn, s.PeerCertificates) },
		}, nil
	}}
}

// never is for ports where a client certificate is needed.
func never() bool { return false }

// admit ends the handshake of a client whose certificate is revoked, and keeps an eye on the others.
func (p *portTLS) admit(c net.Conn, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.current.verify(chain, time.Now()); err != nil { // the files may have changed since the handshake began
		return err
	}
	if g := p.open[ends(c)]; g != nil {
		g.chain = chain
	}
	return nil
}

// trust is what is in use, after a look at the files.
func (p *portTLS) trust() (*trust, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.changed() && p.current != nil {
		return p.current, nil
	}
	next, err := readTrust(p.cert, p.key, p.ca)
	p.wrong = err
	switch {
	case err == nil:
		if p.current != nil {
			p.log.Info("tls certificates read again", "cert", p.cert)
		}
		p.current = next
	case p.current == nil:
		return nil, err
	default: // told once for each change of the files
		p.log.Error("tls certificates not read again: the last good ones stay in use", "error", err)
	}
	return p.current, nil
}

// problem is what keeps the files as they are now from being used.
func (p *portTLS) problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wrong
}

// changed tells whether the files are others than those that were tried last, or have other content. One that is put in
// place may well be older than the one before it.
func (p *portTLS) changed() bool {
	changed := false
	for i, path := range []string{p.cert, p.key, p.ca} {
		if path == "" {
			continue
		}
		now, err := os.Stat(path)
		if err != nil {
			now = nil
		}
		was := p.tried[i]
		p.tried[i] = now
		switch {
		case was == nil || now == nil:
			changed = changed || was != now
		case !os.SameFile(was, now) || !was.ModTime().Equal(now.ModTime()) || was.Size() != now.Size():
			changed = true
		}
	}
	return changed
}

// watch looks at the files each second, ends the connections whose client certificate is good no longer, and warns of what
// is about to end, until ctx does.
func (p *portTLS) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var swept *trust
	var warned time.Time
	for {
		t, err := p.trust()
		now := time.Now()
		if err == nil {
			p.sweep(t, t != swept, now)
		}
		if err == nil && (t != swept || now.Sub(warned) >= 24*time.Hour) {
			p.warn(t, now)
			warned = now
		}
		swept = t
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep ends connections by certificates that have expired or, after a change of the files, are trusted no longer.
func (p *portTLS) sweep(t *trust, changed bool, now time.Time) {
	p.mu.Lock()
	chains := map[*guarded][]*x509.Certificate{}
	for _, g := range p.open {
		if len(g.chain) > 0 && (changed || now.After(g.chain[0].NotAfter)) {
			chains[g] = g.chain
		}
	}
	p.mu.Unlock()
	for g, chain := range chains {
		if err := t.verify(chain, now); err != nil {
			p.log.Warn("connection ended: its certificate is good no longer", "address", g.RemoteAddr().String(), "names", namesOf(chain[0]), "error", err)
			_ = g.Close()
		}
	}
}

// namesOf is the names by which a certificate lets its bearer in.
func namesOf(c *x509.Certificate) []string {
	names := append([]string{}, c.DNSNames...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}

// soon is how long before the end of a certificate that is warned of.
const soon = 14 * 24 * time.Hour

func (p *portTLS) warn(t *trust, now time.Time) {
	own, ca := t.ends()
	for file, end := range map[string]time.Time{p.cert: own, p.ca: ca} {
		if !end.IsZero() && end.Sub(now) < soon {
			p.log.Warn("tls certificate is about to end", "file", file, "ends", end.UTC().Format(time.RFC3339))
		}
	}
	if since := t.overdue(now); !since.IsZero() {
		p.log.Warn("revocation list is overdue: it still counts, but newer revocations are unknown", "file", p.ca, "since", since.UTC().Format(time.RFC3339))
	}
}

var tlsEnds = prometheus.NewDesc("legation_app_tls_expiry_timestamp_seconds",
	"When the first of the certificates in the file ends, by which the gRPC ports speak TLS.", []string{"file"}, nil)

// Describe is for the registry.
func (p *portTLS) Describe(to chan<- *prometheus.Desc) { to <- tlsEnds }

// Collect is for the registry.
func (p *portTLS) Collect(to chan<- prometheus.Metric) {
	p.mu.Lock()
	own, ca := p.current.ends()
	p.mu.Unlock()
	for file, end := range map[string]time.Time{"cert": own, "ca": ca} {
		if !end.IsZero() {
			to <- prometheus.MustNewConstMetric(tlsEnds, prometheus.GaugeValue, float64(end.Unix()), file)
		}
	}
}

// guard has the connections of a listener ended when their certificate is good no longer.
func (p *portTLS) guard(l net.Listener) net.Listener { return guard{l, p} }

type guard struct {
	net.Listener
	tls *portTLS
}

// Accept waits for the next connection.
func (g guard) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	g.tls.mu.Lock()
	defer g.tls.mu.Unlock()
	kept := &guarded{TCPConn: tcp, tls: g.tls}
	g.tls.open[ends(tcp)] = kept
	return kept, nil
}

// guarded is a connection that is known until it is closed.
type guarded struct {
	*net.TCPConn
	tls   *portTLS
	chain []*x509.Certificate // what the client has shown; guarded by portTLS.mu
}

// Close ends the connection.
func (g *guarded) Close() error {
	g.tls.mu.Lock()
	if at := ends(g); g.tls.open[at] == g { // another may have the address by now
		delete(g.tls.open, at)
	}
	g.tls.mu.Unlock()
	return g.TCPConn.Close()
}

func ends(c net.Conn) string { return c.RemoteAddr().String() + " " + c.LocalAddr().String() }
