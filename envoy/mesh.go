package envoy

import (
	"regexp"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// This file is the mutual TLS between sidecars, and from gateways to them. Both sides show a certificate that names them,
// and take only one that names the other. It is renewed over SDS, while connections live on.

// peersTLS lets the peers of a sidecar in, and nobody else.
func peersTLS(c ListenerContext) *tlsv3.DownstreamTlsContext {
	common := Trust(c.Gateway.Mesh.CA, named(c.Listener.Peers))
	common.TlsParams = onlyTLS13()
	return &tlsv3.DownstreamTlsContext{
		CommonTlsContext:         common,
		RequireClientCertificate: wrapperspb.Bool(true),
		// A session that is taken up again is not asked for its certificate, whatever has become of it.
		SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
			DisableStatelessSessionResumption: true,
		},
		DisableStatefulSessionResumption: true,
	}
}

// secure has a gateway or a sidecar call a service by its sidecar. What stands in the way is told at the service: routes
// were checked before, but settings may send to services, too.
func (t *translation) secure(gw *policy.Gateway, s *policy.Service, cluster *clusterv3.Cluster, upstream *httpv3.HttpProtocolOptions) {
	wrong := func(message, hint string) { t.problem(s.Pos, "services."+s.Name, message, hint, gw.Pos) }
	switch {
	case cluster.TransportSocket != nil:
		wrong("the service has a sidecar, whose mutual TLS leaves no room for other TLS", "remove tls from the service")
		return
	case gw.Mesh == nil:
		wrong("the service has a sidecar, and the gateway "+gw.Name+", which sends to it, no certificate to show",
			"write mesh: {certificate: mesh/"+gw.Name+", ca: {secret: mesh/ca}} in gateways."+gw.Name)
		return
	case !s.Takes(gw):
		wrong("the service takes no calls from "+gw.Name+", which sends to it", "add "+gw.Name+" to sidecars."+s.Name+".inbound.peers")
		return
	}
	common := Trust(gw.Mesh.CA, named([]string{s.Sidecar.Name}))
	common.TlsParams = onlyTLS13()
	common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{Certificate(gw.Mesh.Certificate)}
	common.AlpnProtocols = alpnOf(upstream)
	cluster.TransportSocket = tlsSocket(&tlsv3.UpstreamTlsContext{
		CommonTlsContext: common,
		Sni:              s.Name,
		MaxSessionKeys:   wrapperspb.UInt32(0), // the other side takes none up again
	})
}

// identities is the gateways and sidecars that are known by a certificate, by the ID of its secret.
func identities(m *policy.Model) map[string][]string {
	owners := make(map[string][]string)
	for _, g := range m.Gateways {
		if g.Mesh != nil {
			id := (&policy.Secret{Kind: policy.CertificateSecret, Name: g.Mesh.Certificate}).ID()
			owners[id] = append(owners[id], g.Name)
		}
	}
	return owners
}

// ownIdentity refuses a listener or a cluster that would show the certificate by which somebody else is known: its gateway
// could call whom it is no peer of, and would hold the other's key.
func (t *translation) ownIdentity(gw *policy.Gateway, r Resource, secret string) {
	owners := t.identities[secret]
	if len(owners) == 0 || slices.Contains(owners, gw.Name) {
		return
	}
	path := "services." + r.Name
	if r.Type == resource.ListenerType {
		path = "gateways." + gw.Name + ".listeners." + r.Name
	}
	t.problem(r.Pos, path, "the certificate "+strings.TrimPrefix(secret, "certificate/")+" tells who "+owners[0]+" is among sidecars: "+
		gw.Name+" can't show it", "name another certificate; to call a service that has a sidecar, send to that service")
}

// named asks for a certificate with one of these names. They are compared as text: for exact DNS names Envoy would take
// a wildcard, which stands for any other gateway or sidecar as well.
func named(names []string) *tlsv3.CertificateValidationContext {
	rules := new(tlsv3.CertificateValidationContext)
	match := func(kind tlsv3.SubjectAltNameMatcher_SanType, regex string) {
		rules.MatchTypedSubjectAltNames = append(rules.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: kind,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: safeRegex(regex)}},
		})
	}
	for _, name := range names {
		match(tlsv3.SubjectAltNameMatcher_DNS, regexp.QuoteMeta(name))
		match(tlsv3.SubjectAltNameMatcher_URI, policy.MeshURI(name))
	}
	return rules
}

func onlyTLS13() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
}

// alpnOf is the one protocol that a service is spoken to in.
func alpnOf(upstream *httpv3.HttpProtocolOptions) []string {
	if upstream.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil {
		return []string{"h2"}
	}
	return []string{"http/1.1"}
}
