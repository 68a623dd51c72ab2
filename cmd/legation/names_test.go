package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Names are completed from the policies that lie where the shell stands; what is broken completes nothing.
func TestNamesAreCompletedFromPoliciesNearby(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"policy/a.yaml": "gateways: {edge: {listeners: {http: {port: 80}, https: {port: 443, protocol: HTTPS, certificates: [{secret: tls/a}]}}}}\n" +
			"services: {orders: {endpoints: [\"10.0.0.1:80\"]}}\nroutes:\n" +
			"  all: {hostnames: [a.test, \"*.b.test\"], backends: {orders: 1}}\n  plain: {hostnames: [c.test], listeners: [http], backends: {orders: 1}}\n",
		"broken/a.yaml": "routes: [\n",
		"empty/a.txt":   "no policy",
	} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	t.Chdir(dir)
	for typed, want := range map[string]string{
		"show route":       "all plain :4",
		"show service":     "orders :4",
		"show gateway":     "edge :4",
		"show route all":   ":16",
		"show route all d": ":4",
		"explain GET":      "http://c.test/ https://a.test/ :6",

		"render policy --group":                           "edge :4",
		"explain GET http://c.test/ --gateway":            "edge :4",
		"explain GET http://c.test/ policy --listener":    "http https :4",
		"explain GET http://c.test/ elsewhere --listener": "http https :4",
	} {
		args := append(append([]string{"__complete"}, strings.Fields(typed)...), "")
		status, out, _ := legation(args...)
		if got := strings.Join(strings.Fields(out), " "); status != 0 || got != want {
			t.Errorf("%s: got %d %q, want %q", typed, status, got, want)
		}
	}
}
