package trial

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/policy"
)

// asked is what is known of a request before it is sent.
type asked struct {
	gateway  *policy.Gateway
	listener *policy.Listener
	url      string // whole
	host     string // as it is written in the URL
	path     string // as it is sent, with the query
	proxied  bool   // the listener wants to be told the address
	refunds  bool   // what it counts may be given back after the answer
}

// heard is what becomes of a request, as the client sees it.
type heard struct {
	status int // 0 where the connection ended without an answer
	header http.Header
	body   []byte
	client string // the address that it came from
	err    error  // why there is no answer
}

// client asks the Envoys of a run, on a new connection for each request.
type client struct {
	rig       *rig
	authority *authority
	jar       http.CookieJar
}

const (
	answerWait = 90 * time.Second // beyond what any timeout of a policy should need
	maxAnswer  = 4 << 20          // bytes of a body
)

// ask sends a request as the step has it. The error tells that it could not be sent, or that the run has ended.
func (c *client) ask(ctx context.Context, r *Request, a *asked) (*heard, error) {
	bounded, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	send := c.request
	if r.Send != "" {
		send = c.bytes
	}
	h, err := send(bounded, r, a)
	if err == nil && h.err != nil && bounded.Err() != nil {
		h.err = fmt.Errorf("nothing within %s", answerWait)
	}
	return h, errors.Join(err, ctx.Err())
}

func (c *client) request(ctx context.Context, r *Request, a *asked) (*heard, error) {
	q, err := c.compose(r, a)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, r, a, q)
}

// composed is a request with all that was asked for.
type composed struct {
	method, path, host string
	header             map[string][]string // by lower-case name
	body               []byte
	jar                *url.URL // where cookies are kept for
}

func (c *client) compose(r *Request, a *asked) (*composed, error) {
	q := &composed{method: r.Method, path: a.path, host: a.host, header: map[string][]string{}, body: []byte(r.Body)}
	for name, lines := range r.Headers {
		q.header[strings.ToLower(name)] = lines
	}
	if lines := q.header["host"]; len(lines) == 1 {
		q.host = lines[0]
		delete(q.header, "host")
	}
	if r.JSON != nil {
		q.body = must(json.Marshal(r.JSON.json))
		if q.header["content-type"] == nil {
			q.header["content-type"] = []string{"application/json"}
		}
	}
	if r.Basic != nil {
		pair := base64.StdEncoding.EncodeToString([]byte(r.Basic.User + ":" + r.Basic.Password))
		q.header["authorization"] = []string{"Basic " + pair}
	}
	q.cookies(c.jar, a)
	if r.Token == nil {
		return q, nil
	}
	made, err := c.rig.issuer.token(r.Token)
	if err != nil {
		return nil, err
	}
	q.bring(made)
	return q, nil
}

// cookies adds those that the case has been given, unless it says which to send.
func (q *composed) cookies(jar http.CookieJar, a *asked) {
	scheme := strings.ToLower(string(a.listener.Protocol))
	name, _, _ := strings.Cut(q.host, ":")
	path, _, _ := strings.Cut(q.path, "?")
	q.jar = &url.URL{Scheme: scheme, Host: name, Path: path}
	if q.header["cookie"] != nil {
		return
	}
	var pairs []string
	for _, one := range jar.Cookies(q.jar) {
		pairs = append(pairs, one.Name+"="+one.Value)
	}
	if len(pairs) > 0 {
		q.header["cookie"] = []string{strings.Join(pairs, "; ")}
	}
}

// bring puts a token where it is looked for.
func (q *composed) bring(c credential) {
	switch {
	case c.header != "":
		q.header[c.header] = []string{c.prefix + c.token}
	case c.cookie != "":
		pair := c.cookie + "=" + c.token
		if have := q.header["cookie"]; len(have) > 0 {
			pair = have[0] + "; " + pair
		}
		q.header["cookie"] = []string{pair}
	default:
		mark := "?"
		if strings.Contains(q.path, "?") {
			mark = "&"
		}
		q.path += mark + url.Values{c.query: {c.token}}.Encode()
	}
}

// send sends a request and reads the answer.
func (c *client) send(ctx context.Context, r *Request, a *asked, q *composed) (*heard, error) {
	grpc := slices.ContainsFunc(q.header["content-type"], func(t string) bool { return strings.HasPrefix(t, "application/grpc") })
	second := r.Protocol == "http2" || r.Protocol == "" && grpc
	conn, h, err := c.connect(ctx, r, a, second)
	if conn == nil {
		return h, err
	}
	defer conn.Close()
	var answer *http.Response
	if second {
		answer, err = q.http2(ctx, conn, a)
	} else {
		answer, err = q.http1(conn)
	}
	if err != nil {
		h.err = err
		return h, nil
	}
	defer answer.Body.Close()
	h.status, h.header = answer.StatusCode, answer.Header
	if h.body, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer)); err != nil {
		h.err = fmt.Errorf("the answer broke off: %w", err)
	}
	maps.Copy(h.header, answer.Trailer)
	c.jar.SetCookies(q.jar, answer.Cookies())
	return h, nil
}

