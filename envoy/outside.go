package envoy

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/anypb"
)

// Outside is a host that Envoy asks and that is no service of the policy, such as one that publishes keys. Over TLS it
// is believed by what the system that Envoy runs on trusts.
type Outside struct {
	Host string // a DNS name or an address
	Port uint32
	TLS  bool
}

// Cluster is the name of its cluster; no service has one with a slash.
func (o Outside) Cluster() string {
	return "outside/" + net.JoinHostPort(o.Host, strconv.Itoa(int(o.Port)))
}

// outside makes the clusters of the hosts that auth entries have Envoy ask, for gateways that serve HTTP.
func (t *translation) outside(gw *policy.Gateway) []asks {
	if !slices.ContainsFunc(gw.Listeners, (*policy.Listener).HTTP) {
		return nil
	}
	var list []asks
	made := make(map[string]bool)
	for _, a := range t.model.Auth {
		for _, u := range policy.Each[OutsideUser](a.Settings) {
			for _, o := range u.Outside() {
				if name := o.Cluster(); !made[name] {
					made[name] = true
					r := t.valid(Resource{Type: resource.ClusterType, Name: name, Message: o.cluster(), Pos: a.Pos})
					list = append(list, asksOf(r))
				}
			}
		}
	}
	return list
}

func (o Outside) cluster() *clusterv3.Cluster {
	s := &policy.Service{DNS: &policy.DNS{Endpoint: policy.Endpoint{Host: o.Host, Port: o.Port}, Logical: true}}
	s.Name = o.Cluster()
	c := baseCluster(s)
	if o.TLS {
		c.TransportSocket = o.socket()
	}
	fillCluster(c)
	upstream := baseUpstream()
	fillUpstream(upstream)
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: Pack(upstream)}
	return c
}

// socket is TLS to a host that has to show a certificate for its own name.
func (o Outside) socket() *corev3.TransportSocket {
	kind, sni := tlsv3.SubjectAltNameMatcher_DNS, o.Host
	if _, err := netip.ParseAddr(o.Host); err == nil {
		kind, sni = tlsv3.SubjectAltNameMatcher_IP_ADDRESS, ""
	}
	context := &tlsv3.UpstreamTlsContext{
		Sni: sni,
		CommonTlsContext: Trust(policy.Authority{System: true}, &tlsv3.CertificateValidationContext{
			MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: kind,
				Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: o.Host}},
			}},
		}),
	}
	context.CommonTlsContext.TlsParams = &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: Pack(context)},
	}
}
