package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Patch is a part of one of our messages as a policy wrote it. It has the last word in ours of the same type.
type Patch struct {
	Message proto.Message
	Pos     policy.Pos
	Path    string // in the policy, for problems
}

// Patcher is a setting of a route, a service or a listener with patches for what is made of them: the route; the
// cluster, how HTTP is spoken to it and how its name is resolved; the listener, the connection manager and the TCP proxy.
type Patcher interface{ Patches() []Patch }

// patch lays what the settings' patches say over a message that is complete but for them.
func (t *translation) patch(onto proto.Message, settings policy.Settings) {
	for _, s := range policy.Each[Patcher](settings) {
		for _, p := range s.Patches() {
			if p.Message.ProtoReflect().Descriptor() == onto.ProtoReflect().Descriptor() {
				t.lay(onto, p)
			}
		}
	}
}

// lay lays one patch over a message, or reports why it can't be.
func (t *translation) lay(onto proto.Message, p Patch) {
	if ours, theirs := excluded(onto.ProtoReflect(), p.Message.ProtoReflect()); ours != "" {
		t.problem(p.Pos, p.Path, "there is "+ours+" here, which "+theirs+" would take the place of", "leave "+theirs+" out")
		return
	}
	whole := proto.Clone(onto)
	overlay(whole, p.Message)
	if v, ok := whole.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.problem(p.Pos, p.Path, "Envoy would refuse this: "+err.Error(), "")
			return
		}
	}
	overlay(onto, p.Message)
}

// excluded finds what only one of can be set, and is set to one thing in ours and to another in what is laid over it: a
// patch of HTTP/2's options would turn a service of HTTP/1.1 into one of HTTP/2. The names are JSON's.
func excluded(onto, from protoreflect.Message) (ours, theirs string) {
	from.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if one := f.ContainingOneof(); one != nil {
			if set := onto.WhichOneof(one); set != nil && set != f {
				ours, theirs = set.JSONName(), f.JSONName()
				return false
			}
		}
		if f.Message() != nil && !f.IsList() && !f.IsMap() && onto.Has(f) {
			ours, theirs = excluded(onto.Get(f).Message(), v.Message())
		}
		return ours == ""
	})
	return ours, theirs
}

// patchDNS lays the patches of how a name is resolved over what the cluster has packed.
func (t *translation) patchDNS(c *clusterv3.Cluster, settings policy.Settings) {
	packed := c.GetClusterType().GetTypedConfig()
	if dns := new(dnsv3.DnsCluster); packed.UnmarshalTo(dns) == nil {
		t.patch(dns, settings)
		c.GetClusterType().TypedConfig = Pack(dns)
	}
}
