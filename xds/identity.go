package xds

import (
	"context"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Identity is who an Envoy has proved to be.
type Identity struct {
	Groups []string  // that it may join
	Any    bool      // it may join any: the port is in plain text, on loopback only, which app sees to
	Until  time.Time // when what it has shown ends, and its streams with it; zero: never
}

// May tells whether the Envoy may join the group.
func (i Identity) May(group string) bool { return i.Any || slices.Contains(i.Groups, group) }

// ByCertificate knows an Envoy by its client certificate alone ([GroupsOf]), and without TLS not at all.
func ByCertificate(ctx context.Context) (Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, errNobody
	}
	if p.AuthInfo == nil {
		return Identity{Any: true}, nil
	}
	tls, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Identity{Any: p.AuthInfo.AuthType() == "insecure"}, nil
	}
	if len(tls.State.VerifiedChains) == 0 { // no certificate, or one that nobody has checked
		return Identity{}, errNobody
	}
	leaf := tls.State.VerifiedChains[0][0]
	return Identity{Groups: GroupsOf(leaf), Until: leaf.NotAfter}, nil
}

var (
	errNobody = status.Error(codes.PermissionDenied, "no client certificate was shown, or none that was checked")
	errLapsed = status.Error(codes.PermissionDenied, "the certificate or token of this stream no longer lets its Envoy have the group")
)

// GroupsOf is the groups that a client certificate names where no rule says otherwise: each of its DNS names, and what
// its URIs name ([groupOf]).
func GroupsOf(leaf *x509.Certificate) []string {
	groups := slices.Clone(leaf.DNSNames)
	for _, u := range leaf.URIs {
		if group := groupOf(u); group != "" {
			groups = append(groups, group)
		}
	}
	return groups
}

func addressOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
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
	switch {
	case st.group == nil && n.GetId() == "":
		return status.Error(codes.InvalidArgument, "node.id has to be set")
	case st.group == nil && n.GetCluster() == "":
		return status.Error(codes.InvalidArgument, "node.cluster has to name the node group")
	case st.group == nil && (strings.ContainsFunc(n.GetId(), unshown) || strings.ContainsFunc(n.GetCluster(), unshown)):
		return status.Error(codes.InvalidArgument, "node.id and node.cluster have characters that can't be shown")
	case st.group == nil:
		return st.welcome(n)
	case n == nil:
		return nil
	case n.GetId() != st.node.GetId() || n.GetCluster() != st.node.GetCluster():
		return status.Error(codes.PermissionDenied, "the node of a stream cannot change")
	default:
		return nil
	}
}

// welcome puts the stream into the group that it asks for, if it may join that.
func (st *stream) welcome(n *corev3.Node) error {
	rechecks := st.server.rechecks.Load()
	who, err := st.server.o.Identify(st.grpc.Context())
	if err != nil {
		return err
	}
	if !who.May(n.GetCluster()) {
		st.server.o.Log.Warn("envoy refused", "node", n.GetId(), "group", n.GetCluster(), "address", st.address, "may", who.Groups)
		return status.Errorf(codes.PermissionDenied, "neither certificate nor token name the group %q", n.GetCluster())
	}
	st.enter(n)
	if !who.Until.IsZero() {
		st.lapseAt(who.Until)
	}
	if st.server.rechecks.Load() != rechecks { // it began before we were in the group, and may have missed us
		st.recheck()
	}
	return nil
}

// lapseAt ends the stream with what its Envoy has shown.
func (st *stream) lapseAt(until time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.closed {
		st.lapse = time.AfterFunc(lifetime(time.Until(until)), func() { st.end(errLapsed) })
	}
}

// lifetime is how long a stream lives whose credentials end in d: up to a tenth less, and no more than half a minute,
// so that Envoys which started together don't come back together.
func lifetime(d time.Duration) time.Duration {
	return max(d, 0) - rand.N(min(max(d, 0)/10, 30*time.Second)+1)
}

// Recheck asks [Options.Identify] again about every stream, those of load reports among them, and ends those whose Envoy
// may no longer join its group. It is to be called when the rules have changed by which Envoys are known.
func (s *Server) Recheck() {
	s.rechecks.Add(1)
	for _, st := range s.connected() {
		st.recheck()
	}
	s.mu.Lock()
	loads := slices.Clone(s.loads)
	s.mu.Unlock()
	for _, l := range loads {
		l.recheck()
	}
}

func (st *stream) recheck() {
	if who, err := st.server.o.Identify(st.grpc.Context()); err != nil || !who.May(st.node.GetCluster()) {
		st.server.o.Log.Warn("envoy sent away: it may no longer have the group", "node", st.node.GetId(), "group", st.node.GetCluster(), "address", st.address)
		st.end(errLapsed)
	}
}

// envoyVersion is what the Envoy says of itself, as 1.40.0.
func envoyVersion(n *corev3.Node) string {
	v := n.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return legible(n.GetUserAgentVersion())
	}
	return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
}
