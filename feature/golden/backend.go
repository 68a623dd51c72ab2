package golden

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"google.golang.org/grpc"
)

// Backend runs a server until the test ends, and returns its address for a policy's endpoints.
func Backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Accept runs a server of connections until the test ends, and returns its address. A connection is closed once serve
// has returned.
func Accept(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// GRPC runs a server of gRPC until the test ends, and returns its address.
func GRPC(t *testing.T, register func(grpc.ServiceRegistrar), options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	register(s)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// Dead returns an address that nobody listens at, and that nobody else gets until the test ends: the port is bound.
func Dead(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", address.(*syscall.SockaddrInet4).Port)
}

// Received is what a backend got.
type Received struct {
	Path   string // as on the wire, with the query
	Host   string
	Header http.Header
}

// Echo answers with what it received, as JSON.
func Echo(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(Received{r.RequestURI, r.Host, r.Header})
}

// Received reads the answer of an [Echo].
func (a Answer) Received(t *testing.T) Received {
	t.Helper()
	var r Received
	if err := json.Unmarshal([]byte(a.Body), &r); err != nil {
		t.Fatalf("status %d, body %q: %v", a.Status, a.Body, err)
	}
	return r
}
