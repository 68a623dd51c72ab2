package envoy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/envoy/certtest"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// mutual is a setting that has both sides show certificates: clients at a listener, and a service.
type mutual struct {
	authority   policy.Authority
	certificate string
}

func (*mutual) Check(*policy.Check) {}

func (m *mutual) DownstreamTLS(envoy.ListenerContext) *tlsv3.DownstreamTlsContext {
	return &tlsv3.DownstreamTlsContext{
		CommonTlsContext: envoy.Trust(m.authority, nil), RequireClientCertificate: wrapperspb.Bool(true),
	}
}

func (m *mutual) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	common := envoy.Trust(m.authority, nil)
	common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{envoy.Certificate(m.certificate)}
	packed, _ := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: common})
	return &clusterv3.Cluster{TransportSocket: &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}}
}

var mutualKind = policy.Define[mutual]("mutual", policy.InListener|policy.InService, "")

// secretive is a model whose listener and service use secrets; the second gateway uses none.
func secretive(t *testing.T, filled bool) *policy.Model {
	t.Helper()
	l := httpsListener("https", "one.test")
	l.Settings = policy.Settings{{Kind: mutualKind, Setting: &mutual{authority: policy.Authority{Secret: "mesh/ca"}}, Node: &policy.Node{}}}
	s := service("web", policy.Endpoint{Host: "10.0.0.1", Port: 80})
	s.Settings = policy.Settings{{Kind: mutualKind, Setting: &mutual{policy.Authority{System: true}, "mesh/client"}, Node: &policy.Node{}}}
	m := modelOf([]*policy.Listener{l}, route("r", "one.test", "/", to(s)))
	m.Gateways = append(m.Gateways, &policy.Gateway{Entry: entry("inner"), Listeners: []*policy.Listener{httpListener("http")}})
	for _, s := range []*policy.Secret{
		{Kind: policy.CertificateSecret, Name: "tls/one.test"},
		{Kind: policy.CertificateSecret, Name: "mesh/client"},
		{Kind: policy.AuthoritySecret, Name: "mesh/ca"},
		{Kind: policy.CertificateSecret, Name: "tls/unused"},
	} {
		addSecret(m, s)
	}
	if filled {
		ca := certtest.NewAuthority(t, "ca")
		for _, s := range m.Secrets {
			c := ca.Issue(t, "one.test")
			s.Value, s.Key = c.Chain, c.Key
			if s.Kind == policy.AuthoritySecret {
				s.Value, s.Key = ca.PEM(), nil
			}
		}
	}
	return m
}

