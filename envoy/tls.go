package envoy

import (
	"net/netip"
	"path"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
)

// clientTLS is how Envoy proves to Legation which Envoy it is, and checks that it talks to Legation: the server's
// certificate has to name the host that was dialled. Nil without certificate files.
func clientTLS(o BootstrapOptions, endpoints []policy.Endpoint) *corev3.TransportSocket {
	if o.TLSCA == "" {
		return nil
	}
	common := &tlsv3.CommonTlsContext{
		TlsParams:     onlyTLS13(), // towards servers Envoy's AUTO ends at 1.2
		AlpnProtocols: []string{"h2"},
	}
	rules := &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: subjects(endpoints)}
	if o.SDS == "" {
		rules.TrustedCa = file(o.TLSCA)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: rules}
	} else {
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         rules,
				ValidationContextSdsSecretConfig: fileSDS(o, authoritiesFile),
			},
		}
	}
	switch {
	case o.TLSCert == "":
	case o.SDS == "":
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(o.TLSCert), PrivateKey: file(o.TLSKey)}}
	default:
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{fileSDS(o, certificateFile)}
	}
	return tlsSocket(&tlsv3.UpstreamTlsContext{Sni: serverName(endpoints), CommonTlsContext: common})
}

// The files of [BootstrapOptions.SDS].
const (
	certificateFile = "certificate.json"
	authoritiesFile = "authorities.json"
	tokenFile       = "token.json"
)

// fileSDS has Envoy read a secret through a file, which has it watch the files that are named there.
func fileSDS(o BootstrapOptions, name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{
		Name: "legation/" + strings.TrimSuffix(name, ".json"),
		SdsConfig: &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{
				PathConfigSource: &corev3.PathConfigSource{Path: path.Join(o.SDS, name)},
			},
		},
	}
}

// BootstrapSecrets is the files of [BootstrapOptions.SDS], by name. They hold the paths of certificates, and no secret. What
// is moved into the directory of a certificate has Envoy read it again: the file itself, or a link as mounted secrets have.
func BootstrapSecrets(o BootstrapOptions) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, secret := range map[string]*tlsv3.Secret{
		certificateFile: {Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: file(o.TLSCert), PrivateKey: file(o.TLSKey),
			WatchedDirectory: &corev3.WatchedDirectory{Path: path.Dir(o.TLSCert)},
		}}},
		authoritiesFile: {Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: file(o.TLSCA), WatchedDirectory: &corev3.WatchedDirectory{Path: path.Dir(o.TLSCA)},
		}}},
		tokenFile: {Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{Secret: &corev3.DataSource{
			Specifier: &corev3.DataSource_Filename{Filename: o.TokenFile}, WatchedDirectory: &corev3.WatchedDirectory{Path: path.Dir(o.TokenFile)},
		}}}},
	} {
		if name == certificateFile && o.TLSCert == "" || name == tokenFile && o.TokenFile == "" || o.TLSCA == "" {
			continue
		}
		secret.Name = fileSDS(o, name).GetName()
		text, err := JSON(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{Pack(secret)}})
		if err != nil {
			return nil, err
		}
		files[name] = append(text, '\n')
	}
	return files, nil
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
