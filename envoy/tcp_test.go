package envoy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/envoy/certtest"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

func listenerOf(name string, p policy.Protocol) *policy.Listener {
	l := httpListener(name)
	l.Protocol = p
	return l
}

// connectionRoute is a route of a listener of TCP or TLS.
func connectionRoute(name, listener string, hostnames []string, to ...policy.Backend) *policy.BoundRoute {
	r := route(name, hostnames[0], "", to...)
	r.Hostnames, r.Listeners, r.Layer4 = hostnames, []string{listener}, true
	return r
}

// greeter is a backend that says its name and then repeats what it hears; with a configuration it speaks TLS.
func greeter(t *testing.T, name string, config *tls.Config) *policy.Service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr()
	if config != nil {
		l = tls.NewListener(l, config)
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
				fmt.Fprintln(conn, name)
				io.Copy(conn, conn)
			}()
		}
	}()
	return service(name, endpoint(address))
}

// greeted is the name that a connection leads to, having sent bytes to and fro; empty where it is closed.
func greeted(t *testing.T, conn net.Conn, err error) string {
	t.Helper()
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(conn)
	name, err := r.ReadString('\n')
	if err != nil {
		return ""
	}
	fmt.Fprintln(conn, "hello")
	if echo, err := r.ReadString('\n'); echo != "hello\n" {
		t.Errorf("%s repeated %q: %v", name, echo, err)
	}
	return strings.TrimSpace(name)
}

func TestConnections(t *testing.T) {
	ca := certtest.NewAuthority(t, "ca")
	own := func(names ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, names...).TLS(t)}}
	}
	plain, one, two, rest := greeter(t, "plain", nil), greeter(t, "one", own("one.test")),
		greeter(t, "two", own("*.two.test")), greeter(t, "rest", own("rest.test"))
	half := service("half", closedPort(t), plain.Endpoints[0])
	again := service("again", plain.Endpoints...)
	ended := listenerOf("ended", policy.TLS)
	ended.Certificates = httpsListener("", "a.test", "*.b.test", "x.b.test").Certificates
	open := listenerOf("open", policy.TLS)
	open.Certificates = httpsListener("", "").Certificates
	m := modelOf(
		[]*policy.Listener{
			listenerOf("tcp", policy.TCP), listenerOf("half", policy.TCP), listenerOf("shared", policy.TCP), listenerOf("empty", policy.TCP),
			listenerOf("through", policy.TLS), listenerOf("some", policy.TLS), ended, open,
		},
		connectionRoute("tcp", "tcp", []string{"*"}, to(plain)),
		connectionRoute("half", "half", []string{"*"}, to(half)),
		connectionRoute("shared", "shared", []string{"*"}, to(again), to(plain)),
		connectionRoute("one", "through", []string{"one.test"}, to(one)),
		connectionRoute("two", "through", []string{"*.two.test", "two.test"}, to(two)),
		connectionRoute("rest", "through", []string{"*"}, to(rest)),
		connectionRoute("some", "some", []string{"one.test"}, to(one)),
		connectionRoute("ended-a", "ended", []string{"a.test", "deep.b.test"}, to(plain)),
		connectionRoute("ended-rest", "ended", []string{"*"}, to(greeter(t, "other", nil))),
		connectionRoute("open", "open", []string{"*"}, to(plain)),
	)
	addresses := live(t, withCertificates(t, m, ca))
	dial := func(listener string) string {
		conn, err := net.Dial("tcp", addresses[listener])
		return greeted(t, conn, err)
	}
	for listener, want := range map[string]string{"tcp": "plain", "half": "plain", "shared": "plain", "empty": ""} {
		if got := dial(listener); got != want {
			t.Errorf("%s: got %q, want %q", listener, got, want)
		}
	}
	for _, listener := range []string{"through", "ended"} {
		conn, err := net.Dial("tcp", addresses[listener])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET / HTTP/1.1\r\n\r\n")
		if got := greeted(t, conn, nil); got != "" {
			t.Errorf("%s: what is not TLS got to %q", listener, got)
		}
	}
	rows := []struct{ listener, serverName, want, certificate string }{
		{"through", "one.test", "one", "one.test"},
		{"through", "a.b.two.test", "two", "*.two.test"},
		{"through", "TWO.test", "two", "*.two.test"},
		{"through", "three.test", "rest", "rest.test"},
		{"through", "", "rest", "rest.test"},
		{"some", "one.test", "one", "one.test"},
		{"some", "three.test", "", ""},
		{"some", "", "", ""},
		{"ended", "a.test", "plain", "a.test"},
		{"ended", "deep.b.test", "plain", "*.b.test"},
		{"ended", "x.b.test", "other", "x.b.test"},
		{"ended", "y.b.test", "other", "*.b.test"},
		{"ended", "c.test", "", ""},
		{"open", "any.test", "plain", "default.test"},
		{"open", "", "plain", "default.test"},
	}
	for _, r := range rows {
		conn, err := tls.Dial("tcp", addresses[r.listener], &tls.Config{ServerName: r.serverName, InsecureSkipVerify: true})
		certificate := ""
		if err == nil {
			certificate = conn.ConnectionState().PeerCertificates[0].DNSNames[0]
		}
		if got := greeted(t, conn, err); got != r.want || certificate != r.certificate {
			t.Errorf("%s: %q got to %q by %q, want %q by %q", r.listener, r.serverName, got, certificate, r.want, r.certificate)
		}
	}
}

