package envoy

import (
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Marshal gives the bytes of a message, the same in every run. Where before is the route table that m takes the place of, and
// bytes what was given of it, those of the virtual hosts that both have, by their pointers, are taken over: of the one
// table of 10,000 routes all but a few are.
func Marshal(m, before proto.Message, bytes []byte) ([]byte, error) {
	table, ok := m.(*routev3.RouteConfiguration)
	old, known := before.(*routev3.RouteConfiguration)
	if !ok || !known {
		return proto.MarshalOptions{Deterministic: true}.Marshal(m)
	}
	hosts, err := marshalledHosts(old, bytes)
	if err != nil {
		return nil, err
	}
	return spliced(table, hosts, len(bytes))
}

// hostsField is the number of a route table's virtual hosts.
const hostsField = 2

// marshalledHosts finds the bytes of each virtual host of a table, with its tag and length.
func marshalledHosts(table *routev3.RouteConfiguration, bytes []byte) (map[*routev3.VirtualHost][]byte, error) {
	hosts := make(map[*routev3.VirtualHost][]byte, len(table.VirtualHosts))
	for next := 0; len(bytes) > 0; {
		number, _, n := protowire.ConsumeField(bytes)
		if n < 0 {
			return nil, fmt.Errorf("route table %s: %w", table.Name, protowire.ParseError(n))
		}
		if number == hostsField {
			hosts[table.VirtualHosts[next]] = bytes[:n]
			next++
		}
		bytes = bytes[n:]
	}
	return hosts, nil
}

// spliced marshals a table but for the hosts that are known; the fields stand in the order of their numbers.
func spliced(table *routev3.RouteConfiguration, known map[*routev3.VirtualHost][]byte, size int) ([]byte, error) {
	stable := proto.MarshalOptions{Deterministic: true}
	bare := new(routev3.RouteConfiguration)
	table.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Number() != hostsField {
			bare.ProtoReflect().Set(f, v)
		}
		return true
	})
	rest, err := stable.Marshal(bare)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, size+size/8+len(rest))
	for len(rest) > 0 {
		number, _, n := protowire.ConsumeField(rest)
		if number > hostsField {
			break
		}
		out, rest = append(out, rest[:n]...), rest[n:]
	}
	for _, h := range table.VirtualHosts {
		if b, ok := known[h]; ok {
			out = append(out, b...)
			continue
		}
		b, err := stable.Marshal(h)
		if err != nil {
			return nil, err
		}
		out = protowire.AppendBytes(protowire.AppendTag(out, hostsField, protowire.BytesType), b)
	}
	return append(out, rest...), nil
}
