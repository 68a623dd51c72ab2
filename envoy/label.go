package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// This file is how an access log tells the revision of the policy by which a request was answered. In a route table or a
// listener it would change all of them with each change of the policy. So it stands in two resources of its own, the
// labels: a filter for requests and one for connections, each of which writes it down for the log. Listeners with a log
// refer to them by name, and have them do nothing until they are there, so that none waits for a label or changes by it.

// LabelKey is where a label writes the revision: in dynamic metadata, below [Metadata], and in filter state, below the
// name of the label of connections.
const LabelKey = "revision"

// The names of the labels, as filters and as resources: the first is for requests, the second for connections.
const (
	RequestLabel    = "legation.revision"
	ConnectionLabel = "legation.connection.revision"
)

// labelDigits is how much of a revision is written, as people are shown it elsewhere.
const labelDigits = 12

// Labels is the labels of a revision. They are the same for all gateways, and belong to no place in the policy.
func Labels(revision string) []Resource {
	revision = revision[:min(len(revision), labelDigits)]
	return []Resource{
		label(ConnectionLabel, connectionLabel(revision)),
		label(RequestLabel, requestLabel(revision)),
	}
}

func label(name string, filter proto.Message) Resource {
	return Resource{Type: resource.ExtensionConfigType, Name: name, Message: Extension(name, filter)}
}

func requestLabel(revision string) *setmetadatav3.Config {
	return &setmetadatav3.Config{Metadata: []*setmetadatav3.Metadata{{
		MetadataNamespace: Metadata,
		Value:             &structpb.Struct{Fields: map[string]*structpb.Value{LabelKey: structpb.NewStringValue(revision)}},
	}}}
}

func connectionLabel(revision string) *setstatev3.Config {
	return &setstatev3.Config{OnNewConnection: []*statev3.FilterStateValue{{
		Key:        &statev3.FilterStateValue_ObjectKey{ObjectKey: ConnectionLabel},
		FactoryKey: "envoy.string",
		Value: &statev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: revision},
			}},
		}},
	}}}
}

// labelled is a chain of HTTP filters with the label of requests, which comes first, so that what any filter refuses
// has it as well.
func labelled(chain []*hcmv3.HttpFilter) []*hcmv3.HttpFilter {
	label := &hcmv3.HttpFilter{
		Name:       RequestLabel,
		ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: discovered(&setmetadatav3.Config{})},
	}
	return append([]*hcmv3.HttpFilter{label}, chain...)
}

// labelledConnections is a chain of network filters with the label of connections, which comes first.
func labelledConnections(chain []*listenerv3.Filter) []*listenerv3.Filter {
	label := &listenerv3.Filter{
		Name:       ConnectionLabel,
		ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: discovered(&setstatev3.Config{})},
	}
	return append([]*listenerv3.Filter{label}, chain...)
}

// discovered refers to the resource of the filter's own name. Until it is there, and if it goes, the filter is idle.
func discovered(idle proto.Message) *corev3.ExtensionConfigSource {
	packed := Pack(idle)
	return &corev3.ExtensionConfigSource{
		ConfigSource:                     ads(forever),
		DefaultConfig:                    packed,
		ApplyDefaultConfigWithoutWarming: true,
		TypeUrls:                         []string{packed.TypeUrl},
	}
}
