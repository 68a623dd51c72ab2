package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Header is one line of a request's headers.
type Header struct{ Name, Value string }

// clientHeader is where Envoy writes the client's address.
const clientHeader = "x-envoy-external-address"

// normal does to a request what Envoy does before it looks for a route. refused tells why it does not come so far.
func normal(manager *hcmv3.HttpConnectionManager, r envoy.Request, headers []Header) (a *asked, refused *Refusal) {
	if most := manager.GetCommonHttpProtocolOptions().GetMaxHeadersCount().GetValue(); most > 0 && len(headers)+4 > int(most) {
		return nil, &Refusal{Status: 431, By: "the listener", Why: fmt.Sprintf("it takes at most %d headers", most)}
	}
	for _, h := range headers {
		if strings.Contains(h.Name, "_") {
			return nil, &Refusal{Status: 400, By: "the listener", Why: fmt.Sprintf("the name of the header %s has an underscore", h.Name)}
		}
	}
	r.Host = withoutPort(withoutLastDot(r.Host))
	path, ok := normalPath(r.Path)
	if !ok {
		return nil, &Refusal{Status: 400, By: "the listener", Why: "the path has an escaped slash, backslash or NUL"}
	}
	r.Path, r.Headers = path, joined(headers)
	a = ask(r)
	if !a.nominated() {
		return nil, &Refusal{Status: 400, By: "the listener", Why: "the header connection names headers that are none of a connection"}
	}
	if r.Method == "QUERY" && a.first("content-type") == "" {
		return nil, &Refusal{Status: 400, By: "the listener", Why: "QUERY is about a body: it needs a content-type"}
	}
	if lines := r.Headers["cookie"]; len(lines) > 1 || len(lines) == 1 && lines[0] == "" {
		a.unknown["cookie"] = unknown{"over HTTP/1.1 each cookie line counts by itself, over HTTP/2 they are one", strings.Join(lines, "") != ""}
	}
	a.early(manager)
	a.hopByHop()
	a.own(manager)
	return a, nil
}

// withoutLastDot takes one dot from the end of a host, also before its port.
func withoutLastDot(host string) string {
	i := strings.LastIndexByte(host, '.')
	if i < 0 || i+1 < len(host) && host[i+1] != ':' {
		return host
	}
	return host[:i] + host[i+1:]
}

// withoutPort takes a port from a host, whatever its number.
func withoutPort(host string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.LastIndexByte(host, ']') > i {
		return host
	}
	if _, err := strconv.ParseUint(strings.TrimSpace(host[i+1:]), 10, 32); err != nil {
		return host
	}
	return host[:i]
}

// known are the headers that Envoy keeps in one value whatever the number of their lines.
var known = strings.Fields(`accept accept-encoding access-control-request-headers access-control-request-method authentication authorization
	cache-control cdn-loop connection content-encoding content-type expect grpc-accept-encoding grpc-timeout if-match if-modified-since
	if-none-match if-range if-unmodified-since keep-alive origin pragma proxy-connection proxy-status referer te upgrade user-agent via
	x-client-trace-id x-forwarded-for x-forwarded-proto`)

// joined is the values of headers by their names.
func joined(headers []Header) map[string][]string {
	all := make(map[string][]string, len(headers))
	for _, h := range headers {
		name, value := strings.ToLower(h.Name), strings.Trim(h.Value, " \t")
		values := all[name]
		switch {
		case len(values) == 0 || !slices.Contains(known, name):
			all[name] = append(values, value)
		case values[0] == "":
			values[0] = value
		case value != "":
			values[0] += "," + value
		}
	}
	return all
}

// early removes what clients must not send, and notes what Envoy writes there.
func (a *asked) early(manager *hcmv3.HttpConnectionManager) {
	for _, extension := range manager.GetEarlyHeaderMutationExtensions() {
		var all earlyv3.HeaderMutation
		if extension.GetTypedConfig().UnmarshalTo(&all) != nil {
			continue
		}
		for _, m := range all.Mutations {
			a.mutate(m)
		}
	}
}

func (a *asked) mutate(m *mutationv3.HeaderMutation) {
	switch {
	case m.GetRemove() != "":
		delete(a.Headers, strings.ToLower(m.GetRemove()))
	case m.GetRemoveOnMatch() != nil:
		prefix := m.GetRemoveOnMatch().GetKeyMatcher().GetPrefix()
		for name := range a.Headers {
			if prefix != "" && strings.HasPrefix(name, prefix) {
				delete(a.Headers, name)
			}
		}
	case m.GetAppend() != nil:
		h := m.GetAppend().GetHeader()
		delete(a.Headers, h.GetKey())
		if strings.Contains(h.GetValue(), "%") {
			a.unknown[h.GetKey()] = unknown{why: fmt.Sprintf("Envoy makes the header %s of what it knows of the connection", h.GetKey())}
		} else {
			a.Headers[h.GetKey()] = []string{h.GetValue()}
		}
	}
}

// has tells whether a list in a header has a token.
func (a *asked) has(header, token string) bool {
	return slices.ContainsFunc(strings.Split(a.first(header), ","), func(one string) bool {
		return strings.EqualFold(strings.TrimSpace(one), token)
	})
}

