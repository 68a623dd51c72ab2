package app

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/legation/legation/nodes"
	"github.com/legation/legation/xds"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// serveXDS makes the port that Envoys have their configuration from.
func (p *process) serveXDS() error {
	if !p.o.has(XDS) {
		return nil
	}
	o := xds.Options{Log: p.o.Log, Metrics: p.metrics, OnNACK: func(xds.NodeStatus) { p.control.Refused() }}
	optional := never
	if p.o.Nodes != "" {
		gate, err := nodes.New(nodes.Options{
			Path: p.o.Nodes, NeedTokens: p.o.TLSCA == "", Log: p.o.Log, Changed: func() { p.xds.Recheck() },
			Refused: func(address string, err error) { p.refusals.tell("token of an envoy refused", address, err) },
		})
		if err != nil {
			return usagef("--nodes: %w", err)
		}
		p.nodes, o.Identify, optional = gate, gate.Identify, gate.Tokens
	}
	p.xds = xds.New(o)
	p.loads = xds.NewLoads(p.xds, xds.LoadOptions{Log: p.o.Log, Metrics: p.metrics})
	server := newGRPC(p.credentials(optional), p.o.age(p.o.XDSAddress), append(xds.ServerOptions(), grpc.StreamInterceptor(knownOnly(o.Identify)))...)
	p.addGRPC("xDS", "--xds-address", p.o.XDSAddress, server, p.xds.Register, p.loads.Register)
	return nil
}

// serverTLS is what a port speaks; nil: plain text.
func (p *process) serverTLS(optional func() bool) *tls.Config {
	if p.tls == nil {
		return nil
	}
	return p.tls.server(optional)
}

// knownOnly ends the streams of those whom nobody knows, whatever service they ask; nil knows by the handshake alone. What a
// service gives to whom, and for how long, it decides itself.
func knownOnly(identify func(context.Context) (xds.Identity, error)) grpc.StreamServerInterceptor {
	return func(srv any, str grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if identify != nil {
			if _, err := identify(str.Context()); err != nil {
				return err
			}
		}
		return handle(srv, str)
	}
}

// credentials is serverTLS for grpc-go.
func (p *process) credentials(optional func() bool) credentials.TransportCredentials {
	if p.tls == nil {
		return nil
	}
	return tellingCredentials{credentials.NewTLS(p.tls.server(optional)), &p.refusals}
}

// tellingCredentials tell of handshakes that fail, of which grpc-go says nothing.
type tellingCredentials struct {
	credentials.TransportCredentials
	refusals *refusals
}

// ServerHandshake does it.
func (t tellingCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := t.TransportCredentials.ServerHandshake(c)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) { // who only looks whether the port is open
		t.refusals.tell("handshake refused", c.RemoteAddr().String(), err)
	}
	return secure, info, err
}

// Clone is for grpc-go.
func (t tellingCredentials) Clone() credentials.TransportCredentials {
	return tellingCredentials{t.TransportCredentials.Clone(), t.refusals}
}

// refusals tells the log who was not let in, once a second at most: anybody may try.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	told   time.Time
	untold int
}

func (r *refusals) tell(what, address string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.told) < time.Second {
		r.untold++
		return
	}
	r.log.Warn(what, "address", address, "error", err, "untold", r.untold)
	r.told, r.untold = now, 0
}

// audience is whom a gRPC port answers, "" for another port.
func (p *process) audience(port string) string {
	local := Local(p.address(port))
	switch {
	case port != "xDS" && port != "companion":
		return ""
	case port == "xDS" && p.nodes != nil && p.nodes.Tokens() && p.o.TLSCA == "":
		return "Envoys with a token"
	case port == "xDS" && p.nodes != nil && p.nodes.Tokens():
		return "Envoys with a certificate or a token"
	case p.o.TLSCA != "":
		return "Envoys with a certificate"
	case local:
		return "every process of this machine, and no other"
	default:
		return "everybody: --insecure"
	}
}

// access is what keeps Envoys that should be known from being known.
func (p *process) access() (degraded []string) {
	if p.tls != nil {
		if err := p.tls.problem(); err != nil {
			degraded = append(degraded, "tls: the last good certificates are in use: "+err.Error())
		}
	}
	if p.nodes == nil {
		return degraded
	}
	if err := p.nodes.Wrong(); err != nil {
		degraded = append(degraded, "nodes: the last good file is in use: "+firstLine(err.Error()))
	}
	for _, k := range p.nodes.Health() {
		if k.Error != "" {
			degraded = append(degraded, "nodes: keys: "+k.URL+": "+k.Error)
		}
	}
	return degraded
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
