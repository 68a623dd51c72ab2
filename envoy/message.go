package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Pack wraps a message, always into the same bytes: the version of a resource is a hash of them. What [anypb.New] makes of
// a map is other bytes each time, and replicas would send each other's Envoys what these have. It fails only for text that
// is not UTF-8, which no policy holds.
func Pack(m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	_ = anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true})
	return a
}

// ads is the source of everything that a serving Envoy asks for. With a wait of 0 what depends on it does not start
// before the answer is there.
func ads(wait *durationpb.Duration) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   wait,
	}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// overlay merges what a feature contributes into ours: lists are appended, maps merged by key, messages merged field
// by field. Unlike [proto.Merge] it replaces durations, wrapped numbers and the like whole: 0.5s over 15s is 0.5s.
func overlay(onto, from proto.Message) { overlayMessage(onto.ProtoReflect(), from.ProtoReflect()) }

func overlayMessage(onto, from protoreflect.Message) {
	from.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList():
			to := onto.Mutable(f).List()
			for i := range v.List().Len() {
				to.Append(cloneValue(f, v.List().Get(i)))
			}
		case f.IsMap():
			overlayMap(onto.Mutable(f).Map(), v.Map(), f.MapValue())
		case f.Message() == nil || whole(f.Message()) || !onto.Has(f):
			onto.Set(f, cloneValue(f, v))
		default:
			overlayMessage(onto.Mutable(f).Message(), v.Message())
		}
		return true
	})
}

func overlayMap(onto, from protoreflect.Map, f protoreflect.FieldDescriptor) {
	from.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if f.Message() == nil || whole(f.Message()) || !onto.Has(k) {
			onto.Set(k, cloneValue(f, v))
		} else {
			overlayMessage(onto.Mutable(k).Message(), v.Message())
		}
		return true
	})
}

// whole tells the messages that are one value: durations, wrapped numbers, packed messages.
func whole(d protoreflect.MessageDescriptor) bool {
	name := string(d.FullName())
	return strings.HasPrefix(name, "google.protobuf.") && name != "google.protobuf.Struct"
}

func cloneValue(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	if f.Message() == nil {
		return v
	}
	return protoreflect.ValueOfMessage(proto.Clone(v.Message().Interface()).ProtoReflect())
}
