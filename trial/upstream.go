package trial

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// samples stand for the backends of all services: each endpoint of a service is one of them. They speak HTTP/1.1, HTTP/2
// and gRPC, with TLS or without, whichever Envoy does; bytes that are none of these they send back.
type samples struct {
	authority *authority
	all       []*sample
	done      sync.WaitGroup

	mu       sync.Mutex // guards what follows
	playing  map[string]behaviours
	used     map[string]uint32 // requests that the first of them has held for
	received []got
	arrived  chan struct{} // closed when something is received
}

// got is a request that a sample has received.
type got struct {
	service, method, host, path, id, body string
	header                                http.Header
}

// sample is one endpoint of a service.
type sample struct {
	of      *samples
	service string
	names   []string // that its certificate has, whatever else is asked for
	healthy int      // the status that Envoy's health checks want
	address string
	server  *http.Server

	mu       sync.Mutex // guards what follows
	listener net.Listener
	open     map[net.Conn]bool
}

func newSamples(ca *authority) *samples {
	return &samples{authority: ca, playing: map[string]behaviours{}, used: map[string]uint32{}, arrived: make(chan struct{})}
}

// start opens a sample of a service on any free port.
func (s *samples) start(service string) (*sample, error) {
	one := &sample{of: s, service: service, healthy: http.StatusOK, open: map[net.Conn]bool{}}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	one.server = &http.Server{
		Handler: one, Protocols: protocols, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
	}
	if err := one.listen("127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.all = append(s.all, one)
	return one, nil
}

// close ends all samples and what they are answering.
func (s *samples) close() {
	for _, one := range s.all {
		one.down()
		_ = one.server.Close()
	}
	s.done.Wait()
}

// listen opens the port, or opens it again.
func (s *sample) listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.listener, s.address = l, l.Addr().String()
	s.mu.Unlock()
	front := &front{of: s, listener: l, ready: make(chan net.Conn), closed: make(chan struct{})}
	s.of.done.Go(front.accept)
	s.of.done.Go(func() { _ = s.server.Serve(front) })
	return nil
}

// down closes the port and all connections.
func (s *sample) down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return
	}
	_ = s.listener.Close()
	s.listener = nil
	for c := range s.open {
		_ = c.Close()
	}
	clear(s.open)
}

// up opens the port that was closed.
func (s *sample) up() error {
	s.mu.Lock()
	closed := s.listener == nil
	s.mu.Unlock()
	if !closed {
		return nil
	}
	return s.listen(s.address)
}

// front tells connections of TLS, of HTTP and of bytes apart by how they begin.
type front struct {
	of       *sample
	listener net.Listener
	ready    chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (f *front) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			_ = f.Close()
			return
		}
		f.of.mu.Lock()
		f.of.open[c] = true
		f.of.mu.Unlock()
		f.of.of.done.Go(func() { f.sort(c) })
	}
}

// firstBytes is how long a connection may take until it says what it speaks.
const firstBytes = time.Minute

func (f *front) sort(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(firstBytes))
	spoken, start := begin(c, func() { f.of.forget(c) })
	// TLS of Envoy's own may hold that of a client, which Envoy passes on.
	const handshake = 0x16
	for layers := 0; start == handshake && layers < 2; layers++ {
		ended := tls.Server(spoken, f.of.tls())
		if err := ended.Handshake(); err != nil {
			_ = ended.Close()
			return
		}
		if spoken, start = ended, letters[0]; ended.ConnectionState().NegotiatedProtocol == "" {
			spoken, start = begin(ended, func() {})
		}
	}
	_ = c.SetReadDeadline(time.Time{})
	switch {
	case start == 0:
		_ = spoken.Close()
		return
	case !slices.Contains(letters, start):
		f.of.echo(spoken)
		return
	}
	select {
	case f.ready <- spoken:
	case <-f.closed:
		_ = spoken.Close()
	}
}

// begin looks at the first byte of a connection; 0 where there is none.
func begin(c net.Conn, closed func()) (net.Conn, byte) {
	b := &begun{Conn: c, read: bufio.NewReader(c), closed: closed}
	start, err := b.read.Peek(1)
	if err != nil {
		return b, 0
	}
	return b, start[0]
}

// letters begin the requests of HTTP, whose methods are in upper case, and PRI of HTTP/2.
var letters = []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

func (f *front) Accept() (net.Conn, error) {
	select {
	case c := <-f.ready:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *front) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.listener.Close()
}

func (f *front) Addr() net.Addr { return f.listener.Addr() }

// begun is a connection of which some bytes were looked at.
type begun struct {
	net.Conn
	read   *bufio.Reader
	closed func()
}

func (b *begun) Read(p []byte) (int, error) { return b.read.Read(p) }

func (b *begun) Close() error {
	b.closed()
	return b.Conn.Close()
}

