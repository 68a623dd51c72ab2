package trial

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// Request is what a case sends.
type Request struct {
	Method      string            `policy:"method" doc:"default: GET, or POST with a body"`
	URL         string            `policy:"url" doc:"where to: a URL of http:// or https:// whose host, scheme and port find the listener, or a path below base"`
	Headers     map[string]values `policy:"headers" doc:"headers as a client sends them: a text, or a list of texts for several lines"`
	Body        string            `policy:"body" doc:"the body"`
	JSON        *value            `policy:"json" doc:"the body as JSON, with the content-type of it"`
	From        *address          `policy:"from" doc:"the address that the client connects from, such as 203.0.113.7; default: 127.0.0.1"`
	Gateway     string            `policy:"gateway" doc:"the gateway or sidecar that is asked, where the URL does not tell"`
	Listener    string            `policy:"listener" doc:"the listener that is asked, where the URL does not tell"`
	Protocol    httpVersion       `policy:"protocol" doc:"http1 or http2; default: http2 for gRPC, else http1"`
	Token       *Token            `policy:"token" doc:"a token that is made for an auth entry: its name, or {entry: idp, claims: {sub: alice}}"`
	Basic       *basic            `policy:"basic" doc:"a name and a password: {user: alice, password: secret}"`
	Login       *Token            `policy:"login" doc:"logs a browser in before, at the provider of an auth entry of oidc: its name, or {entry: staff, claims: {sub: alice}}"`
	Certificate *names            `policy:"certificate" doc:"the names in the certificate that the client shows: a name or a URI, or a list"`
	ServerName  string            `policy:"serverName" doc:"the name that a client of TLS asks for; default: the host of the URL"`
	Send        string            `policy:"send" doc:"the bytes to send to a listener of TCP or TLS, in the place of a URL"`

	node *policy.Node
}

// DecodePolicy reads METHOD URL, a URL, or a map.
func (r *Request) DecodePolicy(d *policy.Decode, n *policy.Node) {
	r.node = n
	if n.Kind == policy.Scalar {
		words := strings.Fields(n.Text)
		switch len(words) {
		case 1:
			r.Method, r.URL = "GET", words[0]
		case 2:
			r.Method, r.URL = words[0], words[1]
		default:
			d.Errorf(n, "want METHOD URL").Hintf("write GET http://localhost:10000/, or a map: {method: POST, url: http://…, body: …}")
			return
		}
		r.check(d, n, n)
		return
	}
	if !d.Decode(n, r) {
		return
	}
	if r.Method == "" && (r.Body != "" || r.JSON != nil) {
		r.Method = "POST"
	}
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.Certificate != nil && (len(r.Certificate.values) == 0 || slices.ContainsFunc(r.Certificate.values, func(name string) bool { return !isName(name) })) {
		d.Errorf(n.Get("certificate"), "want names that a certificate can be for").Hintf("write orders.example.com, or spiffe://example/orders")
	}
	at := n.Get("url")
	if n.Get("send") != nil {
		r.checkBytes(d, n)
		return
	}
	if at == nil {
		d.Errorf(n, "a url is missing").Hintf("write url: http://localhost:10000/, or listener and send for one of TCP or TLS")
		return
	}
	r.check(d, at, n)
	if r.Body != "" && r.JSON != nil {
		d.Errorf(n.Get("json"), "stands beside body").Hintf("keep one of the two")
	}
}

// checkBytes holds a request to a listener of TCP or TLS to what it can have.
func (r *Request) checkBytes(d *policy.Decode, n *policy.Node) {
	for _, key := range n.Keys {
		if !slices.Contains([]string{"send", "listener", "gateway", "from", "serverName", "certificate"}, key.Text) {
			d.Errorf(key, "stands beside send, which is for listeners of TCP and TLS").Hintf("leave one of the two out")
		}
	}
	if r.Listener == "" {
		d.Errorf(n, "bytes are for a listener, and none is named").Hintf("write listener: db")
	}
}

var (
	methodForm = regexp.MustCompile(`^[!#$%&'*+.^_|~0-9A-Za-z-]{1,40}$`)
	headerForm = regexp.MustCompile(`^[!#$%&'*+.^_|~0-9A-Za-z-]{1,200}$`)
	number     = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
)

func jsonNumber(text string) any { return json.Number(text) }

