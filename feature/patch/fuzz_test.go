package patch_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// FuzzPatch: whatever is written under envoy, reading it does not panic; what is taken becomes resources that keep Envoy's
// own rules, and means what protobuf's JSON of it means.
func FuzzPatch(f *testing.F) {
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if policy.IsPolicy(file.Name) {
				f.Add(file.Data)
			}
		}
	}
	language := policy.New(kinds...)
	f.Fuzz(func(t *testing.T, text []byte) {
		model, _ := language.Load(policy.Files{"policy.yaml": text})
		if model == nil {
			return
		}
		for _, p := range written(model) {
			again(t, language, p.Message)
		}
		resources, err := envoy.Translate(model, kinds)
		if err != nil {
			return
		}
		for _, list := range resources {
			for _, r := range list {
				if v, ok := r.Message.(interface{ ValidateAll() error }); ok && v.ValidateAll() != nil {
					t.Errorf("%s breaks a rule of Envoy's: %v", r.Name, v.ValidateAll())
				}
			}
		}
	})
}

// written is every patch of a model.
func written(m *policy.Model) []envoy.Patch {
	var all []envoy.Patch
	add := func(settings policy.Settings) {
		for _, s := range policy.Each[envoy.Patcher](settings) {
			all = append(all, s.Patches()...)
		}
	}
	for _, g := range m.Gateways {
		for _, l := range g.Listeners {
			add(l.Settings)
		}
		for _, r := range m.Bound[g] {
			add(r.Settings)
		}
	}
	for _, s := range m.Services {
		add(s.Settings)
	}
	return all
}

// again reads the JSON that protobuf makes of a message, which must give the same message.
func again(t *testing.T, language *policy.Language, m proto.Message) {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.ReplaceAll(string(text), " ", ""), "{}") {
		return // what only says what is so anyway: a patch has to write something
	}
	model, problems := language.Load(policy.Files{"policy.yaml": []byte(around(m, string(text)))})
	if model == nil {
		t.Fatalf("the JSON of what was taken is refused: %s\n%v", text, problems.Err())
	}
	got := written(model)
	if len(got) != 1 || !proto.Equal(got[0].Message, m) {
		t.Fatalf("read again, %s is %v", text, got)
	}
}

// around is a policy with the JSON of a message in its place.
func around(m proto.Message, text string) string {
	gateway, service, route := "{http: {port: 80}}", "", ""
	switch m.(type) {
	case *routev3.Route:
		route = "envoy: {route: " + text + "}, "
	case *clusterv3.Cluster:
		service = "envoy: {cluster: " + text + "}, "
	case *httpv3.HttpProtocolOptions:
		service = "envoy: {http: " + text + "}, "
	case *dnsv3.DnsCluster:
		service = "envoy: {dns: " + text + "}, "
	case *listenerv3.Listener:
		gateway = "{http: {port: 80, envoy: {listener: " + text + "}}}"
	case *hcmv3.HttpConnectionManager:
		gateway = "{http: {port: 80, envoy: {http: " + text + "}}}"
	case *tcpproxyv3.TcpProxy:
		gateway = "{http: {port: 80}, db: {port: 81, protocol: TCP, envoy: {tcp: " + text + "}}}"
	}
	return fmt.Sprintf("gateways: {edge: {listeners: %s}}\nservices: {orders: {%s dns: 'a.test:80', outlierDetection: {}}}\n"+
		"routes: {orders: {hostnames: [a.test], %s retry: {}, backends: {orders: 1}}}\n", gateway, service, route)
}
