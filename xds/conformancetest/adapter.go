package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/xds"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// group is the one that the suite's node is in.
const group = "conformance"

// key is a resource.
type key struct{ url, name string }

// adapter is told by the suite what to serve.
type adapter struct {
	server *xds.Server

	mu       sync.Mutex        // guards what follows
	state    map[key]string    // the versions as the suite calls them
	latest   map[string]string // of each type, the one that was told last
	revision int
}

func newAdapter(s *xds.Server) *adapter {
	return &adapter{server: s, state: map[key]string{}, latest: map[string]string{}}
}

// The methods' messages are read where they lie: both have few fields, whose numbers are those of the suite's adapter.proto.
const (
	fieldVersion   = 2 // of SetState
	fieldResources = 3
	fieldTypeURL   = 2 // of the methods for one resource
	fieldName      = 3
	fieldOneVer    = 4
	fieldSuccess   = 1 // of the answers
)

// behind is how long a change waits, so as not to overtake what the suite has asked of the target before.
const behind = 200 * time.Millisecond

// register adds the suite's service.
func (a *adapter) register(r grpc.ServiceRegistrar) {
	desc := grpc.ServiceDesc{ServiceName: "adapter.Adapter", Metadata: "api/adapter/adapter.proto"}
	for name, act := range map[string]func(fields) error{
		"SetState": a.set, "ClearState": a.clear, "UpdateResource": a.put, "AddResource": a.put, "RemoveResource": a.remove,
	} {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: name,
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var in, out emptypb.Empty // all of whose fields are unknown
				if err := decode(&in); err != nil {
					return nil, err
				}
				time.Sleep(behind)
				a.mu.Lock()
				defer a.mu.Unlock()
				if err := act(fieldsOf(in.ProtoReflect().GetUnknown())); err != nil {
					return nil, status.Error(codes.InvalidArgument, err.Error())
				}
				if name != "ClearState" {
					out.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, fieldSuccess, protowire.VarintType), 1))
				}
				return &out, a.publish()
			},
		})
	}
	r.RegisterService(&desc, nil)
}

// fields is the length-delimited fields of a message by number.
type fields map[protowire.Number][][]byte

func fieldsOf(b []byte) fields {
	f := fields{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f
		}
		m := protowire.ConsumeFieldValue(number, kind, b[n:])
		if m < 0 {
			return f
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b[n:])
			f[number] = append(f[number], value)
		}
		b = b[n+m:]
	}
	return f
}

func (f fields) text(number protowire.Number) string {
	if len(f[number]) == 0 {
		return ""
	}
	return string(f[number][0])
}

func (a *adapter) set(f fields) error {
	clear(a.state)
	clear(a.latest)
	for _, raw := range f[fieldResources] {
		var packed anypb.Any
		if err := proto.Unmarshal(raw, &packed); err != nil {
			return err
		}
		m, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		name := ""
		switch m := m.(type) {
		case *endpointv3.ClusterLoadAssignment:
			name = m.GetClusterName()
		case interface{ GetName() string }:
			name = m.GetName()
		}
		a.note(key{packed.GetTypeUrl(), name}, f.text(fieldVersion))
	}
	return nil
}

func (a *adapter) clear(fields) error {
	clear(a.state)
	clear(a.latest)
	return nil
}

func (a *adapter) put(f fields) error {
	a.note(key{f.text(fieldTypeURL), f.text(fieldName)}, f.text(fieldOneVer))
	return nil
}

func (a *adapter) note(k key, version string) {
	a.state[k] = version
	a.latest[k.url] = version
}

func (a *adapter) remove(f fields) error {
	delete(a.state, key{f.text(fieldTypeURL), f.text(fieldName)})
	return nil
}

// publish serves the state.
func (a *adapter) publish() error {
	a.revision++
	var list []xds.Resource
	for k, version := range a.state {
		m, err := message(k, version)
		if err != nil {
			return err
		}
		r, err := xds.NewResource(k.name, m, "the suite", "")
		if err != nil {
			return err
		}
		list = append(list, r)
	}
	s, err := xds.NewSnapshot(strconv.Itoa(a.revision), list)
	if err != nil {
		return err
	}
	a.server.Publish(map[string]*xds.Snapshot{group: s})
	return nil
}

// message is the resource, different in each version.
func message(k key, version string) (proto.Message, error) {
	switch k.url {
	case resource.ClusterType:
		return &clusterv3.Cluster{Name: k.name, AltStatName: version}, nil
	case resource.ListenerType:
		return &listenerv3.Listener{Name: k.name, StatPrefix: version}, nil
	case resource.RouteType:
		return &routev3.RouteConfiguration{Name: k.name, VirtualHosts: []*routev3.VirtualHost{{Name: version}}}, nil
	case resource.EndpointType:
		return &endpointv3.ClusterLoadAssignment{ClusterName: k.name, NamedEndpoints: map[string]*endpointv3.Endpoint{version: {}}}, nil
	default:
		return nil, fmt.Errorf("the type %s is not served", k.url)
	}
}

// version is what the suite calls the version of a type now.
func (a *adapter) version(url string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.latest[url]
}
