package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/mirror"
	"github.com/legation/legation/policy"
)

// answer stands for a key that answers by itself.
type answer struct{}

func (*answer) Check(*policy.Check) {}

func (*answer) Answers() bool { return true }

func (*answer) Route(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Route: &routev3.Route{
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
	}}
}

// change stands for the keys that change what the backend gets.
type change struct{}

func (*change) Check(*policy.Check) {}

func (*change) Route(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Route: &routev3.Route{
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{PrefixRewrite: "/changed/"}},
		RequestHeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "x-a", Value: "changed"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}}
}

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", mirror.Kind, policy.Define[answer]("answer", policy.InRoute, ""))
}

var changed = policy.Define[change]("change", policy.InRoute, "")

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services:
  orders: {endpoints: [%q]}
  copies: {endpoints: [%q]}
  dead: {endpoints: [%q]}
routes:
  all: {hostnames: [all.test], change: {}, backends: {orders: 1}, mirror: {copies: 100%%}}
  none: {hostnames: [none.test], backends: {orders: 1}, mirror: {copies: 0%%}}
  dead: {hostnames: [dead.test], backends: {orders: 1}, mirror: {dead: 100%%}}
`

// copied is what a service gets of a request.
type copied struct {
	Method, Host, Path, Body string
	Header                   string
}

func TestCopiesAreSent(t *testing.T) {
	got := make(chan copied, 10)
	copies := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- copied{r.Method, r.Host, r.RequestURI, string(body), r.Header.Get("x-a")}
		w.WriteHeader(500)
	})
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo), copies, golden.Dead(t)), mirror.Kind, changed)
	for _, host := range []string{"none.test", "dead.test", "all.test"} { // a copy of the first would come first
		answer := envoy.Ask(t, "POST", host, "/a?b=c", "x-a", host)
		if r := answer.Received(t); answer.Status != 200 || r.Host != host || !strings.HasSuffix(r.Path, "/a?b=c") {
			t.Errorf("%s: status %d, the backend got %+v", host, answer.Status, r)
		}
	}
	select {
	case one := <-got:
		want := copied{"POST", "all.test", "/changed/a?b=c", "", "changed"}
		if diff := cmp.Diff(want, one); diff != "" {
			t.Errorf("the copy (-want +got):\n%s", diff)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no copy came")
	}
}

func TestCopiesHaveTheBody(t *testing.T) {
	got := make(chan string, 10)
	copies := golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- string(body)
	})
	envoy := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, golden.Echo), copies, golden.Dead(t)), mirror.Kind, changed)
	body := strings.Repeat("x", 5000)
	envoy.Raw(t, fmt.Sprintf("POST / HTTP/1.1\r\nhost: all.test\r\ncontent-length: %d\r\n\r\n%s", len(body), body))
	select {
	case one := <-got:
		if one != body {
			t.Errorf("the copy has %d bytes, want %d", len(one), len(body))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no copy came")
	}
}
