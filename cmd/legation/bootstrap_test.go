package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/app"
)

// bootstrapOf runs legation bootstrap.
func bootstrapOf(t testing.TB, args ...string) (text string, node, group string) {
	t.Helper()
	status, out, errs := legation(append([]string{"bootstrap"}, args...)...)
	if status != 0 {
		t.Fatalf("bootstrap %v: %d %s", args, status, errs)
	}
	var b struct{ Node struct{ ID, Cluster string } }
	must(t, json.Unmarshal([]byte(out), &b))
	return out, b.Node.ID, b.Node.Cluster
}

func TestBootstrapFlags(t *testing.T) {
	t.Parallel()
	text, node, group := bootstrapOf(t, "--group", "edge")
	host, err := os.Hostname()
	must(t, err)
	if node != "edge-"+host || group != "edge" {
		t.Errorf("got the node %q of %q", node, group)
	}
	for _, address := range []string{app.DefaultXDS, app.DefaultCompanion, app.DefaultEnvoyAdmin} {
		if _, port, _ := strings.Cut(address, ":"); !strings.Contains(text, `"port_value": `+port) {
			t.Errorf("the default %s is not in it", address)
		}
	}
	if strings.Contains(text, "tls_certificates") {
		t.Error("TLS without being asked for")
	}
	if quiet, _, _ := bootstrapOf(t, "--group", "edge", "--load-reports=false"); !strings.Contains(text, "load_stats_config") || strings.Contains(quiet, "load_stats_config") {
		t.Error("load reports are not on by default, or cannot be turned off")
	}

	text, node, _ = bootstrapOf(t, "--group", "edge", "--node", "mine", "--xds", "10.0.0.5:1,10.0.0.6:2", "--companion", "control.example.com:3",
		"--envoy-admin-address", "127.0.0.1:4", "--tls-cert", "/e/envoy.crt", "--tls-key", "/e/envoy.key", "--tls-ca", "/e/ca.crt")
	if node != "mine" {
		t.Errorf("got the node %q, want mine", node)
	}
	for _, part := range []string{
		"10.0.0.5", "10.0.0.6", "control.example.com", "/e/envoy.crt", "/e/envoy.key", "/e/ca.crt",
		`"port_value": 1`, `"port_value": 2`, `"port_value": 3`, `"port_value": 4`,
	} {
		if !strings.Contains(text, part) {
			t.Errorf("%s is not in it", part)
		}
	}
}

// Companions are asked for their health where there may be several; a single one would be called whatever it says.
func TestBootstrapAsksCompanions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args []string
		want int
	}{
		{[]string{"--companion", "10.0.0.5:1", "--companion", "10.0.0.6:1"}, 1},
		{[]string{"--companion", "companions.test:1"}, 1},
		{[]string{"--companion", "10.0.0.5:1", "--xds", "10.0.0.5:2,10.0.0.6:2"}, 0},
	} {
		text, _, _ := bootstrapOf(t, append([]string{"--group", "edge"}, row.args...)...)
		if got := strings.Count(text, "grpc_health_check"); got != row.want {
			t.Errorf("%v: got %d health checks, want %d:\n%s", row.args, got, row.want, text)
		}
	}
}

func TestMaxHeap(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		text, wrong string
		want        uint64
	}{
		{"64MiB", "", 64 << 20},
		{"512MiB", "", 512 << 20},
		{"2GiB", "", 2 << 30},
		{"63MiB", "at least 64MiB", 0},
		{"0GiB", "at least", 0},
		{"1", "want a size", 0},
		{"1GB", "want a size", 0},
		{"-1GiB", "want a size", 0},
		{"1.5GiB", "want a size", 0},
		{"GiB", "want a size", 0},
		{"99999999999GiB", "want a size", 0},
		{"", "want a size", 0},
	} {
		got, err := parseHeap(row.text)
		if got != row.want || (err == nil) != (row.wrong == "") || err != nil && !strings.Contains(err.Error(), row.wrong) {
			t.Errorf("%q: got %d, %v, want %d, %q", row.text, got, err, row.want, row.wrong)
		}
	}
	if text, _, _ := bootstrapOf(t, "--group", "edge", "--max-heap", "2GiB"); !strings.Contains(text, `"max_heap_size_bytes": "2147483648"`) {
		t.Errorf("--max-heap 2GiB is not in %s", text)
	}
}

