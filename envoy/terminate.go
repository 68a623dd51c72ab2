package envoy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/wellknown"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// This file is how TLS ends at a listener: which certificate is shown to whom, and with what the bytes are encrypted.

// ciphers of TLS 1.2: Mozilla's intermediate list without those that need Diffie-Hellman parameters. Those of TLS 1.3
// can't be chosen.
var ciphers = []string{
	"ECDHE-ECDSA-AES128-GCM-SHA256",
	"ECDHE-RSA-AES128-GCM-SHA256",
	"ECDHE-ECDSA-AES256-GCM-SHA384",
	"ECDHE-RSA-AES256-GCM-SHA384",
	"ECDHE-ECDSA-CHACHA20-POLY1305",
	"ECDHE-RSA-CHACHA20-POLY1305",
}

// handshakeTimeout is how long a client may take for its TLS handshake; Envoy by itself waits for ever.
var handshakeTimeout = durationpb.New(10 * time.Second)

// anyName is the pattern of names that a certificate without a hostname and a route for "*" stand for.
const anyName = "*"

// certificates is those of a listener by the server names that they are for: some for one name, such as RSA and ECDSA,
// are offered together, and Envoy takes the one that the client can read.
type certificates struct {
	names []string            // patterns: a name, *.name, or "*"; sorted
	by    map[string][]string // names of secrets
}

func certificatesOf(c ListenerContext) certificates {
	all := certificates{by: make(map[string][]string)}
	for _, one := range c.Listener.Certificates {
		name := cmp.Or(strings.ToLower(one.Hostname), anyName)
		if all.by[name] == nil {
			all.names = append(all.names, name)
		}
		all.by[name] = append(all.by[name], one.Secret)
	}
	slices.Sort(all.names)
	return all
}

// httpsChains is a filter chain for each server name that there is a certificate for. A chain is named by it, so that
// another certificate adds a chain and leaves the connections of the others alone.
func (t *translation) httpsChains(c ListenerContext, filters []*listenerv3.Filter) []*listenerv3.FilterChain {
	certs := certificatesOf(c)
	if len(certs.names) == 0 {
		t.problem(c.Listener.Pos, c.path(), "a listener of HTTPS needs a certificate", "add certificates: [{secret: NAME}]")
	}
	var chains []*listenerv3.FilterChain
	for _, name := range certs.names {
		socket := t.downstreamTLS(c, certs.by[name], "h2", "http/1.1")
		chains = append(chains, sniChains(name, []string{name}, filters, socket)...)
	}
	return chains
}

// sniChains is the filter chain for clients that ask for one of some server names: a name, or *.name. For those that ask
// for none of any chain, or for no name, which is "*", it is another one. Without a socket TLS does not end here.
func sniChains(
	name string, serverNames []string, filters []*listenerv3.Filter, socket *corev3.TransportSocket,
) []*listenerv3.FilterChain {
	named := slices.DeleteFunc(slices.Clone(serverNames), func(n string) bool { return n == anyName })
	slices.Sort(named)
	var chains []*listenerv3.FilterChain
	if len(named) > 0 {
		chains = append(chains, &listenerv3.FilterChain{
			Name:             name,
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "tls", ServerNames: named},
		})
	}
	if len(named) < len(serverNames) {
		if len(named) > 0 {
			name += "/" + anyName
		}
		chains = append(chains, &listenerv3.FilterChain{
			Name:             name,
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "tls"}, // nothing else is passed on as if it were
		})
	}
	for _, chain := range chains {
		chain.Filters = filters
		if socket != nil {
			chain.TransportSocket, chain.TransportSocketConnectTimeout = socket, handshakeTimeout
		}
	}
	return chains
}

// downstreamTLS ends TLS with certificates, and with what the settings of the gateway and the listener say.
func (t *translation) downstreamTLS(c ListenerContext, secrets []string, alpn ...string) *corev3.TransportSocket {
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsParams: &tlsv3.TlsParameters{}}}
	for _, name := range secrets {
		common := context.CommonTlsContext
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, Certificate(name))
	}
	for s := range contributions[TLSContributor](c) {
		if m := s.DownstreamTLS(c); m != nil {
			overlay(context, m)
		}
	}
	if len(c.Listener.Peers) > 0 { // after the settings: none of them lets anybody else in
		overlay(context, peersTLS(c))
	}
	fillTLS(context.CommonTlsContext, alpn)
	if err := context.ValidateAll(); err != nil {
		t.problem(c.Listener.Pos, c.path(), "Envoy would refuse this: "+err.Error(), "")
	}
	return tlsSocket(context)
}

// fillTLS is what holds where no setting says otherwise.
func fillTLS(common *tlsv3.CommonTlsContext, alpn []string) {
	p := common.TlsParams
	p.TlsMinimumProtocolVersion = cmp.Or(p.TlsMinimumProtocolVersion, tlsv3.TlsParameters_TLSv1_2)
	p.TlsMaximumProtocolVersion = cmp.Or(p.TlsMaximumProtocolVersion, tlsv3.TlsParameters_TLSv1_3)
	if len(p.CipherSuites) == 0 {
		p.CipherSuites = ciphers
	}
	if len(common.AlpnProtocols) == 0 {
		common.AlpnProtocols = alpn
	}
}

func tlsSocket(context proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       wellknown.TransportSocketTLS,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: Pack(context)},
	}
}

// path is where a listener stands in the policy.
func (c ListenerContext) path() string {
	return "gateways." + c.Gateway.Name + ".listeners." + c.Listener.Name
}

// nearest is the pattern that Envoy takes for a name: the longest of those that it falls under, where *.name is for
// anything below, at any depth. It is empty when there is none.
func nearest[T any](patterns map[string]T, name string) string {
	if _, ok := patterns[name]; ok {
		return name
	}
	for _, below, more := strings.Cut(name, "."); more; _, below, more = strings.Cut(below, ".") {
		if _, ok := patterns["*."+below]; ok {
			return "*." + below
		}
	}
	if _, ok := patterns[anyName]; ok {
		return anyName
	}
	return ""
}
