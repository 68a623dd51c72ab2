package xds

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ClientStatus is the client status discovery service (CSDS): it tells tools such as grpcdebug what each connected Envoy
// has. It shows configurations, so that it belongs on a port for operators, never on the one that Envoys ask.
type ClientStatus struct {
	Server *Server

	// Show makes of a resource what people may see of it: secrets have to go. Contents are left out when it is nil; those
	// of secrets always are.
	Show func(proto.Message) proto.Message
}

// Bounds on an answer, which is one message: clients take 4 MiB unless told otherwise.
const (
	maxListed   = 20_000  // resources, without their contents some 100 bytes each
	maxContents = 2 << 20 // bytes of contents; the resources after that have none
	maxMatcher  = 1_000   // bytes of a name or a pattern that nodes are asked for by
)

// Register adds the service to r.
func (c ClientStatus) Register(r grpc.ServiceRegistrar) {
	statusv3.RegisterClientStatusDiscoveryServiceServer(r, c)
}

// StreamClientStatus answers each request of a stream.
func (c ClientStatus) StreamClientStatus(str statusv3.ClientStatusDiscoveryService_StreamClientStatusServer) error {
	for {
		request, err := str.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response, err := c.FetchClientStatus(str.Context(), request)
		if err != nil {
			return err
		}
		if err := str.Send(response); err != nil {
			return err
		}
	}
}

// FetchClientStatus answers one request: for the Envoys whose node id one of its matchers matches, or for all.
func (c ClientStatus) FetchClientStatus(_ context.Context, r *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	match, err := nodeMatcher(r.GetNodeMatchers())
	if err != nil {
		return nil, err
	}
	response, listed, contents := &statusv3.ClientStatusResponse{}, 0, 0
	for _, st := range c.Server.connected() {
		if !match(st.node.GetId()) {
			continue
		}
		lists, count := st.resources()
		if listed += count; listed > maxListed {
			return nil, status.Errorf(codes.ResourceExhausted, "these Envoys have more than %d resources together: ask for one by node_matchers", maxListed)
		}
		config := &statusv3.ClientConfig{Node: &corev3.Node{
			Id: st.node.GetId(), Cluster: st.group.name, UserAgentName: "envoy",
			UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: st.version},
		}}
		served := st.serves()
		for _, url := range slices.Sorted(maps.Keys(kinds)) {
			k := kinds[url]
			for _, one := range lists[k.short] {
				generic := genericConfig(url, one)
				if served != nil && !r.GetExcludeResourceContents() && contents < maxContents {
					shown := c.contents(k, served.set(url).get(one.Name), one)
					if contents += proto.Size(shown); one.State == NACK {
						generic.ErrorState.FailedConfiguration = shown
					} else {
						generic.XdsConfig = shown
					}
				}
				config.GenericXdsConfigs = append(config.GenericXdsConfigs, generic)
			}
		}
		response.Config = append(response.Config, config)
	}
	slices.SortFunc(response.Config, func(a, b *statusv3.ClientConfig) int {
		return cmp.Or(cmp.Compare(a.GetNode().GetCluster(), b.GetNode().GetCluster()), cmp.Compare(a.GetNode().GetId(), b.GetNode().GetId()))
	})
	return response, nil
}

// contents is the resource as people may see it, when it is the one that the Envoy was sent.
func (c ClientStatus) contents(k kind, e *entry, r ResourceStatus) *anypb.Any {
	if c.Show == nil || k.secret || e == nil || e.Version != r.Sent {
		return nil
	}
	m, err := e.Body.UnmarshalNew()
	if err != nil {
		return nil // of a type that this program does not know: it cannot be made fit to be seen
	}
	shown, err := anypb.New(c.Show(m))
	if err != nil {
		return nil
	}
	return shown
}

func genericConfig(url string, r ResourceStatus) *statusv3.ClientConfig_GenericXdsConfig {
	g := &statusv3.ClientConfig_GenericXdsConfig{TypeUrl: url, Name: r.Name, VersionInfo: r.Sent}
	if r.Since != nil {
		g.LastUpdated = timestamppb.New(*r.Since)
	}
	switch r.State {
	case ACK:
		g.ConfigStatus, g.ClientStatus = statusv3.ConfigStatus_SYNCED, adminv3.ClientResourceStatus_ACKED
	case NACK:
		g.ConfigStatus, g.ClientStatus = statusv3.ConfigStatus_ERROR, adminv3.ClientResourceStatus_NACKED
		g.VersionInfo = r.Acknowledged
		g.ErrorState = &adminv3.UpdateFailureState{Details: r.Error, VersionInfo: r.Sent, LastUpdateAttempt: g.LastUpdated}
		if r.Origin != "" {
			g.ErrorState.Details += " (" + r.Origin + ")"
		}
	case Sent:
		g.ConfigStatus, g.ClientStatus = statusv3.ConfigStatus_STALE, adminv3.ClientResourceStatus_REQUESTED
	case Absent:
		g.ConfigStatus, g.ClientStatus = statusv3.ConfigStatus_SYNCED, adminv3.ClientResourceStatus_DOES_NOT_EXIST
	default:
		g.ConfigStatus, g.ClientStatus = statusv3.ConfigStatus_NOT_SENT, adminv3.ClientResourceStatus_REQUESTED
	}
	return g
}

// nodeMatcher is whether any of the matchers matches a node id.
func nodeMatcher(list []*matcherv3.NodeMatcher) (func(id string) bool, error) {
	var matchers []func(string) bool
	for _, m := range list {
		if len(m.GetNodeMetadatas()) > 0 {
			return nil, status.Error(codes.InvalidArgument, "node_matchers: the metadata of nodes is not kept: match by node_id")
		}
		if m.GetNodeId() == nil {
			continue // which matches all
		}
		one, err := textMatcher(m.GetNodeId())
		if err != nil {
			return nil, err
		}
		matchers = append(matchers, one)
	}
	return func(id string) bool {
		for _, one := range matchers {
			if one(id) {
				return true
			}
		}
		return len(matchers) < len(list) || len(list) == 0
	}, nil
}

func textMatcher(m *matcherv3.StringMatcher) (func(string) bool, error) {
	if proto.Size(m) > maxMatcher {
		return nil, status.Errorf(codes.InvalidArgument, "node_matchers: more than %d bytes in one", maxMatcher)
	}
	fold := func(s string) string { return s }
	if m.GetIgnoreCase() {
		fold = strings.ToLower
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return func(s string) bool { return fold(s) == fold(p.Exact) }, nil
	case *matcherv3.StringMatcher_Prefix:
		return func(s string) bool { return strings.HasPrefix(fold(s), fold(p.Prefix)) }, nil
	case *matcherv3.StringMatcher_Suffix:
		return func(s string) bool { return strings.HasSuffix(fold(s), fold(p.Suffix)) }, nil
	case *matcherv3.StringMatcher_Contains:
		return func(s string) bool { return strings.Contains(fold(s), fold(p.Contains)) }, nil
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := regexp.Compile(`\A(?:` + p.SafeRegex.GetRegex() + `)\z`)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "node_matchers: %v", err)
		}
		return re.MatchString, nil
	default:
		return nil, status.Error(codes.InvalidArgument, "node_matchers: node_id has no pattern that is known here")
	}
}
