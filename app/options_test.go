package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheckOptions(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "policy.yaml"), "")
	tls := func(o Options) Options { o.TLSCert, o.TLSKey, o.TLSCA = "c", "k", "a"; return o }
	for _, row := range []struct {
		name string
		o    Options
		want []string // parts of the error, none for good options
	}{
		{"defaults", Options{}, nil},
		{"a directory that is not there yet", Options{Dir: "missing"}, nil},
		{"a file for a directory", Options{Dir: file}, []string{"is a file"}},
		{"secrets that are not there yet", Options{Dir: "policy", SecretsDir: "missing"}, nil},
		{"a file for the secrets' directory", Options{Dir: "policy", SecretsDir: file}, []string{"--secrets-dir", "is a file"}},
		{"secrets in the policy directory", Options{Dir: "policy", SecretsDir: "policy/secrets"}, []string{"--secrets-dir policy/secrets lies in"}},
		{"one directory for both", Options{Dir: "policy", SecretsDir: "./x/../policy/"}, []string{"lies in the policy directory"}},
		{"secrets beside the policy", Options{Dir: "policy", SecretsDir: "policy-secrets"}, nil},
		{"policy below the secrets", Options{Dir: "secrets/policy", SecretsDir: "secrets"}, nil},
		{"one role", Options{Roles: []Role{Auth}}, nil},
		{"no such role", Options{Roles: []Role{"waf", XDS, ""}}, []string{`no role "waf"`, `no role ""`, "xds, ratelimit, auth"}},

		{"certificate alone", Options{TLSCert: "c"}, []string{"all of --tls-cert"}},
		{"key and ca", Options{TLSKey: "k", TLSCA: "a"}, []string{"all of --tls-cert"}},
		{"all of tls", tls(Options{}), nil},
		{"nodes without tls", Options{Dir: "policy", Nodes: "n"}, []string{"--nodes n", "--tls-cert and --tls-key"}},
		{"nodes without a key", Options{Dir: "policy", Nodes: "n", TLSCert: "c", TLSCA: "a"}, []string{"--tls-cert and --tls-key"}},
		{"nodes without a ca", Options{Dir: "policy", Nodes: "n", TLSCert: "c", TLSKey: "k", XDSAddress: ":1"}, nil},
		{"nodes without a ca, companion everywhere", Options{Dir: "policy", Nodes: "n", TLSCert: "c", TLSKey: "k", CompanionAddress: ":1"}, []string{"--companion-address", "--tls-ca"}},
		{"nodes in the policy directory", tls(Options{Dir: "policy", Nodes: "policy/x/nodes.yaml"}), []string{"--nodes policy/x/nodes.yaml lies in"}},
		{"nodes without a policy directory", tls(Options{Nodes: "nodes.yaml"}), nil},
		{"nodes beside the policy", tls(Options{Dir: "policy", Nodes: "nodes.yaml"}), nil},
		{"an age", Options{MaxConnectionAge: time.Second}, nil},
		{"any age", Options{MaxConnectionAge: -1}, nil},
		{"no age at all", Options{MaxConnectionAge: time.Millisecond}, []string{"--max-connection-age 1ms"}},

		{"xds everywhere", Options{XDSAddress: "0.0.0.0:1"}, []string{"--xds-address 0.0.0.0:1", "--tls-ca", "--insecure"}},
		{"xds on no address", Options{XDSAddress: ":1"}, []string{"--xds-address :1", "other machines"}},
		{"xds everywhere, IPv6", Options{XDSAddress: "[::]:1"}, []string{"--xds-address [::]:1", "other machines"}},
		{"xds on an address", Options{XDSAddress: "10.0.0.5:1"}, []string{"--xds-address", "other machines"}},
		{"xds everywhere with tls", tls(Options{XDSAddress: "0.0.0.0:1"}), nil},
		{"xds everywhere, said", Options{XDSAddress: "0.0.0.0:1", Insecure: true}, nil},
		{"xds everywhere, not a role", Options{XDSAddress: "0.0.0.0:1", Roles: []Role{Auth}}, nil},
		{"companion everywhere", Options{CompanionAddress: "[::]:1"}, []string{"--companion-address [::]:1", "other machines"}},
		{"companion everywhere, one of its roles", Options{CompanionAddress: ":1", Roles: []Role{RateLimit}}, []string{"--companion-address"}},
		{"companion everywhere, not a role", Options{CompanionAddress: ":1", Roles: []Role{XDS}}, nil},
		{"admin everywhere", Options{AdminAddress: "0.0.0.0:1"}, []string{"--admin-address 0.0.0.0:1", "--admin-token-file"}},
		{"admin everywhere with tls", tls(Options{AdminAddress: "0.0.0.0:1"}), []string{"--admin-token-file"}},
		{"admin everywhere with a token", Options{AdminAddress: "0.0.0.0:1", AdminTokenFile: "t"}, nil},
		{"a token does not open xds", Options{XDSAddress: ":1", AdminTokenFile: "t"}, []string{"--xds-address"}},

		{"loopback", Options{XDSAddress: "127.9.9.9:1", CompanionAddress: "[::1]:1", AdminAddress: "localhost:1"}, nil},
		{"loopback in IPv6's clothes", Options{AdminAddress: "[::ffff:127.0.0.1]:1"}, nil},
		{"a Redis that takes its time", Options{RedisTimeout: 100 * time.Millisecond}, nil},
		{"a Redis that Envoy won't wait for", Options{RedisTimeout: 101 * time.Millisecond}, []string{"--redis-timeout"}},
		{"time that runs backwards", Options{RedisTimeout: -1}, []string{"--redis-timeout"}},
		{"port 0", Options{XDSAddress: "127.0.0.1:0"}, nil},
		{"port by name", Options{XDSAddress: "127.0.0.1:http"}, nil},
		{"port without a host", Options{XDSAddress: "18000"}, []string{"--xds-address 18000", "host:port"}},
		{"host without a port", Options{AdminAddress: "127.0.0.1"}, []string{"--admin-address 127.0.0.1", "host:port"}},
		{"nothing behind the colon", Options{AdminAddress: "127.0.0.1:"}, []string{"port is missing"}},
		{"port too large", Options{AdminAddress: "127.0.0.1:65536"}, []string{"--admin-address"}},
		{"port below 0", Options{AdminAddress: "127.0.0.1:-1"}, []string{"--admin-address"}},
		{"a host name", Options{AdminAddress: "admin.example.com:1"}, []string{"IP address or localhost", "admin.example.com"}},
		{"a host name, said", Options{AdminAddress: "admin.example.com:1", Insecure: true}, []string{"IP address or localhost"}},
		{"decisions", Options{Decisions: "some"}, []string{"--decision-log", "off, denied or all"}},
		{"too many decisions", Options{Decisions: "all", DecisionRate: 10_001}, []string{"--decision-log-rate 10001"}},
		{
			"everything at once",
			Options{XDSAddress: ":1", CompanionAddress: ":2", AdminAddress: ":3", Roles: []Role{"x", XDS, Auth}, TLSKey: "k"},
			[]string{"--xds-address", "--companion-address", "--admin-address", `no role "x"`, "all of"},
		},
	} {
		err := row.o.withDefaults().check()
		if (err == nil) != (row.want == nil) {
			t.Errorf("%s: got %v", row.name, err)
			continue
		}
		for _, part := range row.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want it to say %q", row.name, err, part)
			}
		}
		if err != nil && !Usage(err) {
			t.Errorf("%s: %v is no usage error", row.name, err)
		}
	}
}

