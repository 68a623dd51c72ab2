package tls

import (
	_ "embed"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed service.md
var serviceDoc string

// ServiceKind is the key tls of a service.
var ServiceKind = policy.Define[Service]("tls", policy.InService, serviceDoc)

// Service is what stands under tls in a service.
type Service struct {
	Hostname        string            `policy:"hostname" doc:"the name that the service is asked for (SNI) and that its certificate has to have; default: the service's dns name"`
	CA              *policy.Authority `policy:"ca" doc:"who has to have signed its certificate: system, {secret: NAME} or {file: ca.pem}; default: system"`
	SubjectAltNames []Name            `policy:"subjectAltNames" doc:"the names of which its certificate has to have one, in place of hostname"`
	Certificate     *Certificate      `policy:"certificate" doc:"what Envoy shows when the service asks for a certificate: {secret: NAME}"`
	MinVersion      *Version          `policy:"minVersion" doc:"the oldest TLS that is spoken; default: 1.2"`
	Verify          *bool             `policy:"verify" doc:"false believes whoever answers; default: true"`
}

// Certificate is one of the secrets.
type Certificate struct {
	Secret policy.SecretName `policy:"secret,required" doc:"the certificate's chain and its key are NAME.crt and NAME.key among the secrets"`
}

// DecodePolicy reads true, or a map.
func (s *Service) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, s, "write tls: {hostname: api.internal}, or leave tls out for plain text")
}

// PolicySchema describes both forms.
func (s *Service) PolicySchema(schemas *policy.Schemas) map[string]any {
	return policy.TrueOr(schemas.Of(s))
}

func (s *Service) verifies() bool { return policy.Or(s.Verify, true) }

// Check wants to know who is to answer, unless that is said not to matter.
func (s *Service) Check(c *policy.Check) {
	if s.Hostname != "" && !isHost(strings.ToLower(s.Hostname)) {
		c.Errorf("hostname", "%q is no host name", s.Hostname).
			Hintf(`an address, or a name such as "*.internal", stands in subjectAltNames: [{ip: 10.0.0.1}]`)
	}
	if s.Certificate != nil {
		c.Certificate("certificate.secret", string(s.Certificate.Secret))
	}
	if s.CA != nil {
		c.Authority("ca", s.CA)
	}
	if s.SubjectAltNames != nil && len(s.SubjectAltNames) == 0 {
		c.Errorf("subjectAltNames", "name at least one").Hintf("leave it out to compare hostname")
	}
	if !s.verifies() {
		s.checkBlind(c)
		return
	}
	if s.Hostname == "" && s.SubjectAltNames == nil && c.Service().DNS == nil {
		c.Errorf("", "which name does the certificate of the endpoints have? Only dns tells by itself").
			Hintf("write tls: {hostname: api.internal}")
	}
}

// checkBlind tells what it means to verify nothing.
func (s *Service) checkBlind(c *policy.Check) {
	c.Warnf("verify", "whoever answers is believed: what is sent can be read and changed on the way").
		Hintf("name who has signed the certificate: ca: {file: ca.pem}")
	const why = "is not looked at with verify: false"
	if s.CA != nil {
		c.Errorf("ca", why).Hintf("leave one of the two out")
	}
	if len(s.SubjectAltNames) > 0 {
		c.Errorf("subjectAltNames", why).Hintf("leave one of the two out")
	}
}

// Cluster has Envoy speak TLS to the endpoints, for requests, connections and health checks alike. What ALPN offers goes by
// the protocol of the service, which Envoy sees to.
func (s *Service) Cluster(c envoy.ServiceContext) *clusterv3.Cluster {
	context := &tlsv3.UpstreamTlsContext{
		Sni:              s.hostname(c.Service),
		CommonTlsContext: new(tlsv3.CommonTlsContext),
	}
	if s.verifies() {
		context.CommonTlsContext = envoy.Trust(policy.Or(s.CA, policy.Authority{System: true}), &tlsv3.CertificateValidationContext{
			MatchTypedSubjectAltNames: matchers(s.names(c.Service)),
		})
	}
	context.CommonTlsContext.TlsParams = &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: s.minVersion(),
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, // towards servers Envoy's default ends at 1.2
	}
	if s.Certificate != nil {
		context.CommonTlsContext.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{envoy.Certificate(string(s.Certificate.Secret))}
	}
	return &clusterv3.Cluster{TransportSocket: &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: envoy.Pack(context)},
	}}
}

// hostname is fixed for the service: a name that came from the request would let the client choose whom to believe.
func (s *Service) hostname(service *policy.Service) string {
	if s.Hostname == "" && service.DNS != nil {
		return service.DNS.Host
	}
	return strings.ToLower(s.Hostname)
}

// names is what the certificate is compared with.
func (s *Service) names(service *policy.Service) []Name {
	if len(s.SubjectAltNames) > 0 {
		return s.SubjectAltNames
	}
	return []Name{{kind: tlsv3.SubjectAltNameMatcher_DNS, value: s.hostname(service)}}
}

func (s *Service) minVersion() tlsv3.TlsParameters_TlsProtocol {
	if s.MinVersion == nil {
		return tlsv3.TlsParameters_TLSv1_2
	}
	return s.MinVersion.envoy()
}
