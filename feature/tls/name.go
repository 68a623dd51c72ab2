package tls

import (
	"net/netip"
	"regexp"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/policy"
)

// Name is one of the names that a certificate may be for (subject alternative name), as written: {dns: api.internal},
// {dns: "*.internal"} for all below it, {uri: spiffe://mesh/orders}, {uri: spiffe://mesh/*} for all below it, or {ip: 10.0.0.1}.
type Name struct {
	kind  tlsv3.SubjectAltNameMatcher_SanType
	value string
	below bool // value is how a DNS name ends, or how a URI begins
}

var (
	cleanHost = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$`)
	cleanURI  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$`)
)

// maxHost is the most bytes of a host name.
const maxHost = 253

func isHost(name string) bool {
	_, err := netip.ParseAddr(name)
	return err != nil && len(name) <= maxHost && cleanHost.MatchString(name)
}

// DecodePolicy reads a name.
func (n *Name) DecodePolicy(d *policy.Decode, node *policy.Node) {
	if node.Kind != policy.Map {
		d.Errorf(node, "want one of {dns: …}, {uri: …} and {ip: …}").Hintf("the kind of a name counts: write {dns: api.internal} or {uri: spiffe://mesh/orders}")
		return
	}
	var doc struct {
		DNS *string `policy:"dns"`
		URI *string `policy:"uri"`
		IP  *string `policy:"ip"`
	}
	if !d.Decode(node, &doc) {
		return
	}
	if len(node.Keys) != 1 {
		d.Errorf(node, "want one of dns, uri and ip, got %d keys", len(node.Keys)).Hintf("write an entry of the list for each")
		return
	}
	switch at := node.Items[0]; {
	case doc.DNS != nil:
		n.readDNS(d, at, *doc.DNS)
	case doc.URI != nil:
		n.readURI(d, at, *doc.URI)
	default:
		ip, err := netip.ParseAddr(*doc.IP)
		if err != nil || ip.Zone() != "" {
			d.Errorf(at, "%q is no IP address", *doc.IP)
			return
		}
		*n = Name{kind: tlsv3.SubjectAltNameMatcher_IP_ADDRESS, value: ip.Unmap().String()}
	}
}

func (n *Name) readDNS(d *policy.Decode, at *policy.Node, name string) {
	host, below := strings.CutPrefix(strings.ToLower(name), "*.")
	if !isHost(host) {
		d.Errorf(at, "%q is no host name", name).Hintf(`write api.internal, or "*.internal" for all below it`)
		return
	}
	*n = Name{kind: tlsv3.SubjectAltNameMatcher_DNS, value: host, below: below}
}

func (n *Name) readURI(d *policy.Decode, at *policy.Node, uri string) {
	start, below := strings.CutSuffix(uri, "/*")
	switch {
	case !cleanURI.MatchString(start) || below && strings.HasSuffix(start, "/"):
		d.Errorf(at, "%q is no URI", uri).Hintf("write spiffe://mesh/orders, or spiffe://mesh/* for all below it")
	case strings.Contains(start, "*"):
		d.Errorf(at, "a star stands for all below a segment, at the end: %q has one elsewhere", uri).Hintf("write spiffe://mesh/* for all below it")
	case below:
		*n = Name{kind: tlsv3.SubjectAltNameMatcher_URI, value: start + "/", below: true}
	default:
		*n = Name{kind: tlsv3.SubjectAltNameMatcher_URI, value: uri}
	}
}

// PolicySchema describes a name.
func (*Name) PolicySchema(*policy.Schemas) map[string]any {
	text := map[string]any{"type": "string", "minLength": 1}
	return map[string]any{"oneOf": []any{policy.OnlyKey("dns", text), policy.OnlyKey("uri", text), policy.OnlyKey("ip", text)}}
}

// matcher compares the name with one of a certificate's. An exact DNS name is also met by a certificate for *.name, one
// level up.
func (n Name) matcher() *tlsv3.SubjectAltNameMatcher {
	m := new(matcherv3.StringMatcher)
	switch {
	case n.below && n.kind == tlsv3.SubjectAltNameMatcher_DNS:
		m.MatchPattern, m.IgnoreCase = &matcherv3.StringMatcher_Suffix{Suffix: "." + n.value}, true
	case n.below:
		m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: n.value}
	default:
		m.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: n.value}
	}
	return &tlsv3.SubjectAltNameMatcher{SanType: n.kind, Matcher: m}
}

func matchers(names []Name) []*tlsv3.SubjectAltNameMatcher {
	var all []*tlsv3.SubjectAltNameMatcher
	for _, n := range names {
		all = append(all, n.matcher())
	}
	return all
}
