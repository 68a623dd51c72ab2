package tls

import (
	_ "embed"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed listener.md
var listenerDoc string

// ListenerKind is the key tls of a listener.
var ListenerKind = policy.Define[Listener]("tls", policy.InListener, listenerDoc)

// Listener is what stands under tls in a listener.
type Listener struct {
	MinVersion         *Version            `policy:"minVersion" doc:"the oldest TLS that is spoken; default: 1.2"`
	MaxVersion         *Version            `policy:"maxVersion" doc:"the newest TLS that is spoken; default: 1.3"`
	Ciphers            []Cipher            `policy:"ciphers" doc:"the ciphers of TLS 1.2, by OpenSSL's names; default: those with forward secrecy and AEAD"`
	Curves             []Curve             `policy:"curves" doc:"the groups that keys are agreed in, the preferred one first; default: X25519, P-256"`
	ClientCertificates *ClientCertificates `policy:"clientCertificates" doc:"whose certificates clients have to show"`
}

// ClientCertificates is what is asked of the certificates of clients.
type ClientCertificates struct {
	CA       policy.Authority `policy:"ca,required" doc:"who has to have signed them: {secret: NAME} or {file: ca.pem}"`
	Required *bool            `policy:"required" doc:"whether clients without one are refused; default: true"`
	Subjects []Name           `policy:"subjects" doc:"the names of which a certificate has to have one; default: any"`
	Forward  []Detail         `policy:"forward" doc:"what backends are told of it in x-forwarded-client-cert; default: nothing"`
}

// Detail is something about a certificate.
type Detail string

const (
	subject Detail = "subject"
	uri     Detail = "uri"
	dns     Detail = "dns"
	cert    Detail = "cert"
	chain   Detail = "chain"
)

// Values are what can be told.
func (Detail) Values() []string {
	return []string{string(subject), string(uri), string(dns), string(cert), string(chain)}
}

// required tells whether clients have to show a certificate.
func (c *ClientCertificates) required() bool { return policy.Or(c.Required, true) }

// Check holds the setting to listeners where TLS ends, and to what fits together.
func (s *Listener) Check(c *policy.Check) {
	listeners := c.Listeners()
	if len(listeners) == 0 {
		return
	}
	l := listeners[0]
	switch {
	case !ends(l) && l.Protocol == policy.TLS:
		c.Errorf("", "the listener passes TLS through: it ends at the backends").Hintf("give the listener certificates, or leave tls out")
	case !ends(l):
		c.Errorf("", "a listener of %s speaks no TLS", l.Protocol).Hintf("write protocol: HTTPS and certificates, or leave tls out")
	}
	s.checkVersions(c)
	if s.Ciphers != nil && len(s.Ciphers) == 0 {
		c.Errorf("ciphers", "name at least one cipher").Hintf("leave ciphers out for the default")
	}
	if s.Curves != nil && len(s.Curves) == 0 {
		c.Errorf("curves", "name at least one group").Hintf("leave curves out for the default")
	}
	for i, one := range s.Ciphers {
		if slices.Contains(weakCiphers, string(one)) {
			c.Warnf(policy.Item("ciphers", i), "%s is weak: it lacks forward secrecy or authenticated encryption, and HTTP/2 forbids it", one).
				Hintf("keep it only for clients that know no other")
		}
	}
	if s.ClientCertificates != nil {
		s.ClientCertificates.check(c, l)
	}
}

func (s *Listener) checkVersions(c *policy.Check) {
	if s.MinVersion != nil && s.MaxVersion != nil && *s.MinVersion > *s.MaxVersion {
		c.Errorf("minVersion", "is newer than maxVersion: no client could connect").Hintf("write minVersion: %q", string(*s.MaxVersion))
	}
	if len(s.Ciphers) > 0 && s.MinVersion != nil && *s.MinVersion == "1.3" {
		c.Errorf("ciphers", "are those of TLS 1.2, which minVersion excludes; those of TLS 1.3 can't be chosen").Hintf("leave ciphers out")
	}
}

func (cc *ClientCertificates) check(c *policy.Check, l *policy.Listener) {
	const at = "clientCertificates."
	if cc.CA.System {
		c.Errorf(at+"ca", "the authorities of the system sign certificates for anybody: every client would be let in").
			Hintf("name your own: ca: {secret: tls/clients} or ca: {file: clients.pem}")
	} else {
		c.Authority(at+"ca", &cc.CA)
	}
	if cc.Subjects != nil && len(cc.Subjects) == 0 {
		c.Errorf(at+"subjects", "name at least one").Hintf("leave subjects out for all that the authority has signed")
	}
	if len(cc.Subjects) > 0 && !cc.required() {
		c.Errorf(at+"subjects", "with subjects every client needs a certificate: Envoy knows no other way").
			Hintf("leave required: false out, or match x-legation-peer in routes instead of subjects")
	}
	switch {
	case cc.Forward != nil && len(cc.Forward) == 0:
		c.Errorf(at+"forward", "name something to tell").Hintf("leave forward out to tell backends nothing")
	case len(cc.Forward) > 0 && !l.HTTP():
		c.Errorf(at+"forward", "is told in a header, and a listener of %s knows of no headers", l.Protocol).Hintf("leave forward out")
	}
}

// ends tells whether TLS ends at a listener.
func ends(l *policy.Listener) bool {
	return l.Protocol == policy.HTTPS || l.Protocol == policy.TLS && len(l.Certificates) > 0
}

// DownstreamTLS tells Envoy what may be spoken, and whom to let in.
func (s *Listener) DownstreamTLS(envoy.ListenerContext) *tlsv3.DownstreamTlsContext {
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsParams: &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: s.MinVersion.envoy(),
		TlsMaximumProtocolVersion: s.MaxVersion.envoy(),
		CipherSuites:              texts(s.Ciphers),
		EcdhCurves:                texts(s.Curves),
	}}}
	if cc := s.ClientCertificates; cc != nil {
		trust := envoy.Trust(cc.CA, &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: matchers(cc.Subjects)})
		context.CommonTlsContext.ValidationContextType = trust.ValidationContextType
		context.RequireClientCertificate = wrapperspb.Bool(cc.required())
		// A session that is taken up again would not be asked for its certificate for up to two days, whatever has
		// become of it.
		context.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
			DisableStatelessSessionResumption: true,
		}
		context.DisableStatefulSessionResumption = true
	}
	return context
}

// VerifiesClients tells whether the certificates of clients are asked for, and verified.
func (s *Listener) VerifiesClients() bool { return s.ClientCertificates != nil }

// HTTP tells routes, limits and backends who the client is.
func (s *Listener) HTTP(envoy.ListenerContext) *hcmv3.HttpConnectionManager {
	if s.ClientCertificates == nil {
		return nil
	}
	manager := &hcmv3.HttpConnectionManager{
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{peerMutation()},
	}
	if details := s.ClientCertificates.Forward; len(details) > 0 {
		manager.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		manager.SetCurrentClientCertDetails = forwarded(details)
	}
	return manager
}

func forwarded(details []Detail) *hcmv3.HttpConnectionManager_SetCurrentClientCertDetails {
	told := func(d Detail) bool { return slices.Contains(details, d) }
	set := &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
		Uri: told(uri), Dns: told(dns), Cert: told(cert), Chain: told(chain),
	}
	if told(subject) {
		set.Subject = wrapperspb.Bool(true)
	}
	return set
}
