package auth

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestAddressesOfMetadataServicesAreRefused(t *testing.T) {
	for address, allowed := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.3": true, "192.168.1.1": true, "172.16.0.1": true, "fd12::1": true, "93.184.216.34": true,
		"2606:4700::1": true, "100.64.0.1": true, "::ffff:10.0.0.1": true, "64:ff9b::0a00:0001": true,
		"169.254.169.254": false, "169.254.0.1": false, "fe80::1": false, "fe80::1%eth0": false, "::ffff:169.254.169.254": false,
		"64:ff9b::a9fe:a9fe": false, "64:ff9b:1::a9fe:a9fe": false, "2002:a9fe:a9fe::1": false, "::a9fe:a9fe": false, "2001:0:1::1": false,
		"fd00:ec2::254": false, "fd20:ce::254": false, "100.100.100.200": false, "168.63.129.16": false, "192.0.0.192": false,
		"0.0.0.0": false, "0.1.2.3": false, "::": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false,
	} {
		if err := checkAddress(netip.MustParseAddr(address)); (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestURLsAreChecked(t *testing.T) {
	for url, allowed := range map[string]bool{
		"https://id.example.com/jwks": true, "https://10.0.0.1:8443/": true, "http://127.0.0.1:80/": true, "http://localhost/": true,
		"http://[::1]:9/x?y=z":   true,
		"http://id.example.com/": false, "http://10.0.0.1/": false, "https://169.254.169.254/": false, "https://[fe80::1]/": false,
		"https://[::ffff:169.254.169.254]/": false, "https://user:pw@id.test/": false, "https://id.test/#x": false, "file:///etc/passwd": false,
		"ftp://id.test/": false, "id.test": false, "": false, "https://": false, "https:///x": false, "gopher://127.0.0.1/": false,
		"http://localhost.evil.test/": false, "http://127.0.0.1.evil.test/": false, "https://" + strings.Repeat("a", 3000): false,
	} {
		if err := CheckURL(url); (err == nil) != allowed {
			t.Errorf("%.60s: %v", url, err)
		}
	}
}

// get fetches through the real, guarded client.
func get(t *testing.T, client *http.Client, url string) error {
	t.Helper()
	r := &remote{origin: origin{url: url}, client: client}
	_, _, err := r.fetch(t.Context())
	return err
}

func TestRedirectsAreGuarded(t *testing.T) {
	keys := jwks(rsaPair().jwk())
	mux := http.NewServeMux()
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that trusts it not hangs up, as it should
	secure.StartTLS()
	defer secure.Close()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { w.Write(keys) })
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("url"), http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	client := newClient(nil, roots)

	chain := plain.URL + "/keys"
	for range maxRedirects {
		chain = plain.URL + "/to?url=" + strings.NewReplacer("?", "%3F", "=", "%3D", "%", "%25").Replace(chain)
	}
	for _, test := range []struct {
		url string
		why string // "" = fetched
	}{
		{plain.URL + "/keys", ""},
		{secure.URL + "/keys", ""},
		{chain, ""},
		{plain.URL + "/to?url=" + secure.URL + "/keys", ""},
		{plain.URL + "/loop", "too often"},
		{plain.URL + "/to?url=http://169.254.169.254/latest/meta-data/", "never asked"},
		{plain.URL + "/to?url=https://169.254.169.254/", "never asked"},
		{plain.URL + "/to?url=https://[::ffff:a9fe:a9fe]/", "never asked"},
		{plain.URL + "/to?url=http://10.0.0.1/", "has to be https"},
		{plain.URL + "/to?url=file:///etc/passwd", "not valid"},
		{plain.URL + "/to?url=http://u:p@127.0.0.1/", "user"},
		{secure.URL + "/to?url=" + plain.URL + "/keys", "https to http"},
		{plain.URL + "/absent", "404"},
	} {
		err := get(t, client, test.url)
		if (err == nil) != (test.why == "") || err != nil && !strings.Contains(err.Error(), test.why) {
			t.Errorf("%s: %v, want %q", test.url, err, test.why)
		}
	}
	if err := get(t, newClient(nil, nil), secure.URL+"/keys"); err == nil {
		t.Error("a certificate of an unknown authority was trusted")
	}
}

// TestNamesAreJudgedByWhatTheyResolveTo asks a name server of its own that says what a rebinding attacker would.
func TestNamesAreJudgedByWhatTheyResolveTo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(jwks(rsaPair().jwk())) }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for _, test := range []struct {
		answer string
		guard  guard
		why    error
	}{
		{"127.0.0.1", guard{}, nil},
		{"169.254.169.254", guard{}, errForbidden},
		{"0.0.0.0", guard{}, errForbidden},
		{"168.63.129.16", guard{}, errForbidden},
		{"10.0.0.1", guard{loopbackOnly: true}, errNotLoopback},
	} {
		d := &net.Dialer{Control: test.guard.control, Resolver: &net.Resolver{PreferGo: true, Dial: nameServer(t, test.answer)}}
		err := get(t, &http.Client{Transport: transportOver(d, nil)}, "http://rebound.test:"+port+"/")
		if !errors.Is(err, test.why) {
			t.Errorf("%s: %v, want %v", test.answer, err, test.why)
		}
	}
}

// nameServer answers every question for an IPv4 address with one address, and no other question.
func nameServer(t *testing.T, address string) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	ip := netip.MustParseAddr(address).As4()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12
			for end < n && b[end] != 0 {
				end += int(b[end]) + 1
			}
			question := b[12 : end+5]
			isA := binary.BigEndian.Uint16(b[end+1:]) == 1
			reply := append([]byte{b[0], b[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			if isA {
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
				reply = append(reply, ip[:]...)
			}
			pc.WriteTo(reply, from)
		}
	}()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}
}
