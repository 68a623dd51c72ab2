package explain

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// How many requests the real Envoy and explain are asked, and about how many policies. LEGATION_EXPLAIN_REQUESTS asks more.
const (
	defaultRequests   = 3000
	requestsAPolicy   = 1500
	routesAPolicy     = 60
	requestsVariable  = "LEGATION_EXPLAIN_REQUESTS"
	seedVariable      = "LEGATION_EXPLAIN_SEED"
	mostDisagreements = 20
)

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Policies and requests are made at random: whatever Envoy does with a request, explain has said so.
func TestAgreesWithEnvoy(t *testing.T) {
	golden.Binary(t)
	backend := golden.Accept(t, anything)
	total, seed := number(t, requestsVariable, defaultRequests), number(t, seedVariable, 1)
	asked, undecided, answers := 0, 0, map[By]int{}
	for round := uint64(0); uint64(asked) < total; round++ {
		r := rand.New(rand.NewPCG(seed, round))
		text, model := good(t, r, backend)
		c := compare(t, text, model)
		for range requestsAPolicy {
			w := request(r)
			asked++
			e, want := c.explained(w)
			answers[e.Answer.By]++
			if len(e.Undecided) > 0 {
				undecided++
				continue
			}
			if got := c.ask(w); got != want {
				t.Errorf("seed %d round %d: %+v\n  Envoy: %s\n  explain: %s (%s), route %v, others %v", seed, round, w, got, want, e.Answer.Why, e.Route, e.Others)
				if c.disagreements++; c.disagreements > mostDisagreements {
					t.Fatalf("enough\n%s", text)
				}
			}
		}
		c.stop()
	}
	t.Logf("%d requests, %d undecided: %v", asked, undecided, answers)
	for _, by := range []By{Backend, Itself, Preflight, Door, Nobody} {
		if answers[by] < asked/1000 {
			t.Errorf("only %d of %d requests were answered by %s: the others tell little", answers[by], asked, by)
		}
	}
	if undecided > asked/10 {
		t.Errorf("%d of %d requests were undecided", undecided, asked)
	}
}

// good makes a policy at random, and leaves out the routes that are refused: two may ask for the same.
func good(t *testing.T, r *rand.Rand, backend string) (text string, model *policy.Model) {
	t.Helper()
	routes := make(map[string]string, routesAPolicy)
	for i := range routesAPolicy {
		routes[fmt.Sprintf("routes.r%d", i)] = route(r, i)
	}
	for len(routes) > routesAPolicy/2 {
		text = front(backend)
		for _, name := range slices.Sorted(maps.Keys(routes)) {
			text += routes[name]
		}
		model, problems := feature.Language().Load(policy.Files{"policy.yaml": []byte(text)})
		if !problems.HasErrors() {
			return text, model
		}
		for _, p := range problems {
			if !p.Warning {
				delete(routes, strings.Join(strings.Split(p.Path, ".")[:2], "."))
			}
		}
	}
	t.Fatal("too many routes are refused")
	return "", nil
}

// anything is a backend that takes every path, and answers 200.
func anything(conn net.Conn) {
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if lines.Text() == "" {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
}

// comparison is an Envoy, and what is explained of its policy.
type comparison struct {
	t             *testing.T
	envoy         *golden.Envoy
	doors         map[string]*door
	connections   map[string]*connection
	disagreements int
}

type connection struct {
	net.Conn
	answers *bufio.Reader
}

func compare(t *testing.T, text string, model *policy.Model) *comparison {
	t.Helper()
	resources, err := envoy.Translate(model, feature.All())
	if err != nil {
		t.Fatal(err)
	}
	p := Policy{model, resources, feature.All()}
	c := &comparison{t: t, doors: map[string]*door{}, connections: map[string]*connection{}}
	for _, l := range model.Gateways[0].Listeners {
		c.doors[l.Name] = &door{policy: p, gateway: model.Gateways[0], listener: l}
		c.doors[l.Name].prepare()
	}
	c.envoy = golden.Serve(t, text, feature.All()...)
	return c
}

func (c *comparison) stop() {
	for _, one := range c.connections {
		one.Close()
	}
	c.envoy.Stop()
}

// explained is what explain says, and that in the words of ask.
func (c *comparison) explained(w wire) (*Explanation, string) {
	q := Question{
		Method: w.method, URL: "http://any.test" + w.path, From: netip.MustParseAddr(w.client),
		Headers: append([]Header{{"host", w.host}}, w.headers...),
	}
	u, err := parseURL(q.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	e := c.doors[w.listener].explain(q, u)
	switch e.Answer.By {
	case Backend, Itself:
		return e, "route " + e.Route.Name
	case Preflight:
		return e, "preflight of " + e.Route.Name
	}
	return e, fmt.Sprint("status ", e.Answer.Status)
}

// ask sends a request to Envoy.
func (c *comparison) ask(w wire) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", w.method, w.path, w.host)
	for _, h := range w.headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	if w.method == "POST" || w.method == "PUT" || w.method == "PATCH" {
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("\r\n")
	at := w.listener + " " + w.client
	for try := 0; ; try++ {
		response, err := c.once(at, w, b.String())
		switch {
		case err == nil:
			return describe(response)
		case try > 0:
			return "error " + err.Error()
		}
		c.connections[at].Close()
		delete(c.connections, at)
	}
}

func (c *comparison) once(at string, w wire, request string) (*http.Response, error) {
	conn := c.connections[at]
	if conn == nil {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(w.client)}}
		made, err := dialer.Dial("tcp", c.envoy.Address(c.t, w.listener))
		if err != nil {
			c.t.Fatal(err)
		}
		conn = &connection{made, bufio.NewReader(made)}
		c.connections[at] = conn
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(conn.answers, &http.Request{Method: w.method})
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	if response.Close {
		conn.Close()
		delete(c.connections, at)
	}
	return response, err
}

// describe tells who has answered. The routes name themselves in a header, and in the age of their preflights.
func describe(r *http.Response) string {
	// Envoy's own refusals have the route's headers, too.
	if name := r.Header.Get("X-Route"); name != "" && r.StatusCode == 200 {
		return "route " + name
	}
	if age, err := strconv.Atoi(r.Header.Get("Access-Control-Max-Age")); err == nil && r.StatusCode == 200 {
		return fmt.Sprintf("preflight of r%d", age-1)
	}
	return fmt.Sprint("status ", r.StatusCode)
}
