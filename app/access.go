package app

import (
	"crypto/tls"
	"strings"

	"github.com/legation/legation/nodes"
	"github.com/legation/legation/xds"
)

// serveXDS makes the port that Envoys have their configuration from.
func (p *process) serveXDS() error {
	if !p.o.has(XDS) {
		return nil
	}
	o := xds.Options{Log: p.o.Log, Metrics: p.metrics}
	optional := never
	if p.o.Nodes != "" {
		gate, err := nodes.New(nodes.Options{
			Path: p.o.Nodes, NeedTokens: p.o.TLSCA == "", Log: p.o.Log, Changed: func() { p.xds.Recheck() },
		})
		if err != nil {
			return usagef("--nodes: %w", err)
		}
		p.nodes, o.Identify, optional = gate, gate.Identify, gate.Tokens
	}
	p.xds = xds.New(o)
	p.addGRPC("xDS", "--xds-address", p.o.XDSAddress, newGRPC(p.serverTLS(optional), p.o.age(p.o.XDSAddress)), p.xds.Register)
	return nil
}

// serverTLS is what a port speaks; nil: plain text.
func (p *process) serverTLS(optional func() bool) *tls.Config {
	if p.tls == nil {
		return nil
	}
	return p.tls.server(optional)
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
