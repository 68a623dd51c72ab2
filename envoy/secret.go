package envoy

import (
	"bytes"
	"maps"
	"path/filepath"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// systemAuthorities is where Envoy's host keeps the certificates that it trusts.
const systemAuthorities = "/etc/ssl/certs/ca-certificates.crt"

// Certificate refers to a certificate and its key: [policy.Secret.Name] of one of the model's. A listener does not open,
// or the one before it goes on serving, until its certificates are there; so it is with clusters.
func Certificate(name string) *tlsv3.SdsSecretConfig {
	return sds((&policy.Secret{Kind: policy.CertificateSecret, Name: name}).ID())
}

// Trust has the other side show a certificate that an authority has signed and that the rules hold for; nil is no
// further rules. It is to be merged into a TLS context. The authorities of the system Envoy reads itself.
func Trust(a policy.Authority, rules *tlsv3.CertificateValidationContext) *tlsv3.CommonTlsContext {
	all := new(tlsv3.CertificateValidationContext)
	if rules != nil {
		overlay(all, rules)
	}
	if a.ID() == "" {
		all.TrustedCa = file(systemAuthorities)
		return &tlsv3.CommonTlsContext{
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: all},
		}
	}
	return &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         all,
				ValidationContextSdsSecretConfig: sds(a.ID()),
			},
		},
	}
}

// sds asks for a secret in one and the same way for all listeners and clusters. Had one of them another bound of the
// wait, Envoy would subscribe to the secret twice over the one stream, and the second would never get it.
func sds(id string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: id, SdsConfig: ads(forever)}
}

// asksOf finds the secrets that a listener or a cluster asks for.
func asksOf(r Resource) asks {
	a := asks{Resource: r}
	walk(r.Message, func(m proto.Message) bool {
		if s, ok := m.(*tlsv3.SdsSecretConfig); ok && s.GetSdsConfig().GetAds() != nil {
			a.secrets = append(a.secrets, s.Name)
		}
		return false
	})
	return a
}

// secretsOf is the secrets that a gateway's listeners and clusters ask for. What is in them joins no other resource, so
// that one that is renewed is sent alone, and changes no listener and no cluster.
func (t *translation) secretsOf(gw *policy.Gateway, asking []asks) []Resource {
	asked := make(map[string]bool)
	for _, a := range asking {
		for _, id := range a.secrets {
			asked[id] = true
			t.ownIdentity(gw, a.Resource, id)
		}
	}
	var found []Resource
	for _, id := range slices.Sorted(maps.Keys(asked)) {
		s := t.model.Secret(id)
		if s == nil {
			t.problem(gw.Pos, "gateways."+gw.Name, "Envoy would wait for the secret "+id+", which no setting refers to", "")
			continue
		}
		found = append(found, t.secret(s))
	}
	return found
}

// secret makes a secret once, if one of the same contents was not made before.
func (t *translation) secret(s *policy.Secret) Resource {
	id := s.ID()
	made, known := t.secrets[id]
	if !known && t.before != nil {
		made, known = t.before.secrets[id]
	}
	if !known || !bytes.Equal(made.value, s.Value) || !bytes.Equal(made.key, s.Key) {
		made = secretMade{s.Value, s.Key, t.valid(Resource{Type: resource.SecretType, Name: id, Message: secretOf(s), Pos: s.Pos})}
	}
	made.resource.Pos = s.Pos
	t.secrets[id] = made
	return made.resource
}

// secretMade is a secret, and what it was made of.
type secretMade struct {
	value, key []byte
	resource   Resource
}

// secretOf is a secret as Envoy is served it. Where the policy was loaded without its contents, it names their files.
func secretOf(s *policy.Secret) *tlsv3.Secret {
	if s.Kind == policy.CertificateSecret {
		return certificateSecret(s.ID(), contents(s.Value, s.Name+".crt"), contents(s.Key, s.Name+".key"))
	}
	return authoritySecret(s.ID(), contents(s.Value, s.Name+".crt"))
}

func certificateSecret(id string, chain, key *corev3.DataSource) *tlsv3.Secret {
	return &tlsv3.Secret{Name: id, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: chain, PrivateKey: key},
	}}
}

func authoritySecret(id string, authorities *corev3.DataSource) *tlsv3.Secret {
	return &tlsv3.Secret{Name: id, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: authorities},
	}}
}

func contents(text []byte, name string) *corev3.DataSource {
	if len(text) == 0 {
		return file(name)
	}
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(text)}}
}

// inDirectory is a secret that names the files below a directory instead of holding what they do. Authorities that stand
// beside the policy are no secrets, and stay.
func inDirectory(s *tlsv3.Secret, dir string) *tlsv3.Secret {
	var there []*corev3.DataSource
	for _, name := range policy.SecretOf(s.Name).Files() {
		there = append(there, file(filepath.Join(dir, filepath.FromSlash(name))))
	}
	switch len(there) {
	case 0:
		return s
	case 1:
		return authoritySecret(s.Name, there[0])
	default:
		return certificateSecret(s.Name, there[0], there[1])
	}
}