// connect connects as the client of a step does. Without a connection it tells why in what is heard.
func (c *client) connect(ctx context.Context, r *Request, a *asked, second bool) (net.Conn, *heard, error) {
	address := c.rig.envoys[a.gateway.Name].ports[a.listener.Name]
	if address == "" {
		return nil, nil, fmt.Errorf("the Envoy of %s does not listen at %s", a.gateway.Name, a.listener.Name)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	h := &heard{client: conn.LocalAddr().String()}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	if r.From != nil || a.proxied {
		if _, err := conn.Write(introduction(r.From, conn)); err != nil {
			h.err = err
			return nil, h, conn.Close()
		}
	}
	if a.listener.Protocol == policy.HTTP || a.listener.Protocol == policy.TCP {
		return conn, h, nil
	}
	config, err := c.tls(r, a, second)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		h.err = fmt.Errorf("no TLS: %w", err)
		_ = conn.Close()
		return nil, h, nil
	}
	return secured, h, nil
}

func (c *client) tls(r *Request, a *asked, second bool) (*tls.Config, error) {
	name, _, _ := strings.Cut(a.host, ":")
	config := &tls.Config{
		ServerName: name, InsecureSkipVerify: true, // the run has made the certificate, whatever its names
		NextProtos: []string{"http/1.1"},
	}
	if r.ServerName != "" {
		config.ServerName = r.ServerName
	}
	switch {
	case a.listener.Protocol == policy.TLS:
		config.NextProtos = nil
	case second:
		config.NextProtos = []string{"h2"}
	}
	if r.Certificate != nil {
		shown, err := c.authority.issue(r.Certificate.values...)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{shown}
	}
	return config, nil
}

// introduction is the header of the PROXY protocol, version 2, which says where a client connects from.
func introduction(from *address, conn net.Conn) []byte {
	to := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	source := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	if from != nil {
		source = netip.AddrPortFrom(from.Unmap(), source.Port())
	}
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21")
	if source.Addr().Is4() {
		b = append(b, 0x11, 0, 12)
	} else {
		b = append(b, 0x21, 0, 36)
		to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
	}
	b = append(b, source.Addr().AsSlice()...)
	b = append(b, to.Addr().Unmap().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	return binary.BigEndian.AppendUint16(b, to.Port())
}

// http1 sends the request byte by byte as it is written: libraries would tidy it up.
func (q *composed) http1(conn net.Conn) (*http.Response, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.method, q.path, q.host)
	for _, name := range slices.Sorted(maps.Keys(q.header)) {
		for _, line := range q.header[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, line)
		}
	}
	bodied := len(q.body) > 0 || slices.Contains([]string{"POST", "PUT", "PATCH"}, q.method)
	if bodied && q.header["content-length"] == nil && q.header["transfer-encoding"] == nil {
		fmt.Fprintf(&b, "content-length: %d\r\n", len(q.body))
	}
	b.WriteString("\r\n")
	b.Write(q.body)
	if _, err := conn.Write(b.Bytes()); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(conn)
	for {
		answer, err := http.ReadResponse(lines, &http.Request{Method: q.method})
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, errors.New("the connection ended without an answer")
		}
		if err != nil || answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			if err == nil && answer.StatusCode == http.StatusSwitchingProtocols {
				answer.Body = http.NoBody // what follows is no HTTP
			}
			return answer, err
		}
	}
}

func (q *composed) http2(ctx context.Context, conn net.Conn, a *asked) (*http.Response, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	t := &http.Transport{Protocols: protocols, DialContext: dial, DialTLSContext: dial, DisableCompression: true}
	r := &http.Request{
		Method: q.method, Host: q.host, Header: http.Header{}, Proto: "HTTP/2.0", ProtoMajor: 2,
		URL:  &url.URL{Scheme: strings.ToLower(string(a.listener.Protocol)), Host: a.host, Opaque: q.path},
		Body: io.NopCloser(bytes.NewReader(q.body)), ContentLength: int64(len(q.body)),
	}
	if len(q.body) == 0 {
		r.Body = http.NoBody
	}
	for name, lines := range q.header {
		r.Header[http.CanonicalHeaderKey(name)] = lines
	}
	answer, err := t.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	return answer, nil
}

// bytes sends bytes to a listener that knows no requests, and reads what comes back of them.
func (c *client) bytes(ctx context.Context, r *Request, a *asked) (*heard, error) {
	conn, h, err := c.connect(ctx, r, a, false)
	if conn == nil {
		return h, err
	}
	if _, err := io.WriteString(conn, r.Send); err != nil {
		h.err = err
	}
	h.body = make([]byte, len(r.Send))
	n, err := io.ReadFull(conn, h.body)
	h.body = h.body[:n]
	if err != nil {
		h.err = errors.New("the connection ended")
	}
	_ = conn.Close()
	return h, nil
}

// login has a browser log in at the provider of an entry, and keeps what it is given.
func (c *client) login(ctx context.Context, r *Request, a *asked) error {
	page := *r
	page.Method, page.Body, page.JSON, page.Login = http.MethodGet, "", nil, nil
	page.Headers = maps.Clone(r.Headers)
	if page.Headers == nil {
		page.Headers = map[string]values{}
	}
	page.Headers["accept"] = values{"text/html"}
	sent, err := c.ask(ctx, &page, a)
	if err != nil {
		return err
	}
	c.rig.journal.take(ctx, sent.client, journalWait)
	back, err := c.rig.issuer.authorize(r.Login, sent.header.Get("Location"))
	if err != nil {
		return fmt.Errorf("%w: it is %d", err, sent.status)
	}
	u, err := url.Parse(back)
	if err != nil {
		return err
	}
	at := *a
	at.path, at.host = u.RequestURI(), u.Host
	done, err := c.ask(ctx, &page, &at)
	if err != nil {
		return err
	}
	c.rig.journal.take(ctx, done.client, journalWait)
	if done.status/100 != 3 {
		return fmt.Errorf("the login ends with %d: %.300s", done.status, done.body)
	}
	return nil
}
