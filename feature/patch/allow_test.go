package patch

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

var everyMessage = slices.Concat(ofRoutes, ofServices, ofListeners, ofFilters)

func (m *message) descriptor() protoreflect.MessageDescriptor {
	return m.zero.ProtoReflect().Descriptor()
}

// fieldAt finds a field by its path, and the path as JSON has it.
func fieldAt(t *testing.T, m *message, path string) (protoreflect.FieldDescriptor, string) {
	t.Helper()
	d, json := m.descriptor(), ""
	var f protoreflect.FieldDescriptor
	for name := range strings.SplitSeq(path, ".") {
		if d != nil {
			f = d.Fields().ByName(protoreflect.Name(name))
		}
		if d == nil || f == nil {
			t.Fatalf("%s has no field %s", m.descriptor().FullName(), path)
		}
		json, d = join(json, f.JSONName()), f.Message()
	}
	return f, json
}

func TestTablesNameFieldsThatThereAre(t *testing.T) {
	for _, m := range everyMessage {
		for _, f := range m.allowed {
			d, _ := fieldAt(t, m, f.path)
			if o, ok := d.Options().(*descriptorpb.FieldOptions); ok && o.GetDeprecated() {
				t.Errorf("%s: %s is deprecated", m.descriptor().FullName(), f.path)
			}
			if f.key == "" && f.needs {
				t.Errorf("%s: %s needs no key", m.descriptor().FullName(), f.path)
			}
		}
		for _, r := range m.refused {
			fieldAt(t, m, r.path)
			if r.why == "" || m.allowedAt(r.path) != nil {
				t.Errorf("%s: %s is refused without reason, or allowed", m.descriptor().FullName(), r.path)
			}
		}
	}
}

// harmless is the plain values that the reader knows.
func harmless(d protoreflect.MessageDescriptor) bool {
	return d.FullName() == "google.protobuf.Duration" || d.ParentFile().Path() == "google/protobuf/wrappers.proto"
}

var dangerous = regexp.MustCompile(`(^|_)(cluster|route_cache|runtime_key|filename|secret|uri|url|code|script|typed_config)($|_)`)

// named is the fields whose names are like those that lead elsewhere, and do not.
var named = []string{
	"envoy.config.route.v3.RouteAction.cluster_not_found_response_code",
	"envoy.config.cluster.v3.Cluster.track_cluster_stats",
	"envoy.type.v3.HttpStatus.code",
}

// TestNothingAllowedReachesElsewhere walks everything that a patch may hold: there must be no packed message, no other
// file, no name of a cluster, no code, nothing that clears the route cache, and no kind of value that the reader can't read.
func TestNothingAllowedReachesElsewhere(t *testing.T) {
	for _, m := range everyMessage {
		var walk func(d protoreflect.MessageDescriptor, path string, depth int)
		walk = func(d protoreflect.MessageDescriptor, path string, depth int) {
			if depth > 12 {
				t.Fatalf("%s: %s has no end", m.descriptor().FullName(), path)
			}
			for i := range d.Fields().Len() {
				f := d.Fields().Get(i)
				at := join(path, string(f.Name()))
				if m.allowedAt(at) == nil && !m.leads(at) {
					continue
				}
				switch inner := f.Message(); {
				case dangerous.MatchString(string(f.Name())) && !slices.Contains(named, string(f.FullName())):
					t.Errorf("%s: %s sounds dangerous", m.descriptor().FullName(), at)
				case f.IsMap(), f.Kind() == protoreflect.BytesKind, f.Kind() == protoreflect.FloatKind:
					t.Errorf("%s: the reader can't read %s", m.descriptor().FullName(), at)
				case inner == nil || harmless(inner):
				case inner.FullName().Parent() == "google.protobuf":
					t.Errorf("%s: %s is a %s", m.descriptor().FullName(), at, inner.FullName())
				default:
					walk(inner, at, depth+1)
				}
			}
		}
		walk(m.descriptor(), "", 0)
	}
}

// TestNothingAllowedTakesTheWordFromAuth holds the tables against what must never be in them.
func TestNothingAllowedTakesTheWordFromAuth(t *testing.T) {
	for _, never := range []struct {
		of   *message
		path string
	}{
		{ofRoutes[0], "match"},
		{ofRoutes[0], "typed_per_filter_config"},
		{ofRoutes[0], "metadata"},
		{ofRoutes[0], "request_headers_to_add"},
		{ofRoutes[0], "route.cluster"},
		{ofRoutes[0], "route.cluster_header"},
		{ofRoutes[0], "route.weighted_clusters"},
		{ofRoutes[0], "route.request_mirror_policies"},
		{ofRoutes[0], "route.internal_redirect_policy"},
		{ofRoutes[0], "route.upgrade_configs"},
		{ofClusters, "transport_socket"},
		{ofClusters, "load_assignment"},
		{ofClusters, "upstream_bind_config"},
		{ofUpstreams, "http_filters"},
		{ofPorts, "filter_chains"},
		{ofPorts, "listener_filters"},
		{ofManagers, "http_filters"},
		{ofManagers, "normalize_path"},
		{ofManagers, "use_remote_address"},
		{ofManagers, "early_header_mutation_extensions"},
		{ofManagers, "forward_client_cert_details"},
		{ofManagers, "common_http_protocol_options.headers_with_underscores_action"},
		{ofProxies, "cluster"},
	} {
		fieldAt(t, never.of, never.path)
		if never.of.allowedAt(never.path) != nil || never.of.leads(never.path) {
			t.Errorf("%s may be written in %s", never.path, never.of.name)
		}
	}
}

var listed = regexp.MustCompile("(?m)^- `([^`]+)`")

func TestDocsListWhatMayBeWritten(t *testing.T) {
	for _, row := range []struct {
		doc  string
		of   []*message
		also []string
	}{
		{routeDoc, ofRoutes, nil},
		{serviceDoc, ofServices, nil},
		{listenerDoc, ofListeners, typeNames()},
	} {
		var want, got []string
		for _, m := range row.of {
			for _, f := range m.allowed {
				_, json := fieldAt(t, m, f.path)
				want = append(want, json)
			}
		}
		for _, name := range row.also {
			want = append(want, strings.TrimPrefix(name, extensions))
		}
		for _, found := range listed.FindAllStringSubmatch(row.doc, -1) {
			got = append(got, found[1])
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what the doc lists (-want +got):\n%s", diff)
		}
	}
}

func TestFiltersAreKnownToTheProcess(t *testing.T) {
	for _, m := range ofFilters {
		name := m.descriptor().FullName()
		if !strings.HasPrefix(string(name), extensions) {
			t.Errorf("%s is no filter of HTTP", name)
		}
		if _, ok := m.zero.(proto.Message).(checked); !ok {
			t.Errorf("%s has no rules", name)
		}
	}
}
