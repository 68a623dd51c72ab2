package xds

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// credentialsOf tells the groups that the bearer of the client certificate may join: each DNS name of the certificate,
// and what each URI names ([groupOf]). Without TLS any group is open: such a listener is on loopback only, which app sees
// to.
func credentialsOf(ctx context.Context) (groups []string, open bool, address string) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false, ""
	}
	if p.Addr != nil {
		address = p.Addr.String()
	}
	if p.AuthInfo == nil {
		return nil, true, address
	}
	tls, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, p.AuthInfo.AuthType() == "insecure", address
	}
	if len(tls.State.VerifiedChains) == 0 { // no certificate, or one that nobody has checked
		return nil, false, address
	}
	leaf := tls.State.VerifiedChains[0][0]
	groups = slices.Clone(leaf.DNSNames)
	for _, u := range leaf.URIs {
		if group := groupOf(u); group != "" {
			groups = append(groups, group)
		}
	}
	return groups, false, address
}

// groupOf is the group edge for spiffe://example.com/gateway/edge, "" for anything else: a mesh gives certificates to
// workloads (spiffe://example.com/ns/shop/sa/edge) whose names are nothing to us. Whose trust domains count is settled
// by the CA.
func groupOf(u *url.URL) string {
	if u.Scheme != "spiffe" || u.Hostname() == "" || u.Port() != "" || u.User != nil {
		return ""
	}
	name, ok := strings.CutPrefix(u.Path, "/gateway/")
	if !ok || strings.Contains(name, "/") || u.String() != "spiffe://"+u.Host+"/gateway/"+name {
		return "" // the last: escapes, a query or a fragment
	}
	return name
}

// admit checks the node of a request. The first one says who the Envoy is; later ones may only say the same.
func (st *stream) admit(n *corev3.Node) error {
	defer st.hear(n)
	switch {
	case st.group == nil && n.GetId() == "":
		return status.Error(codes.InvalidArgument, "node.id has to be set")
	case st.group == nil && n.GetCluster() == "":
		return status.Error(codes.InvalidArgument, "node.cluster has to name the node group")
	case st.group == nil && !st.open && !slices.Contains(st.may, n.GetCluster()):
		st.server.o.Log.Warn("envoy refused", "node", n.GetId(), "group", n.GetCluster(), "address", st.address, "may", st.may)
		return status.Errorf(codes.PermissionDenied, "the client certificate does not name the group %q", n.GetCluster())
	case st.group == nil:
		st.enter(n)
		return nil
	case n == nil:
		return nil
	case n.GetId() != st.node.GetId() || n.GetCluster() != st.node.GetCluster():
		return status.Error(codes.PermissionDenied, "the node of a stream cannot change")
	default:
		return nil
	}
}

// envoyVersion is what the Envoy says of itself, as 1.40.0.
func envoyVersion(n *corev3.Node) string {
	v := n.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return n.GetUserAgentVersion()
	}
	return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
}
