package envoy_test

import (
	"crypto/tls"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/envoy/certtest"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// TestCertificateIsRenewed gives a running Envoy another certificate over SDS while requests go on: no listener changes,
// no request fails, and connections stay open. Another certificate for another name changes the listener in place.
func TestCertificateIsRenewed(t *testing.T) {
	ca := certtest.NewAuthority(t, "ca")
	l := httpsListener("https", "one.test")
	m := withCertificates(t, modelOf([]*policy.Listener{l}, named("one", "one.test", "/"), named("two", "two.test", "/")), ca)
	xds, publish := newADS(t)
	first := translate(t, m)
	publish(first)
	p := connect(t, envoy.BootstrapOptions{Group: "edge", XDS: xds})
	address := listenersAt(p.Admin())["https"]

	kept := client(t, address, "one.test", ca)
	if got, _ := ask(t, kept, "one.test"); got.code != 200 {
		t.Fatalf("%d %s", got.code, got.body)
	}
	stop := askAllTheTime(t, address, ca)

	before := serial(t, address, "one.test")
	m.Secrets[0] = certificateSecret(m.Secrets[0].Name, ca.Issue(t, "one.test"))
	second := translate(t, m)
	if got := changed(first, second); got != "certificate/tls/one.test" {
		t.Errorf("a new certificate changes %q", got)
	}
	publish(second)
	await(t, "the new certificate", func() bool { return serial(t, address, "one.test").Cmp(before) != 0 })
	expectStats(t, p, map[string]string{
		"listener_manager.listener_modified": "0", "listener_manager.total_filter_chains_draining": "0",
	})

	l.Certificates = append(l.Certificates, policy.Certificate{Hostname: "two.test", Secret: "tls/two.test"})
	addSecret(m, certificateSecret("tls/two.test", ca.Issue(t, "two.test")))
	publish(translate(t, m))
	await(t, "a certificate for another name", func() bool { return serial(t, address, "two.test") != nil })
	expectStats(t, p, map[string]string{
		"listener_manager.listener_in_place_updated": "1", "listener_manager.total_filter_chains_draining": "0",
	})
	stop()
	if got, _ := ask(t, client(t, address, "two.test", ca), "two.test"); got.body != "two" {
		t.Errorf("two.test: %d %q", got.code, got.body)
	}
	if got, resp := ask(t, kept, "one.test"); got.code != 200 || resp.TLS.PeerCertificates[0].SerialNumber.Cmp(before) != 0 {
		t.Errorf("the connection that was open: %d, by another one", got.code)
	}
}

// changed names the only resource that differs, or is empty.
func changed(before, after []envoy.Resource) string {
	var names []string
	for i := range after {
		if !proto.Equal(before[i].Message, after[i].Message) || before[i].Salt != after[i].Salt {
			names = append(names, after[i].Name)
		}
	}
	return strings.Join(names, " ")
}

// askAllTheTime asks over new connections until it is stopped, and reports what fails. It has begun once it returns, and
// asks once more before it stops.
func askAllTheTime(t *testing.T, address string, ca *certtest.Authority) (stop func()) {
	t.Helper()
	c := client(t, address, "one.test", ca, func(c *tls.Config) { c.NextProtos = nil })
	c.Transport.(*http.Transport).DisableKeepAlives = true
	done, begun := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for asked, last := 0, false; !last; asked++ {
			select {
			case <-done:
				last = true
			default:
			}
			resp, err := c.Get("https://one.test/")
			if asked == 0 {
				close(begun)
			}
			if err != nil {
				t.Errorf("request %d: %v", asked, err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("request %d: %s", asked, resp.Status)
			}
		}
	})
	<-begun
	return func() {
		close(done)
		wg.Wait()
	}
}

// serial is that of the certificate for a name; nil where there is none.
func serial(t *testing.T, address, name string) *big.Int {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s does not come", what)
		}
	}
}

func expectStats(t *testing.T, p *envoy.Process, want map[string]string) {
	t.Helper()
	_, body := adminGet(p.Admin(), "/stats?filter=listener_manager")
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if want, ok := want[name]; ok && value != want {
			t.Errorf("%s is %s, want %s", name, value, want)
		}
	}
}

// TestListenerWaitsForItsCertificate holds that a listener does not open without one.
func TestListenerWaitsForItsCertificate(t *testing.T) {
	ca := certtest.NewAuthority(t, "ca")
	m := modelOf([]*policy.Listener{httpListener("http")}, named("one", "one.test", "/"))
	xds, publish := newADS(t)
	publish(translate(t, m))
	p := connect(t, envoy.BootstrapOptions{Group: "edge", XDS: xds})

	m.Gateways[0].Listeners = append(m.Gateways[0].Listeners, httpsListener("https", "one.test"))
	all := translate(t, withCertificates(t, m, ca))
	publish(slices.DeleteFunc(slices.Clone(all), func(r envoy.Resource) bool { return r.Type == resource.SecretType }))
	await(t, "a listener that waits", func() bool {
		_, stats := adminGet(p.Admin(), "/stats?filter=total_listeners_warming")
		return strings.Contains(stats, "total_listeners_warming: 1")
	})
	publish(all)
	await(t, "the listener", func() bool { return listenersAt(p.Admin())["https"] != "" })
	if got, _ := ask(t, client(t, listenersAt(p.Admin())["https"], "one.test", ca), "one.test"); got.code != 200 {
		t.Errorf("%d %s", got.code, got.body)
	}
}
