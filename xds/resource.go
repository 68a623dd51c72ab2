package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Resource is one xDS resource of a snapshot. Copies of what [NewResource] made share its bytes, and snapshots tell by the
// Body's pointer that nothing has changed: keep the value for as long as the resource stays the same.
type Resource struct {
	Type    string     // type URL
	Name    string     // unique within its type
	Body    *anypb.Any // marshalled once, shared by all streams
	Version string     // content hash (hex); equal bytes and salt give equal versions on every replica
	Origin  string     // where it comes from in the policy ("edge.yaml:12:3"); only shown, in status and logs

	endpoints string // of a cluster: the name of its endpoint assignment, "" when it has none over EDS
	made      *entry // as the streams send it
}

// NewResource marshals m deterministically and hashes it. The salt joins the hash: an endpoint assignment is salted
// with its cluster's version, so that an Envoy that reconnects to a changed cluster gets its endpoints sent again.
func NewResource(name string, m proto.Message, origin, salt string) (Resource, error) {
	if m == nil {
		return Resource{}, fmt.Errorf("resource %q: no message", name)
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Resource{}, fmt.Errorf("marshal %s %q: %w", kindOf(urlOf(m)).short, name, err)
	}
	return NewEncodedResource(name, m, value, origin, salt)
}

// NewEncodedResource is [NewResource] of a message that was marshalled before, deterministically.
func NewEncodedResource(name string, m proto.Message, value []byte, origin, salt string) (Resource, error) {
	url := urlOf(m)
	if name == "" {
		return Resource{}, fmt.Errorf("resource of %s: no name", kindOf(url).short)
	}
	r := Resource{
		Type:      url,
		Name:      name,
		Version:   hash(string(value), salt),
		Origin:    origin,
		endpoints: assignmentOf(m),
		Body:      &anypb.Any{TypeUrl: url, Value: value},
	}
	r.made = newEntry(r)
	r.Body.Value = r.made.value(len(value))
	return r, nil
}

// entry is the resource as the streams send it: what NewResource made, unless something was changed since.
func (r *Resource) entry() (*entry, error) {
	if e := r.made; e != nil && e.Body == r.Body && e.Origin == r.Origin && e.Version == r.Version && e.Name == r.Name && e.Type == r.Type {
		return e, nil
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	made := *r
	made.made = nil
	return newEntry(made), nil
}

func urlOf(m proto.Message) string {
	return resource.APITypePrefix + string(m.ProtoReflect().Descriptor().FullName())
}

func (r *Resource) check() error {
	switch {
	case r.Type == "" || r.Name == "" || r.Version == "":
		return fmt.Errorf("resource %q of type %q, version %q: each of them has to be set", r.Name, r.Type, r.Version)
	case r.Body == nil:
		return fmt.Errorf("%s %q: no body", kindOf(r.Type).short, r.Name)
	}
	return nil
}

// assignmentOf names the endpoint assignment that Envoy will ask for on behalf of the cluster m.
func assignmentOf(m proto.Message) string {
	c, ok := m.(*clusterv3.Cluster)
	if !ok || c.GetType() != clusterv3.Cluster_EDS {
		return ""
	}
	if service := c.GetEdsClusterConfig().GetServiceName(); service != "" {
		return service
	}
	return c.GetName()
}

// hash is 64 bits of SHA-256 over the parts and their lengths, in hex.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write([]byte(p)) // a route table may have megabytes: Fprintf would copy it several times
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Ranks order the types: a type waits until those of a lower rank are acknowledged.
const (
	rankCluster = 1 + iota
	rankEndpoint
	rankRoute
	rankListener
	rankLabel // tells what is served, so it comes after all that is
	rankNone  // nothing waits for it
)

// kind is what the server has to know of a resource type.
type kind struct {
	short string // in metrics, logs and status
	rank  int

	calm  bool // what is asked for by name waits as well for what comes before it
	label bool // tells what the Envoy has: an Envoy without any is answered at once, others last, but right behind what is plain
	plain bool // Envoy acts by it as soon as it has read it, and needs nothing else for it
	free  bool // needs nothing that comes before it: never waits
	late  bool // removed last, when nothing can use it any more; otherwise together with what replaces it
	whole bool // state of the world: Envoy takes what is missing in an answer for removed
	stays bool // state of the world: what has gone counts as had for as long as the Envoy asks for it: a cluster left over needs it
	part  bool // state of the world: an answer may hold the changed resources only
	wild  bool // a first request without names asks for everything

	secret bool // neither it nor a hash of it is shown
}

// kinds: a listener or a scope that changes its name has to go in the answer that brings the new one, because Envoy
// rejects two with the same address or key. Scoped routes are whole too: Envoy drops those that an answer lacks. Extension
// configs are labels: listeners have a default in their place and never wait for them.
var kinds = map[string]kind{
	resource.ClusterType:         {short: "cluster", rank: rankCluster, late: true, whole: true, wild: true},
	resource.EndpointType:        {short: "endpoint", rank: rankEndpoint, late: true, part: true, stays: true},
	resource.RouteType:           {short: "route", rank: rankRoute, calm: true, plain: true, late: true, part: true},
	resource.ScopedRouteType:     {short: "scoped_route", rank: rankRoute, whole: true, wild: true},
	resource.VirtualHostType:     {short: "virtual_host", rank: rankRoute, part: true},
	resource.ExtensionConfigType: {short: "extension_config", rank: rankLabel, label: true, late: true},
	resource.SecretType:          {short: "secret", rank: rankRoute, free: true, late: true, secret: true},
	resource.ListenerType:        {short: "listener", rank: rankListener, whole: true, wild: true},
	resource.RuntimeType:         {short: "runtime", rank: rankNone, free: true},
}

func kindOf(url string) kind {
	if k, ok := kinds[url]; ok {
		return k
	}
	return kind{short: "other", rank: rankNone, free: true}
}

// rankOf is the rank of the type with that short name.
func rankOf(short string) int {
	for _, k := range kinds {
		if k.short == short {
			return k.rank
		}
	}
	return rankNone
}