func (s *sample) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// tls shows a certificate for whatever name is asked for, and for those that Envoy holds against it.
func (s *sample) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert, // whether it may be believed is not for a sample to say
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			names := slices.Clone(s.names)
			if hello.ServerName != "" && !slices.Contains(names, hello.ServerName) {
				names = append(names, hello.ServerName)
			}
			if len(names) == 0 {
				names = []string{"127.0.0.1"}
			}
			c, err := s.of.authority.issue(names...)
			return &c, err
		},
	}
}

// echo sends bytes back, and notes the first of them.
func (s *sample) echo(c net.Conn) {
	defer c.Close()
	noted := false
	buffer := make([]byte, 32<<10)
	for {
		n, err := c.Read(buffer)
		if n > 0 && !noted {
			s.of.note(got{service: s.service, body: string(buffer[:n])})
			noted = true
		}
		if _, sent := c.Write(buffer[:n]); err != nil || sent != nil {
			return
		}
	}
}

// maxBody is how much of a request's body is kept.
const maxBody = 1 << 20

// ServeHTTP notes a request and answers it, as the case says that the service behaves.
func (s *sample) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.UserAgent() == "Envoy/HC" {
		w.WriteHeader(s.healthy)
		return
	}
	isGRPC := strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
	if isGRPC && aside(w, r) {
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return
	}
	s.of.note(got{
		service: s.service, method: r.Method, host: r.Host, path: r.RequestURI, id: r.Header.Get("X-Request-Id"),
		body: string(body), header: r.Header.Clone(),
	})
	b := s.of.next(s.service)
	if !pause(r.Context(), time.Duration(b.Delay)) {
		return
	}
	if b.Reset {
		panic(http.ErrAbortHandler)
	}
	answer(w, r, b, s.service, body, isGRPC)
}

// aside answers the calls of gRPC that Envoy makes for itself: health checks, and reports to collectors.
func aside(w http.ResponseWriter, r *http.Request) bool {
	reply := []byte{0, 0, 0, 0, 0}
	switch {
	case r.URL.Path == "/grpc.health.v1.Health/Check":
		reply = []byte{0, 0, 0, 0, 2, 8, 1} // SERVING
	case strings.HasPrefix(r.URL.Path, "/opentelemetry.proto.collector."), strings.HasPrefix(r.URL.Path, "/envoy.service."):
	default:
		return false
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write(reply)
	w.Header().Set("Grpc-Status", "0")
	return true
}

// pause waits, unless nobody waits for the answer any more.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func answer(w http.ResponseWriter, r *http.Request, b *Behaviour, service string, body []byte, isGRPC bool) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Service", service)
	if isGRPC {
		h.Set("Content-Type", "application/grpc")
		h.Set("Trailer", "Grpc-Status")
	}
	for name, lines := range b.Headers {
		h[http.CanonicalHeaderKey(name)] = lines
	}
	status := http.StatusOK
	if b.Status != nil {
		status = int(*b.Status)
	}
	w.WriteHeader(status)
	switch {
	case b.Body != nil:
		_, _ = io.WriteString(w, *b.Body)
	case isGRPC:
		_, _ = w.Write(body) // the message, back
	default:
		said := json.NewEncoder(w)
		said.SetEscapeHTML(false)
		_ = said.Encode(map[string]string{"service": service, "method": r.Method, "host": r.Host, "path": r.RequestURI, "body": string(body)})
	}
	if isGRPC {
		h.Set("Grpc-Status", "0")
	}
}

// next is how a service behaves at this request.
func (s *samples) next(service string) *Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.playing[service]
	if len(list) == 0 {
		return new(Behaviour)
	}
	b := list[0]
	if s.used[service]++; b.Times != nil && s.used[service] >= *b.Times {
		s.playing[service], s.used[service] = list[1:], 0
	}
	return b
}

// behave has services behave so from now on. Those that are down are so at once.
func (s *samples) behave(how upstreams) error {
	s.mu.Lock()
	for service, list := range how {
		s.playing[service], s.used[service] = list, 0
	}
	s.mu.Unlock()
	for _, one := range s.all {
		list, said := how[one.service]
		switch {
		case said && list[0].Down:
			one.down()
		case said:
			if err := one.up(); err != nil {
				return err
			}
		}
	}
	return nil
}

// recover has all services behave well, and tells whether any did not.
func (s *samples) recover() (did bool, err error) {
	s.mu.Lock()
	did = len(s.playing) > 0
	clear(s.playing)
	clear(s.used)
	s.mu.Unlock()
	var errs []error
	if did {
		for _, one := range s.all {
			errs = append(errs, one.up())
		}
	}
	return did, errors.Join(errs...)
}

func (s *samples) note(g got) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, g)
	close(s.arrived)
	s.arrived = make(chan struct{})
}

// forget drops what was received so far.
func (s *samples) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = nil
}

// of is what was received of a request, and what is closed when there is more. Without an ID it is all.
func (s *samples) since(id string) ([]got, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []got
	for _, g := range s.received {
		if id == "" || g.id == "" || g.id == id {
			all = append(all, g)
		}
	}
	return all, s.arrived
}
