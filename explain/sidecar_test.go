package explain

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// answering is a backend that takes every path, and answers 200 with the name of the route that leads to it.
func answering(route string) func(net.Conn) {
	return func(conn net.Conn) {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if lines.Text() == "" {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Route: %s\r\n\r\n", route)
			}
		}
	}
}

// An app's own calls, through its sidecar, go where explain says.
func TestAgreesWithEnvoyOnSidecars(t *testing.T) {
	golden.Binary(t)
	services, called := "services:\n", []string{"web", "web-2", "b.a.test"}
	for _, name := range called {
		services += fmt.Sprintf("  %s: {endpoints: [%q], paths: %s}\n", name, golden.Accept(t, answering("edge/outbound/"+name)),
			map[bool]string{true: "lenient", false: "strict"}[name == "web-2"])
	}
	text := services + "sidecars:\n  edge: {certificate: mesh/edge, ca: {secret: mesh/ca}, outbound: {port: 10000, services: [" + strings.Join(called, ", ") + "]}}\n"
	model, problems := feature.Language().Load(policy.Files{"policy.yaml": []byte(text)})
	if model == nil {
		t.Fatal(problems.Err())
	}
	c := compare(t, text+"-- secrets --\nmesh/ca authority\nmesh/edge certificate spiffe://a.test/gateway/edge by mesh/ca\n", model)
	r, answers := rand.New(rand.NewPCG(number(t, seedVariable, 1), 1)), map[By]int{}
	for range requestsAPolicy {
		w := request(r)
		w.listener, w.client = "outbound", "127.0.0.1"
		w.host = pick(r, append(called, w.host, "WEB", "web:80", "web.", "web-2.:1", "a.web", "web,web-2", "edge")...)
		e, want := c.explained(w)
		answers[e.Answer.By]++
		if len(e.Undecided) > 0 {
			continue
		}
		if e.OnlyHTTP2 != "" {
			want = "status 400"
		}
		if got := c.ask(w); got != want {
			t.Errorf("%+v\n  Envoy: %s\n  explain: %s (%s)", w, got, want, e.Answer.Why)
			if c.disagreements++; c.disagreements > mostDisagreements {
				t.Fatal("enough")
			}
		}
	}
	c.stop()
	for _, by := range []By{Backend, Door, Nobody} {
		if answers[by] < requestsAPolicy/50 {
			t.Errorf("only %d requests were answered by %s: the others tell little", answers[by], by)
		}
	}
}
