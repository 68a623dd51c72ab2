package auth

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
)

// Reply is an answer to a request that may not pass, as a policy chooses it.
type Reply struct {
	Status  int               `json:"status,omitempty"`  // 400 to 599, or 301, 302, 303, 307, 308 with a location; 0 is 403
	Headers map[string]string `json:"headers,omitempty"` // names in lower case
	Body    string            `json:"body,omitempty"`    // at most 16 KiB; gRPC callers don't get it
}

// Bounds of a [Reply].
const (
	maxReply        = 16 << 10 // bytes of the body
	maxReplyHeaders = 32
)

// ownHeaders belong to the connection or to its framing.
var ownHeaders = []string{
	"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
	"grpc-status", "grpc-message", // of gRPC's answer, which is ours
}

var redirects = []int{301, 302, 303, 307, 308}

// status is that of the answer.
func (r *Reply) status() int {
	if r.Status == 0 {
		return http.StatusForbidden
	}
	return r.Status
}

// reply tells all that is wrong with an answer, if there is one.
func (f *flaws) reply(at string, r *Reply) {
	if r == nil {
		return
	}
	location, located := r.Headers["location"]
	switch status := r.status(); {
	case status >= 200 && status < 300:
		f.add(at+".status", "write 403, or another status from 400 on", "%d would tell the caller that all went well", status)
	case slices.Contains(redirects, status) && !located:
		f.add(at+".status", "write headers: {location: \"https://…\"}", "%d sends the caller elsewhere, but doesn't say where", status)
	case !slices.Contains(redirects, status) && (status < 400 || status > 599):
		f.add(at+".status", "", "want a status from 400 to 599, or a redirect (301, 302, 303, 307, 308), got %d", status)
	}
	if u, err := url.Parse(location); located && (err != nil || !slices.Contains([]string{"", "https", "http"}, u.Scheme) || location == "") {
		f.add(at+".headers.location", "", "want a URL or a path, got %.64q", location)
	}
	if len(r.Body) > maxReply || !utf8.ValidString(r.Body) {
		f.add(at+".body", "what is larger belongs on a page: redirect to it", "the body is not UTF-8, or has more than 16 KiB")
	}
	if len(r.Headers) > maxReplyHeaders {
		f.add(at+".headers", "", "%d headers, more than %d", len(r.Headers), maxReplyHeaders)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		f.err(at+".headers."+name, "", checkReplyHeader(name, r.Headers[name]))
	}
}

func checkReplyHeader(name, value string) error {
	switch {
	case strings.HasPrefix(name, ":"):
		return fmt.Errorf("%s is not a header but part of the status line", name)
	case !headerName(name):
		return fmt.Errorf("%q is not a header name: want letters, digits and dashes", name)
	case slices.Contains(ownHeaders, name):
		return fmt.Errorf("%s belongs to one connection; Envoy writes it itself", name)
	case strings.HasPrefix(name, "x-envoy-"):
		return fmt.Errorf("x-envoy- headers are Envoy's own")
	case value == "" || len(value) > maxValue || !utf8.ValidString(value) || !cleanValue(value):
		return fmt.Errorf("want one line of plain text of at most %d bytes, without spaces around it", maxValue)
	}
	return nil
}

// veto is why a request of a known caller may not pass, and its answer. Like a denial it stands for all requests of its
// kind, so it is made with the table and holds nothing of theirs.
type veto struct {
	*denial          // the answer, but for what follows; its reason is never told to the caller
	by        string // the layer that asks: "route/orders"
	rule      string // the rule that doesn't hold, or the path of the claim; "" where it has no name
	headers   []pair // of the answer
	challenge string // follows the rule's own in www-authenticate; "" where there is none to be told
}

// newVeto makes the answer that the policy chooses, or ours.
func newVeto(by, rule, reason string, r *Reply) *veto {
	d := newDenial(http.StatusForbidden, codes.PermissionDenied, "forbidden", "the caller may not do this", resultForbidden)
	d.reason = reason
	v := ourVeto(d)
	v.by, v.rule = by, rule
	if r == nil {
		return v
	}
	v.headers = []pair{noStore}
	d.status, d.code, d.body = r.status(), grpcCode(r.status()), r.Body
	if r.Body != "" {
		v.set("content-type", "text/plain; charset=utf-8")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		v.set(name, r.Headers[name])
	}
	return v
}

var noStore = pair{name: "cache-control", value: "no-store"}

// ourVeto has an answer of ours.
func ourVeto(d *denial) *veto {
	return &veto{denial: d, headers: []pair{noStore, {name: "content-type", value: "application/json"}}}
}

// set replaces a header of the answer.
func (v *veto) set(name, value string) {
	v.headers = slices.DeleteFunc(v.headers, func(h pair) bool { return h.name == name })
	v.headers = append(v.headers, pair{name: name, value: value})
}

// appendHeaders appends the headers of the answer, as they stand in a DeniedHttpResponse. challenge is how the rule asks
// for credentials (Bearer realm="idp"). Where the scope is too small, callers are told which they need (RFC 6750, 3.1):
// that is for Bearer only, and not where a policy hides what there is behind another status.
func (v *veto) appendHeaders(b []byte, challenge string, grpc bool) []byte {
	challenged := false
	for _, h := range v.headers {
		challenged = challenged || h.name == "www-authenticate"
		if grpc && h.name == "content-type" {
			continue // it is gRPC's
		}
		b = appendHeader(b, deniedHeaders, h.name, h.value)
	}
	switch {
	case challenged:
	case v.challenge != "" && strings.HasPrefix(challenge, "Bearer ") && (v.status == http.StatusForbidden || v.status == http.StatusUnauthorized):
		b = appendHeader(b, deniedHeaders, "www-authenticate", challenge+v.challenge)
	case v.status == http.StatusUnauthorized && challenge != "":
		b = appendHeader(b, deniedHeaders, "www-authenticate", challenge)
	}
	return b
}

// grpcCode is what gRPC callers get of a status; a route that is not to be found looks like Envoy's own 404.
func grpcCode(status int) codes.Code {
	switch {
	case status == http.StatusBadRequest:
		return codes.InvalidArgument
	case status == http.StatusUnauthorized:
		return codes.Unauthenticated
	case status == http.StatusNotFound:
		return codes.Unimplemented
	case status == http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case status >= 500:
		return codes.Unavailable
	}
	return codes.PermissionDenied
}
