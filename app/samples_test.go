package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// ports asks the kernel for n ports that are free.
func ports(t testing.TB, n int) []int {
	t.Helper()
	var list []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		list = append(list, l.Addr().(*net.TCPAddr).Port)
	}
	return list
}

// sampling is a policy with these services, each NAME=PORT or, for one that is no sample, NAME=PORT!.
func sampling(services ...string) string {
	text := "gateways: {edge: {listeners: {http: {port: 1}}}}\nservices:\n"
	for _, s := range services {
		name, port, _ := strings.Cut(s, "=")
		port, real := strings.CutSuffix(port, "!")
		text += fmt.Sprintf("  %s: {endpoints: [\"127.0.0.1:%s\"], sample: %t}\n", name, port, !real)
	}
	return text
}

// answerer is the name of the sample that answers at a port; none where nobody does.
func answerer(port int) string {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return ""
	}
	defer a.Body.Close()
	_, _ = io.Copy(io.Discard, a.Body)
	return a.Header.Get("X-Service")
}

func TestSamplesFollowThePolicy(t *testing.T) {
	t.Parallel()
	port := ports(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	s := newSamples()
	at := func(name string, i int) string { return fmt.Sprintf("%s=%d", name, port[i]) }
	for _, row := range []struct {
		what     string
		services []string
		want     [3]string
	}{
		{"two start", []string{at("a", 0), at("b", 1)}, [3]string{"a", "b", ""}},
		{"nothing changes", []string{at("a", 0), at("b", 1)}, [3]string{"a", "b", ""}},
		{"one comes, one goes", []string{at("b", 1), at("c", 2)}, [3]string{"", "b", "c"}},
		{"one is renamed", []string{at("d", 1), at("c", 2)}, [3]string{"", "d", "c"}},
		{"two change places", []string{at("c", 1), at("d", 2)}, [3]string{"", "c", "d"}},
		{"one becomes real", []string{at("c", 1) + "!", at("d", 2)}, [3]string{"", "", "d"}},
	} {
		if err := s.sync(ctx, model(t, sampling(row.services...))); err != nil {
			t.Errorf("%s: %v", row.what, err)
		}
		for i, want := range row.want {
			if got := answerer(port[i]); got != want {
				t.Errorf("%s: port %d is answered by %q, want %q", row.what, i, got, want)
			}
		}
	}
	cancel()
	s.wait()
	for i := range port {
		if got := answerer(port[i]); got != "" {
			t.Errorf("after the end port %d is answered by %q", i, got)
		}
	}
}

// Ports that are taken are all told, with the line of the policy; the other samples run.
func TestSamplePortTaken(t *testing.T) {
	t.Parallel()
	var taken []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		taken = append(taken, fmt.Sprintf("taken-%d=%d", len(taken), l.Addr().(*net.TCPAddr).Port))
	}
	port := ports(t, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	s := newSamples()
	defer s.wait()
	defer cancel()
	m := model(t, sampling(taken[0], taken[1], fmt.Sprintf("z=%d", port)))
	err := s.sync(ctx, m)
	for _, part := range []string{"sample upstream taken-0", "sample upstream taken-1", "policy.yaml:3:", "policy.yaml:4:", "endpoints:"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want it to say %q", err, part)
		}
	}
	if got := answerer(port); got != "z" {
		t.Errorf("the other sample: answered by %q", got)
	}
}

// The sample of a service that has a sidecar is its app: at the endpoints the sidecar listens.
func TestSampleOfASidecarIsTheApp(t *testing.T) {
	t.Parallel()
	m := model(t, sampling("orders=15106")+`sidecars:
  orders: {app: "127.0.0.1:9001", certificate: mesh/orders, ca: {secret: mesh/ca}, inbound: {port: 15106, peers: [orders]}}
`)
	var got []Echo
	for echo := range sampled(m) {
		got = append(got, echo)
	}
	if want := (Echo{Name: "orders", Address: "127.0.0.1:9001"}); len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %v alone", got, want)
	}
}
