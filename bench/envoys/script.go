// Package envoys is light clients of xDS, thousands of which fit beside the server that they are to load: each stands for an
// Envoy with one aggregated stream. The benchmarks and make soak have fleets of them.
package envoys

import (
	"encoding/binary"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Ask is what is asked for of one type.
type Ask struct {
	URL   string
	Names []string // empty: all that there are
}

// Script is what the Envoys of a fleet send.
type Script struct {
	Node *corev3.Node // of all of them; nodes by another name are made by [Script.As]
	SotW bool         // state of the world, else delta
	Asks []Ask        // one after the other, each once the one before is answered

	path  string
	first [][]byte          // by Asks
	names map[string][]byte // state of the world, by type: the names in each further request
}

// NewScript has a node ask.
func NewScript(node *corev3.Node, sotw bool, asks []Ask) (*Script, error) {
	s := &Script{
		Node: node, SotW: sotw, Asks: asks, path: discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
		names: map[string][]byte{},
	}
	if sotw {
		s.path = discoveryv3.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName
	}
	for i, a := range asks {
		first, err := s.Request(i == 0, a, nil)
		if err != nil {
			return nil, err
		}
		s.first = append(s.first, first)
		for _, name := range a.Names {
			s.names[a.URL] = protowire.AppendString(protowire.AppendTag(s.names[a.URL], 3, protowire.BytesType), name)
		}
	}
	return s, nil
}

// As is the same script for a node of another name.
func (s *Script) As(id string) (*Script, error) {
	other := *s
	other.Node = proto.CloneOf(s.Node)
	other.Node.Id = id
	hello, err := other.Request(true, s.Asks[0], nil)
	other.first = append([][]byte{hello}, s.first[1:]...)
	return &other, err
}

// Request is a first request of a type, with its gRPC head. The first one of a stream says who asks.
func (s *Script) Request(hello bool, a Ask, known map[string]string) ([]byte, error) {
	var node *corev3.Node
	if hello {
		node = s.Node
	}
	var m proto.Message = &discoveryv3.DeltaDiscoveryRequest{
		Node: node, TypeUrl: a.URL, ResourceNamesSubscribe: a.Names, InitialResourceVersions: known,
	}
	if s.SotW {
		m = &discoveryv3.DiscoveryRequest{Node: node, TypeUrl: a.URL, ResourceNames: a.Names}
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...), nil
}

// Last is the type that is asked for last.
func (s *Script) Last() string { return s.Asks[len(s.Asks)-1].URL }

// join sends the first requests of an Envoy, each once the one before is answered.
func (s *Script) join(e *Envoy) (next func(url string)) {
	e.Send(s.first[0])
	at := 0
	return func(url string) {
		if at < len(s.Asks)-1 && url == s.Asks[at].URL {
			at++
			e.Send(s.first[at])
		}
	}
}