// upgrades tells whether the request asks to go on in another protocol.
func (a *asked) upgrades() bool {
	return a.Headers["upgrade"] != nil && !strings.EqualFold(a.first("upgrade"), "h2c") && a.has("connection", "upgrade")
}

// mostNominated is how many headers a client may call those of one connection.
const mostNominated = 10

// nominated removes the headers that the header connection names; ok is false where it may not. An upgrade's stay.
func (a *asked) nominated() (ok bool) {
	tokens := strings.FieldsFunc(a.first("connection"), func(r rune) bool { return r == ',' })
	if a.upgrades() || len(tokens) == 0 {
		return true
	}
	if len(tokens) >= mostNominated {
		return false
	}
	for _, token := range tokens {
		switch name := strings.ToLower(strings.TrimSpace(token)); {
		case slices.Contains([]string{"", "close", "connection", "http2-settings", "keep-alive", "upgrade"}, name):
		case slices.Contains([]string{"host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}, name), name[0] == ':':
			return false
		case name != "te" || !a.has("te", "trailers"):
			delete(a.Headers, name)
		}
	}
	return true
}

// hopByHop removes the headers that are about one connection. An upgrade is about the request.
func (a *asked) hopByHop() {
	upgrade := a.upgrades()
	for _, name := range []string{"keep-alive", "proxy-connection", "transfer-encoding", "connection", "upgrade"} {
		if !upgrade || name != "connection" && name != "upgrade" {
			delete(a.Headers, name)
		}
	}
	switch {
	case upgrade:
	case a.has("te", "trailers"):
		a.Headers["te"] = []string{"trailers"}
	case a.first("te") != "":
		delete(a.Headers, "te")
	}
}

// own is the headers that Envoy writes itself before it looks for a route.
func (a *asked) own(manager *hcmv3.HttpConnectionManager) {
	set := func(name, value, why string) {
		if value == "" {
			delete(a.Headers, name)
			a.unknown[name] = unknown{why, true}
			return
		}
		a.Headers[name] = []string{value}
	}
	const say = "it depends on the client's address: say it with --from"
	if manager.GetVia() != "" {
		set("via", "", "Envoy adds itself to it")
	}
	if manager.GetAppendXForwardedPort() {
		set("x-forwarded-port", "", "Envoy writes the port that the client has gone to")
	}
	if manager.GetAddUserAgent().GetValue() && a.first("user-agent") == "" {
		set("user-agent", "", "Envoy gives its own name where the client has none")
	}
	hops, remote := manager.GetXffNumTrustedHops(), manager.GetUseRemoteAddress().GetValue()
	if _, told := a.Headers["x-forwarded-proto"]; !told || remote && hops == 0 {
		a.Headers["x-forwarded-proto"] = []string{a.Scheme}
	}
	if !remote {
		return
	}
	peer := ""
	if a.Client.IsValid() {
		peer = a.Client.String()
	}
	forwarded := a.first("x-forwarded-for")
	if client, ok := fromProxies(forwarded, hops); ok {
		a.Client = client
	}
	set("x-forwarded-for", peer, say)
	if peer != "" && forwarded != "" {
		a.Headers["x-forwarded-for"] = []string{forwarded + "," + peer}
	}
	client := ""
	if a.Client.IsValid() {
		client = a.Client.String()
	}
	set(clientHeader, client, say)
	set("x-request-id", "", "Envoy gives each request an ID of its own")
	delete(a.Headers, "x-forwarded-client-cert")
}

// fromProxies is the client's address of x-forwarded-for, where proxies in front are trusted to have written it: so many
// from the right. Where it is none, the peer is the client.
func fromProxies(forwarded string, hops uint32) (client netip.Addr, ok bool) {
	if hops == 0 {
		return client, false
	}
	all := strings.Split(forwarded, ",")
	if len(all) < int(hops) {
		return client, false
	}
	client, err := netip.ParseAddr(strings.TrimSpace(all[len(all)-int(hops)]))
	return client, err == nil && client.Zone() == ""
}

// request is what a question asks, before Envoy has touched it.
func (q Question) request(u target) envoy.Request {
	r := envoy.Request{Scheme: u.scheme, Method: q.Method, Host: u.host, Path: u.path, Client: q.From}
	for _, h := range q.Headers {
		if strings.EqualFold(h.Name, "host") {
			r.Host = h.Value
		}
	}
	return r
}

// headers is those of a question but for the host, which is none.
func (q Question) headers() []Header {
	return slices.DeleteFunc(slices.Clone(q.Headers), func(h Header) bool { return strings.EqualFold(h.Name, "host") })
}

// serverName is what a client that goes to a URL asks for in its TLS hello.
func serverName(u target) string {
	name := strings.ToLower(strings.TrimSuffix(u.name(), "."))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return ""
	}
	return name
}

// check refuses what is no request of HTTP.
func (q Question) check() error {
	switch {
	case !policy.IsToken(q.Method):
		return fmt.Errorf("%q is no method", q.Method)
	case q.Method == "CONNECT":
		return fmt.Errorf("CONNECT has no URL, and no listener takes it")
	}
	for _, h := range q.Headers {
		if !policy.IsToken(h.Name) {
			return fmt.Errorf("%q is no name of a header", h.Name)
		}
		if strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("the value of the header %s has a control character", h.Name)
		}
	}
	return nil
}