func TestConnectionContributions(t *testing.T) {
	l := listenerOf("tcp", policy.TCP)
	l.Settings = policy.Settings{set(toyKind, &toy{
		tcp:        &tcpproxyv3.TcpProxy{MaxDownstreamConnectionDuration: durationpb.New(time.Hour)},
		connection: []*listenerv3.Filter{{Name: "test.first"}},
		listener:   &listenerv3.Listener{ListenerFilters: []*listenerv3.ListenerFilter{{Name: "test.proxy"}}},
	})}
	r := connectionRoute("r", "tcp", []string{"*"}, to(service("a", policy.Endpoint{Host: "10.0.0.1", Port: 1})))
	r.Settings = policy.Settings{set(toyKind, &toy{tcp: &tcpproxyv3.TcpProxy{IdleTimeout: durationpb.New(time.Minute)}})}
	got := find[*listenerv3.Listener](t, translate(t, modelOf([]*policy.Listener{l}, r)), "tcp")
	filters := got.FilterChains[0].Filters
	if len(filters) != 2 || filters[0].Name != "test.first" || got.ListenerFilters[0].Name != "test.proxy" {
		t.Fatalf("listener %v", got)
	}
	proxy := new(tcpproxyv3.TcpProxy)
	if err := filters[1].GetTypedConfig().UnmarshalTo(proxy); err != nil {
		t.Fatal(err)
	}
	if proxy.IdleTimeout.AsDuration() != time.Minute || proxy.MaxDownstreamConnectionDuration.AsDuration() != time.Hour ||
		proxy.GetCluster() != "a" || proxy.MaxConnectAttempts.Value != 3 {
		t.Errorf("proxy %v", proxy)
	}

	tlsListener := listenerOf("tls", policy.TLS)
	tlsListener.Settings = l.Settings
	r.Listeners = []string{"tls"}
	got = find[*listenerv3.Listener](t, translate(t, modelOf([]*policy.Listener{tlsListener}, r)), "tls")
	if n := len(got.ListenerFilters); n != 2 || got.ListenerFilters[1].Name != "envoy.filters.listener.tls_inspector" {
		t.Errorf("listener filters %v, want the inspector after what may take away a proxy's words", got.ListenerFilters)
	}
}

func TestRefusedConnections(t *testing.T) {
	a := to(service("a", policy.Endpoint{Host: "10.0.0.1", Port: 1}))
	ended := listenerOf("ended", policy.TLS)
	ended.Certificates = httpsListener("", "a.test").Certificates
	rows := map[string]struct {
		listener *policy.Listener
		routes   []*policy.BoundRoute
		want     string
	}{
		"two routes of TCP": {
			listenerOf("tcp", policy.TCP),
			[]*policy.BoundRoute{connectionRoute("r", "tcp", []string{"*"}, a), connectionRoute("again", "tcp", []string{"*"}, a)},
			"routes.again: the listener tcp of TCP has a route already",
		},
		"one name twice": {
			listenerOf("tls", policy.TLS),
			[]*policy.BoundRoute{connectionRoute("r", "tls", []string{"a.test"}, a), connectionRoute("again", "tls", []string{"b.test", "a.test"}, a)},
			"routes.again.hostnames: the route r has the hostname a.test on the listener tls already",
		},
		"no certificate for a name": {
			ended,
			[]*policy.BoundRoute{connectionRoute("r", "ended", []string{"*", "a.test", "b.test"}, a)},
			"routes.r.hostnames: no certificate of the listener ended is for b.test",
		},
		"no backends": {
			listenerOf("tcp", policy.TCP),
			[]*policy.BoundRoute{connectionRoute("r", "tcp", []string{"*"})},
			"routes.r: the route has no backends",
		},
		"no certificate of HTTPS": {
			listenerOf("https", policy.HTTPS), nil, "gateways.edge.listeners.https: a listener of HTTPS needs a certificate",
		},
	}
	for name, r := range rows {
		m := modelOf([]*policy.Listener{r.listener}, r.routes...)
		addSecret(m, &policy.Secret{Kind: policy.CertificateSecret, Name: "tls/a.test"})
		_, err := envoy.Translate(m, testKinds)
		if p, ok := errors.AsType[*policy.Problem](err); !ok || !strings.HasSuffix(p.Error(), r.want) || p.Hint == "" {
			t.Errorf("%s: %v, want %q with a hint", name, err, r.want)
		}
	}
}