func TestZone(t *testing.T) {
	t.Parallel()
	if text, _, _ := bootstrapOf(t, "--group", "edge", "--zone", "eu-1a"); !strings.Contains(text, `"zone": "eu-1a"`) {
		t.Errorf("--zone eu-1a is not in %s", text)
	}
}

// The settings of a process on this machine are not those of an Envoy elsewhere.
func TestBootstrapTakesNoSettings(t *testing.T) {
	t.Setenv("LEGATION_TLS_CERT", "process.crt")
	if text, _, _ := bootstrapOf(t, "--group", "edge"); strings.Contains(text, "process.crt") {
		t.Error("it takes the certificate of the process")
	}
}

func TestCheckAddress(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"10.0.0.5:18000": true, "[2001:db8::1]:1": true, "control.example.com:65535": true, "a:0": false,
		"": false, "a": false, ":1": false, "a:": false, "a:b": false, "a:65536": false, "a:-1": false, "2001:db8::1:1": false, "http://a:1": false,
	} {
		if err := checkAddress(address); (err == nil) != ok {
			t.Errorf("%q: got %v, want it good: %t", address, err, ok)
		}
	}
}

// With --out Envoy reads its certificate, the CA and a token through files, by which it watches them.
func TestBootstrapOut(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "out")
	mutual := []string{"--tls-cert", "/e/envoy.crt", "--tls-key", "/e/envoy.key", "--tls-ca", "/e/ca.crt"}
	for _, row := range []struct {
		name  string
		args  []string
		files string
		parts []string // of envoy.json
	}{
		{"plain", nil, "envoy.json", nil},
		{"mutual TLS", mutual, "authorities.json certificate.json envoy.json", []string{dir + "/certificate.json", dir + "/authorities.json"}},
		{
			"elsewhere", append([]string{"--out-as", "/etc/envoy"}, mutual...), "authorities.json certificate.json envoy.json",
			[]string{"/etc/envoy/certificate.json", "/etc/envoy/authorities.json"},
		},
		{"token", []string{"--tls-ca", "/e/ca.crt", "--token-file", "/e/token"}, "authorities.json envoy.json token.json", []string{dir + "/token.json"}},
		{
			"two control planes", append([]string{"--xds", "a.test:1", "--server", "b.test:2"}, mutual...), "authorities.json certificate.json envoy.json",
			[]string{"a.test", "b.test", "outlier_detection"},
		},
	} {
		must(t, os.RemoveAll(dir))
		status, out, errs := legation(append([]string{"bootstrap", "--group", "edge", "--out", dir}, row.args...)...)
		if status != 0 || out != "" {
			t.Fatalf("%s: %d %s%s", row.name, status, out, errs)
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if got := strings.Join(names, " "); got != row.files {
			t.Errorf("%s: got the files %s, want %s", row.name, got, row.files)
		}
		text, err := os.ReadFile(filepath.Join(dir, "envoy.json"))
		must(t, err)
		for _, part := range row.parts {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s: %s is not in it", row.name, part)
			}
		}
	}
}

func TestBootstrapRefuses(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"mutual TLS takes all":   {"--tls-cert", "/c", "--tls-key", "/k"},
		"--tls-key and --tls-ca": {"--tls-cert", "/c", "--tls-ca", "/a"},
		"takes all of":           {"--tls-ca", "/a"},
		"takes --tls-ca":         {"--token-file", "/t", "--out", "x"},
		"takes --out":            {"--token-file", "/t", "--tls-ca", "/a"},
		"the whole path":         {"--token-file", "t", "--tls-ca", "/a", "--out", "x"},
		"certificates only":      {"--token-file", "/t", "--tls-ca", "/a", "--out", "x", "--companion", "10.0.0.5:1"},
		"--out-as":               {"--out", "x", "--out-as", "y"},
		"want host:port":         {"--xds", "10.0.0.5:1,a"},
	} {
		if status, _, errs := legation(append([]string{"bootstrap", "--group", "edge"}, args...)...); status != 2 || !strings.Contains(errs, want) {
			t.Errorf("%v: got %d %s, want 2 and %q", args, status, errs, want)
		}
	}
}
