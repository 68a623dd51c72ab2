package main

import (
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// TestMain lets the test's own program be the children that it starts.
func TestMain(m *testing.M) {
	if err, ok := child(os.Args[1:]); ok {
		end(err)
	}
	os.Exit(m.Run())
}

func TestEmptyHandlers(t *testing.T) {
	r := emptyRig(t)
	p, address, err := startChild(t.Context(), r, emptyVerb)
	if err != nil {
		t.Fatal(err)
	}
	message, err := rig.Check("edge/auth", "a token", "key")
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []load.Call{load.RateLimits("d", []load.Entry{{Key: "k", Value: "%d"}}, 10, false), load.Checks([][]byte{message})} {
		l, err := load.Start(load.Options{Addresses: []string{address}, InFlight: 4, Calls: 1000, Call: call})
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Wait(t.Context()); got.Allowed != 1000 || got.Failures() != 0 {
			t.Errorf("%s: %d allowed, %v", call.Method, got.Allowed, got.Failed)
		}
	}
	b := &bench{warm: time.Millisecond, time: 10 * time.Millisecond}
	f, err := b.sample(t.Context(), load.Options{
		Addresses: []string{address}, Call: load.Checks([][]byte{message}),
	}, map[string][]int{"service": {p.PID}}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rate", "p50", "p99", "p999", "cpu", "service", "client"} {
		if f[name] <= 0 {
			t.Errorf("%s is %g", name, f[name])
		}
	}
}

func TestStaticBackend(t *testing.T) {
	_, address, err := startChild(t.Context(), emptyRig(t), staticVerb)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{tokens: []string{"a"}}
	l, err := load.Start(load.Options{Addresses: []string{address}, Connections: 2, Calls: 100, Plain: b.requests(address, 10)})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Wait(t.Context()); got.Allowed != 100 {
		t.Errorf("%d allowed, %v", got.Allowed, got.Failed)
	}
}

// emptyRig builds nothing: no test here starts legation.
func emptyRig(t *testing.T) *rig.Rig {
	t.Helper()
	r, err := rig.New(t.Context(), rig.Options{Legation: "legation"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// The configuration is JSON with a listener for each side, and the rules where auth is asked.
func TestEnvoyConfig(t *testing.T) {
	sides := chains(&native{`{"name": "native"},`, `"native": {}`})
	text, addresses, err := envoyConfig(sides, 9901, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		StaticResources struct {
			Listeners []struct {
				Name    string
				Address struct {
					SocketAddress struct {
						PortValue int `json:"port_value"`
					} `json:"socket_address"`
				}
			}
		} `json:"static_resources"`
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if len(config.StaticResources.Listeners) != len(sides) {
		t.Errorf("%d listeners for %d sides", len(config.StaticResources.Listeners), len(sides))
	}
	for _, l := range config.StaticResources.Listeners {
		if _, port, err := net.SplitHostPort(addresses[l.Name]); err != nil || rig.Local(l.Address.SocketAddress.PortValue) != "127.0.0.1:"+port {
			t.Errorf("%s listens on %d, and is asked at %s", l.Name, l.Address.SocketAddress.PortValue, addresses[l.Name])
		}
	}
	for _, c := range sides {
		if asks, names := strings.Contains(c.filters, "ext_authz"), strings.Contains(c.route, "legation.rule"); asks != names {
			t.Errorf("%s: asks for auth: %t, names a rule: %t", c.name, asks, names)
		}
	}
}