func TestGatewaysGetTheSecretsThatTheyUse(t *testing.T) {
	resources, err := envoy.Translate(secretive(t, true), testKinds)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	for gateway, list := range resources {
		for _, r := range list {
			if r.Type == resource.SecretType {
				got[gateway] = append(got[gateway], r.Name)
			}
		}
	}
	want := map[string][]string{"edge": {"authority/mesh/ca", "certificate/mesh/client", "certificate/tls/one.test"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
}

func TestSecretNobodyKnows(t *testing.T) {
	m := secretive(t, true)
	m.Secrets = m.Secrets[:1]
	_, err := envoy.Translate(m, testKinds)
	if p, ok := errors.AsType[*policy.Problem](err); !ok || !strings.Contains(err.Error(), "certificate/tls/one.test") {
		t.Errorf("got %v, %v", p, err)
	}
}

// TestStaticSecrets has the real Envoy take the static form with the contents of secrets, with their files, and without
// either; the last is for validation only.
func TestStaticSecrets(t *testing.T) {
	static := func(m *policy.Model, o envoy.BootstrapOptions) *bootstrapv3.Bootstrap {
		t.Helper()
		b, err := envoy.Static(translate(t, m), o)
		if err != nil {
			t.Fatal(err)
		}
		text, err := envoy.JSON(b)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("sds_config\":")) {
			t.Error("the static form asks for secrets")
		}
		return b
	}
	named := func(b *bootstrapv3.Bootstrap) []string {
		var names []string
		for _, s := range b.StaticResources.Secrets {
			names = append(names, s.GetTlsCertificate().GetCertificateChain().GetFilename(),
				s.GetTlsCertificate().GetPrivateKey().GetFilename(), s.GetValidationContext().GetTrustedCa().GetFilename())
		}
		return strings.Fields(strings.Join(names, " "))
	}
	empty := static(secretive(t, false), envoy.BootstrapOptions{})
	want := []string{"mesh/ca.crt", "mesh/client.crt", "mesh/client.key", "tls/one.test.crt", "tls/one.test.key"}
	if diff := cmp.Diff(want, named(empty)); diff != "" {
		t.Errorf("without contents (-want +got):\n%s", diff)
	}
	for i := range want {
		want[i] = filepath.Join("/etc/secrets", want[i])
	}
	files := static(secretive(t, true), envoy.BootstrapOptions{Secrets: "/etc/secrets"})
	if diff := cmp.Diff(want, named(files)); diff != "" {
		t.Errorf("as files (-want +got):\n%s", diff)
	}
	whole := static(secretive(t, true), envoy.BootstrapOptions{})
	if got := named(whole); len(got) > 0 {
		t.Errorf("with contents: still names %q", got)
	}
	binary := realEnvoy(t)
	for _, b := range []*bootstrapv3.Bootstrap{empty, files, whole} {
		if err := envoy.Validate(t.Context(), binary, b); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(5, len(named(empty))); diff != "" {
		t.Error("Validate has changed what it was given")
	}
}

// TestValidateFindsWhatIsWrongBesideSecrets holds that a stand-in hides nothing else.
func TestValidateFindsWhatIsWrongBesideSecrets(t *testing.T) {
	binary := realEnvoy(t)
	b, err := envoy.Static(translate(t, secretive(t, false)), envoy.BootstrapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.StaticResources.Clusters = append(b.StaticResources.Clusters, &clusterv3.Cluster{Name: "web"})
	if err := envoy.Validate(t.Context(), binary, b); err == nil {
		t.Error("two clusters of one name pass")
	}
}

func TestRedact(t *testing.T) {
	m := secretive(t, true)
	b, err := envoy.Static(translate(t, m), envoy.BootstrapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := anypb.New(b)
	if err != nil {
		t.Fatal(err)
	}
	before := proto.Clone(packed)
	text, err := envoy.JSON(envoy.Redact(packed))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("PRIVATE KEY")) || bytes.Count(text, []byte("[redacted]")) != 2 {
		t.Errorf("shown is %s", text)
	}
	if !bytes.Contains(text, []byte("BEGIN CERTIFICATE")) || !proto.Equal(before, packed) {
		t.Error("what is no secret is taken away, or the original is changed")
	}
	file := &tlsv3.TlsCertificate{
		PrivateKey: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: "a.key"}},
		Password:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte("open")}},
	}
	asks := &authzv3.CheckSettings{ContextExtensions: map[string]string{"rule": "abc"}}
	if got := envoy.Redact(asks).(*authzv3.CheckSettings).ContextExtensions["rule"]; got != "abc" {
		t.Errorf("the rule of a route is shown as %q, want it as it is", got)
	}
	got := envoy.Redact(file).(*tlsv3.TlsCertificate)
	if got.PrivateKey.GetFilename() != "a.key" || got.Password.GetInlineString() != "[redacted]" {
		t.Errorf("got %v", got)
	}
}

// TestClientsShowCertificates asks the real Envoy for a listener whose TLS a setting adds to.
func TestClientsShowCertificates(t *testing.T) {
	servers, clients := certtest.NewAuthority(t, "servers"), certtest.NewAuthority(t, "clients")
	l := httpsListener("https", "one.test")
	l.Settings = policy.Settings{{Kind: mutualKind, Setting: &mutual{authority: policy.Authority{Secret: "mesh/ca"}}, Node: &policy.Node{}}}
	m := withCertificates(t, modelOf([]*policy.Listener{l}, named("one", "one.test", "/")), servers)
	addSecret(m, &policy.Secret{Kind: policy.AuthoritySecret, Name: "mesh/ca", Value: clients.PEM()})
	address := live(t, m)["https"]
	showing := func(c certtest.Certificate) func(*tls.Config) {
		pair := c.TLS(t)
		return func(config *tls.Config) {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
	}
	if got, _ := ask(t, client(t, address, "one.test", servers, showing(clients.Issue(t, "somebody"))), "one.test"); got.code != 200 {
		t.Errorf("with a certificate: %d", got.code)
	}
	for what, c := range map[string]*http.Client{
		"no certificate":                 client(t, address, "one.test", servers),
		"a certificate of somebody else": client(t, address, "one.test", servers, showing(servers.Issue(t, "somebody"))),
	} {
		if resp, err := c.Get("https://one.test/"); err == nil {
			resp.Body.Close()
			t.Errorf("%s: %s", what, resp.Status)
		}
	}
}
