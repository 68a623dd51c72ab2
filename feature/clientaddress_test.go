package feature_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

const addressPolicy = `
gateways:
  edge:
    trustedHops: 1
    listeners:
      hops: {port: %d, address: 127.0.0.1}
      proxy: {port: %d, address: 127.0.0.1, trustedHops: 0, proxyProtocol: {from: [127.0.0.1]}}
      both: {port: %d, address: 127.0.0.1, proxyProtocol: {from: [127.0.0.1]}}
services: {echo: {endpoints: [%q]}}
routes:
  ready: {hostnames: [a.test], match: {path: /ready}, rateLimit: {rate: 100000/day, onError: deny}, backends: {echo: 1}}
  inside: {hostnames: [a.test], match: {path: /inside}, access: {allow: [10.0.0.0/8]}, backends: {echo: 1}}
  each: {hostnames: [a.test], match: {path: /each}, rateLimit: {rate: 2/day, by: ip}, backends: {echo: 1}}
`

// TestClientsAddressIsBelieved holds that access and limits go by what proxies in front tell, and by nothing else.
func TestClientsAddressIsBelieved(t *testing.T) {
	ports := map[string]int{"hops": golden.FreePort(t), "proxy": golden.FreePort(t), "both": golden.FreePort(t)}
	text := fmt.Sprintf(addressPolicy, ports["hops"], ports["proxy"], ports["both"], golden.Backend(t, golden.Echo))
	m, problems := feature.Language().Load(policy.Files{"policy.yaml": []byte(text)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	_, address := companions(t, m)
	golden.Start(t, m, feature.All(), address)

	ask := func(listener, path, proxied, forwarded string) int {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[listener]))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if proxied != "" {
			fmt.Fprintf(conn, "PROXY TCP4 %s 203.0.113.1 50000 80\r\n", proxied)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: %s\r\nConnection: close\r\n\r\n", path, forwarded)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	golden.Eventually(t, "the companion answers", func() bool { return ask("hops", "/ready", "", "") == http.StatusOK })
	for _, r := range []struct {
		listener, path, proxied, forwarded string
		want                               int
	}{
		{"hops", "/inside", "", "10.1.1.1", 200},
		{"hops", "/inside", "", "10.1.1.1, 192.0.2.1", 403},
		{"proxy", "/inside", "10.1.1.1", "192.0.2.1", 200},
		{"proxy", "/inside", "192.0.2.1", "10.1.1.1", 403},
		{"both", "/inside", "192.0.2.1", "192.0.2.2, 10.1.1.1", 200},
		{"both", "/inside", "10.1.1.1", "10.1.1.1, 192.0.2.1", 403},
		{"hops", "/each", "", "192.0.2.1", 200},
		{"proxy", "/each", "192.0.2.1", "192.0.2.7", 200},
		{"both", "/each", "192.0.2.8", "192.0.2.9, 192.0.2.1", 429},
		{"hops", "/each", "", "192.0.2.9, 192.0.2.1", 429},
		{"hops", "/each", "", "192.0.2.1, 192.0.2.2", 200},
	} {
		if got := ask(r.listener, r.path, r.proxied, r.forwarded); got != r.want {
			t.Errorf("%s%s from %q, forwarded for %q: got %d, want %d", r.listener, r.path, r.proxied, r.forwarded, got, r.want)
		}
	}
}