// A link into the policy directory is no way around.
func TestSecretsBehindALink(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	write(t, filepath.Join(top, "policy/secrets/word"), "")
	must(t, os.Symlink("policy/secrets", filepath.Join(top, "secrets")))
	if err := (Options{Dir: filepath.Join(top, "policy"), SecretsDir: filepath.Join(top, "secrets")}).checkSecretsDir(); !Usage(err) {
		t.Errorf("got %v, want a usage error", err)
	}
}

func TestCheckEnvoyAdmin(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		o    Options
		want string
	}{
		{Options{}, ""},
		{Options{EnvoyAdminAddress: "[::1]:19000"}, ""},
		{Options{EnvoyAdminAddress: "0.0.0.0:19000"}, "other machines"},
		{Options{EnvoyAdminAddress: "0.0.0.0:19000", TLSCert: "c", AdminTokenFile: "t"}, "other machines"},
		{Options{EnvoyAdminAddress: "0.0.0.0:19000", Insecure: true}, ""},
		{Options{EnvoyAdminAddress: "127.0.0.1:0"}, "name a port"},
		{Options{EnvoyAdminAddress: "19000"}, "host:port"},
	} {
		err := row.o.withDefaults().checkEnvoyAdmin()
		if (err == nil) != (row.want == "") || err != nil && (!strings.Contains(err.Error(), row.want) || !Usage(err)) {
			t.Errorf("%q: got %v, want %q", row.o.EnvoyAdminAddress, err, row.want)
		}
	}
	if err := Run(t.Context(), Options{EnvoyAdminAddress: "0.0.0.0:1", Envoy: "/nowhere"}); !Usage(err) {
		t.Errorf("Run: got %v, want a usage error before it looks for Envoy", err)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	o := Options{AdminAddress: "127.0.0.1:1"}.withDefaults()
	if o.XDSAddress != DefaultXDS || o.CompanionAddress != DefaultCompanion || o.AdminAddress != "127.0.0.1:1" ||
		o.EnvoyAdminAddress != DefaultEnvoyAdmin || o.Log == nil || o.Out == nil || len(o.Roles) != 3 {
		t.Errorf("got %+v", o)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	if Usage(nil) || Usage(os.ErrNotExist) {
		t.Error("errors of other kinds are taken for usage errors")
	}
	if err := errors.Join(os.ErrNotExist, usagef("--x: %w", os.ErrInvalid)); !Usage(err) || !errors.Is(err, os.ErrInvalid) {
		t.Errorf("%v is not taken for a usage error, or hides its cause", err)
	}
}

// What can't work is told before anything is taken: the data directory is free afterwards.
func TestRefusedOptionsTakeNothing(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	short := write(t, filepath.Join(t.TempDir(), "token"), "short\n")
	for _, row := range []struct {
		o    Options
		want string
	}{
		{Options{Redis: "ftp://127.0.0.1"}, "--redis"},
		{Options{AdminTokenFile: "missing"}, "--admin-token-file"},
		{Options{AdminTokenFile: short}, "at least 16"},
		{Options{TLSCert: "missing", TLSKey: "missing", TLSCA: "missing"}, "--tls-cert"},
	} {
		row.o.DataDir = data
		if err := Serve(t.Context(), anywhere(row.o)); !Usage(err) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("got %v, want a usage error of %s", err, row.want)
		}
		s, err := claim(data)
		if err != nil || s.taken {
			t.Fatalf("after %s the data directory is taken: %v", row.want, err)
		}
		must(t, s.release())
	}
}

func TestConnectionAge(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		said    time.Duration
		address string
		want    time.Duration
	}{
		{0, "127.0.0.1:1", 0},
		{0, "0.0.0.0:1", 30 * time.Minute},
		{time.Minute, "127.0.0.1:1", time.Minute},
		{time.Minute, "0.0.0.0:1", time.Minute},
		{-1, "127.0.0.1:1", 0},
		{-1, "0.0.0.0:1", 0},
	} {
		if got := (Options{MaxConnectionAge: row.said}).age(row.address); got != row.want {
			t.Errorf("%s at %s: got %s, want %s", row.said, row.address, got, row.want)
		}
	}
}
