package app

import (
	"fmt"
	"strings"
	"testing"
)

// Two Envoys of one machine could both listen on a port, and each connection would go to one of them.
func TestGatewaysOfOneMachineShareNoPort(t *testing.T) {
	t.Parallel()
	const shared = "listener http of gateway b: port 10000 is that of listener http of gateway a: on one machine choose another one with port: " +
		"in policy.yaml:2:28 or policy.yaml:1:28"
	for _, row := range []struct {
		first, second string
		taken         bool
	}{
		{"port: 10000", "port: 10000", true},
		{"port: 10000", "port: 10000, address: 127.0.0.1", true},
		{"port: 10000, address: 127.0.0.1", "port: 10000, address: 127.0.0.1", true},
		{"port: 10000, address: 127.0.0.1", "port: 10000, address: 127.0.0.2", false},
		{"port: 10000", "port: 10001", false},
	} {
		m := model(t, fmt.Sprintf("gateways: {a: {listeners: {http: {%s}}},\n           b: {listeners: {http: {%s}}}}\n"+
			"services: {s: {endpoints: ['127.0.0.1:1']}}\nroutes: {r: {gateways: [a, b], hostnames: ['*'], backends: {s: 1}}}\n", row.first, row.second))
		e := newEnvoys(assemble(t, Options{Dir: t.TempDir()}), "no-such-envoy")
		err := e.sync(t.Context(), m) // nothing can start; what is told of b is whether it would have been tried
		if got := err != nil && strings.Contains(err.Error(), shared); got != row.taken {
			t.Errorf("%s and %s: got %v, want %v to be told", row.first, row.second, err, row.taken)
		}
	}
}
