package auth

import (
	"net/netip"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// request is what Envoy tells about a request, as far as it is needed here. [request.decode] and [request.read] fill it.
type request struct {
	method, path, host, scheme string // as Envoy sends them
	extensions                 []pair // of several with one name the last counts
	headers                    []pair // names in lower case; of several with one name the last counts
	listed                     []pair // all of the headers, each by itself, when isListed: Envoy was told to send them raw
	isListed                   bool
	peer                       string // address of the TCP peer; "" when it has no socket address
	certificate                string // of the TLS client, verified by Envoy: PEM, URL-encoded; "" without one
}

// pair is a name and its value.
type pair struct {
	name, value string
	raw         string // of listed headers: the value as bytes
}

// read takes what the generated types hold.
func (q *request) read(m *authv3.CheckRequest) {
	a := m.GetAttributes()
	for name, value := range a.GetContextExtensions() {
		q.extensions = append(q.extensions, pair{name: name, value: value})
	}
	h := a.GetRequest().GetHttp()
	q.method, q.path, q.host, q.scheme = h.GetMethod(), h.GetPath(), h.GetHost(), h.GetScheme()
	for name, value := range h.GetHeaders() {
		q.headers = append(q.headers, pair{name: name, value: value})
	}
	q.isListed = h.GetHeaderMap() != nil
	for _, v := range h.GetHeaderMap().GetHeaders() {
		q.listed = append(q.listed, pair{v.GetKey(), v.GetValue(), string(v.GetRawValue())})
	}
	q.peer = a.GetSource().GetAddress().GetSocketAddress().GetAddress()
	q.certificate = a.GetSource().GetCertificate()
}

// mostKept bounds the room that is kept for the next request.
const mostKept = 128

// reset makes room for the next request, and lets go of this one's texts.
func (q *request) reset() {
	*q = request{extensions: emptied(q.extensions), headers: emptied(q.headers), listed: emptied(q.listed)}
}

func emptied(list []pair) []pair {
	if cap(list) > mostKept {
		return nil
	}
	clear(list)
	return list[:0]
}

// ruleID is the ID or the name of the rule that the route names.
func (q *request) ruleID() string { return last(q.extensions, RuleExtension) }

func last(list []pair, name string) string {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].name == name {
			return list[i].value
		}
	}
	return ""
}

// header returns a header's values, joined by commas as Envoy does itself unless it is told to send raw headers.
func (q *request) header(name string) string {
	if !q.isListed {
		return last(q.headers, name)
	}
	var values []string
	for _, h := range q.listed {
		if strings.EqualFold(h.name, name) {
			values = append(values, h.value+h.raw)
		}
	}
	separator := ","
	if name == "cookie" { // RFC 9113, 8.2.3
		separator = "; "
	}
	return strings.Join(values, separator)
}

// isGRPC tells whether Envoy takes the request for gRPC.
func (q *request) isGRPC() bool {
	rest, ok := strings.CutPrefix(q.header("content-type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}

// client is the address of the client. Envoy tells the TCP peer as the source even where it trusts a balancer's
// header, so its own conclusion comes first.
func (q *request) client() netip.Addr {
	for _, text := range [...]string{q.header("x-envoy-external-address"), q.peer} {
		if text == "" {
			continue
		}
		if a, err := netip.ParseAddr(text); err == nil {
			return a.WithZone("").Unmap()
		}
	}
	return netip.Addr{}
}
