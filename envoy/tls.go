package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/policy"
)

// clientTLS is how Envoy proves to Legation which Envoy it is, and checks that it talks to Legation: the server's
// certificate has to name the host that was dialled. Nil without certificate files.
func clientTLS(o BootstrapOptions, endpoints []policy.Endpoint) *corev3.TransportSocket {
	if o.TLSCert == "" && o.TLSKey == "" && o.TLSCA == "" {
		return nil
	}
	common := &tlsv3.CommonTlsContext{
		TlsParams:     onlyTLS13(), // towards servers Envoy's AUTO ends at 1.2
		AlpnProtocols: []string{"h2"},
		TlsCertificates: []*tlsv3.TlsCertificate{{
			CertificateChain: file(o.TLSCert),
			PrivateKey:       file(o.TLSKey),
		}},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa:                 file(o.TLSCA),
				MatchTypedSubjectAltNames: subjects(endpoints),
			},
		},
	}
	return tlsSocket(&tlsv3.UpstreamTlsContext{Sni: serverName(endpoints), CommonTlsContext: common})
}

// subjects is the names that the servers' certificates may have.
func subjects(endpoints []policy.Endpoint) []*tlsv3.SubjectAltNameMatcher {
	var all []*tlsv3.SubjectAltNameMatcher
	for _, e := range endpoints {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if _, err := netip.ParseAddr(e.Host); err == nil {
			kind = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
		}
		all = append(all, &tlsv3.SubjectAltNameMatcher{
			SanType: kind,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: e.Host}},
		})
	}
	return all
}

// serverName is the first host that has a name; addresses are not sent as one.
func serverName(endpoints []policy.Endpoint) string {
	for _, e := range endpoints {
		if _, err := netip.ParseAddr(e.Host); err != nil {
			return e.Host
		}
	}
	return ""
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}