// check holds what would break the request's own lines against their form.
func (r *Request) check(d *policy.Decode, at, n *policy.Node) {
	switch {
	case !methodForm.MatchString(r.Method):
		method := n
		if m := n.Get("method"); m != nil {
			method = m
		}
		d.Errorf(method, "%q is no method", r.Method).Hintf("write GET, POST, …")
	case r.URL == "" || strings.ContainsFunc(r.URL, func(c rune) bool { return unprintable(c) || c == ' ' }):
		d.Errorf(at, "want a URL without spaces").Hintf("a client would write %%20")
	case !strings.HasPrefix(r.URL, "/") && !strings.HasPrefix(r.URL, "http://") && !strings.HasPrefix(r.URL, "https://"):
		d.Errorf(at, "want a URL of http:// or https://, or a path below base, got %q", r.URL).Hintf("write http://localhost:10000/")
	}
	headers := n.Get("headers")
	if headers == nil {
		return
	}
	for i, key := range headers.Keys {
		lines := r.Headers[key.Text]
		switch {
		case !headerForm.MatchString(key.Text):
			d.Errorf(key, "%q is no name of a header", key.Text)
		case slices.ContainsFunc(lines, func(line string) bool { return strings.ContainsAny(line, "\r\n\x00") }):
			d.Errorf(headers.Items[i], "a header is one line")
		}
	}
}

// values is a text or a list of texts.
type values []string

// DecodePolicy reads one or a list.
func (v *values) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.List {
		d.Decode(n, (*[]string)(v))
		return
	}
	*v = make(values, 1)
	d.Decode(n, &(*v)[0])
}

// PolicySchema describes both forms.
func (*values) PolicySchema(*policy.Schemas) map[string]any {
	one := map[string]any{"type": []string{"string", "number", "boolean"}}
	return map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": 1, "items": one}}}
}

// names is values that name things.
type names struct{ values }

// nameForm is what certificates can say: host names, addresses and URIs.
var nameForm = regexp.MustCompile(`^[!-~]{1,250}$`)

// isName tells whether a certificate can be for a name.
func isName(name string) bool {
	_, err := url.Parse(name)
	return nameForm.MatchString(name) && (err == nil || !strings.Contains(name, "://"))
}

// address is that of a client.
type address struct{ netip.Addr }

// DecodePolicy reads an address.
func (a *address) DecodePolicy(d *policy.Decode, n *policy.Node) {
	parsed, err := netip.ParseAddr(n.Text)
	if n.Kind != policy.Scalar || err != nil || parsed.Zone() != "" {
		d.Errorf(n, "want an IP address such as 203.0.113.7")
		return
	}
	a.Addr = parsed
}

// PolicySchema describes an address.
func (*address) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "description": "an IP address, such as 203.0.113.7"}
}

// httpVersion is the protocol that a client speaks.
type httpVersion string

// Values are the protocols.
func (httpVersion) Values() []string { return []string{"http1", "http2"} }

// basic is a name and its password.
type basic struct {
	User     string `policy:"user,required" doc:"the name"`
	Password string `policy:"password,required" doc:"the password, as one types it"`
}

// Token is a token that the run signs, for an auth entry of the policy, or what the provider of a login says of somebody.
type Token struct {
	Entry   string           `policy:"entry,required" doc:"the auth entry that it is for: of jwt or introspection, of a login of oidc"`
	Claims  map[string]value `policy:"claims" doc:"what it says; iss, aud, iat and exp are filled in so that it is good, and sub is test"`
	Without []string         `policy:"without" doc:"claims that are left out, of those that are filled in"`
	Expired bool             `policy:"expired" doc:"whether it has expired, an hour ago"`
	Forged  bool             `policy:"forged" doc:"whether somebody else has signed it"`

	node *policy.Node
}

// DecodePolicy reads the name of an entry, or a map.
func (t *Token) DecodePolicy(d *policy.Decode, n *policy.Node) {
	t.node = n
	if n.Kind == policy.Scalar {
		d.Decode(n, &t.Entry)
		return
	}
	d.Decode(n, t)
}

// PolicySchema describes both forms.
func (t *Token) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{map[string]any{"type": "string"}, s.Of(t)}}
}

// entry is where the name of the auth entry stands.
func (t *Token) entry() *policy.Node {
	if n := t.node.Get("entry"); n != nil {
		return n
	}
	return t.node
}

// PolicySchema describes both forms.
func (r *Request) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{map[string]any{"type": "string", "description": "METHOD URL"}, s.Of(r)}}
}
