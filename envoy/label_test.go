package envoy_test

import (
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	setmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// logged is a listener of each kind, with a log or without.
func logged(log bool) *policy.Model {
	http, tcp := httpListener("http"), listenerOf("tcp", policy.TCP)
	if log {
		logs := []*accesslogv3.AccessLog{{Name: "test.log"}}
		http.Settings = policy.Settings{set(toyKind, &toy{http: &hcmv3.HttpConnectionManager{AccessLog: logs}})}
		tcp.Settings = policy.Settings{set(toyKind, &toy{
			tcp: &tcpproxyv3.TcpProxy{AccessLog: logs}, connection: []*listenerv3.Filter{{Name: "test.first"}},
		})}
	}
	a := to(service("a", policy.Endpoint{Host: "10.0.0.1", Port: 1}))
	r := route("r", "app.test", "/", a)
	r.Listeners = []string{"http"}
	return modelOf([]*policy.Listener{http, tcp}, r, connectionRoute("c", "tcp", []string{"*"}, a))
}

// firstFilters is the first filter for connections of a listener of TCP, and the first for requests of one of HTTP.
func firstFilters(t *testing.T, list []envoy.Resource) (*listenerv3.Filter, *hcmv3.HttpFilter) {
	t.Helper()
	manager := new(hcmv3.HttpConnectionManager)
	http := find[*listenerv3.Listener](t, list, "http").FilterChains[0].Filters
	if err := http[len(http)-1].GetTypedConfig().UnmarshalTo(manager); err != nil {
		t.Fatal(err)
	}
	return find[*listenerv3.Listener](t, list, "tcp").FilterChains[0].Filters[0], manager.HttpFilters[0]
}

// Where there is a log a label comes first, as a resource that no listener waits for; elsewhere there is none.
func TestListenersWithALogHaveALabel(t *testing.T) {
	connection, request := firstFilters(t, translate(t, logged(true)))
	for _, r := range []struct {
		name, want string
		from       *corev3.ExtensionConfigSource
		idle       proto.Message
	}{
		{request.Name, envoy.RequestLabel, request.GetConfigDiscovery(), &setmetadatav3.Config{}},
		{connection.Name, envoy.ConnectionLabel, connection.GetConfigDiscovery(), &setstatev3.Config{}},
	} {
		idle := envoy.Pack(r.idle)
		if r.name != r.want || r.from.GetConfigSource().GetAds() == nil || !r.from.GetApplyDefaultConfigWithoutWarming() ||
			!proto.Equal(r.from.GetDefaultConfig(), idle) || !cmp.Equal(r.from.GetTypeUrls(), []string{idle.TypeUrl}) {
			t.Errorf("first is %s by %v, want %s, which does nothing until it comes", r.name, r.from, r.want)
		}
	}
	connection, request = firstFilters(t, translate(t, logged(false)))
	if connection.Name == envoy.ConnectionLabel || request.Name == envoy.RequestLabel {
		t.Error("a listener without a log has a label")
	}
}

// A revision changes no listener, and what is made of one has its labels in place.
func TestLabelsOfARevision(t *testing.T) {
	m := logged(true)
	translator := envoy.NewTranslator(testKinds)
	first, err := translator.Translate(m)
	if err != nil {
		t.Fatal(err)
	}
	m.Revision = "0123456789abcdef"
	second, err := translator.Translate(m)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range first["edge"] {
		if r.Message != second["edge"][i].Message {
			t.Errorf("%s %s is made anew", r.Type, r.Name)
		}
	}
	static, err := envoy.Static(append(second["edge"], envoy.Labels(m.Revision)...), envoy.BootstrapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var list []envoy.Resource
	for _, l := range static.StaticResources.Listeners {
		list = append(list, envoy.Resource{Name: l.Name, Message: l})
	}
	connection, request := firstFilters(t, list)
	metadata, state := new(setmetadatav3.Config), new(setstatev3.Config)
	if err := request.GetTypedConfig().UnmarshalTo(metadata); err != nil {
		t.Fatal(err)
	}
	if err := connection.GetTypedConfig().UnmarshalTo(state); err != nil {
		t.Fatal(err)
	}
	got := map[string]any{
		metadata.Metadata[0].MetadataNamespace:  metadata.Metadata[0].Value.AsMap(),
		state.OnNewConnection[0].GetObjectKey(): state.OnNewConnection[0].GetFormatString().GetTextFormatSource().GetInlineString(),
	}
	want := map[string]any{
		"legation":                     map[string]any{"revision": "0123456789ab"},
		"legation.connection.revision": "0123456789ab",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
}
