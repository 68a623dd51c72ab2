package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the goldens anew")

const good = `gateways: {edge: {listeners: {http: {port: 10000, address: 127.0.0.1}}}}
services: {app: {endpoints: ["127.0.0.1:9001"]}}
routes: {app: {hostnames: [localhost], backends: {app: 1}}}
`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// legation runs a command line.
func legation(args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = run(args, &o, &e)
	return status, o.String(), e.String()
}

// policyDir is a directory with files, given as name and text in turn.
func policyDir(t testing.TB, pairs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(pairs); i += 2 {
		must(t, os.WriteFile(filepath.Join(dir, pairs[i]), []byte(pairs[i+1]), 0o600))
	}
	return dir
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	dir, bad := policyDir(t, "policy.yaml", good), policyDir(t, "policy.yaml", "routes: [\n")
	two := policyDir(t, "policy.yaml", strings.Replace(good, "gateways: {", "gateways: {other: {listeners: {http: {port: 1}}}, ", 1)+
		"# and the routes say which\n")
	must(t, os.WriteFile(filepath.Join(two, "policy.yaml"), []byte(strings.Replace(string(read(t, two)), "hostnames:", "gateways: [edge], hostnames:", 1)), 0o600))
	for _, row := range []struct {
		args   []string
		status int
		says   string // on the one output or the other
	}{
		{nil, 0, "Usage:"},
		{[]string{"--help"}, 0, "Usage:"},
		{[]string{"--version"}, 0, "legation version"},
		{[]string{"version"}, 0, "Envoy API"},
		{[]string{"check", dir}, 0, "ok: 1 gateway, 1 route, 1 service, revision "},
		{[]string{"check", "../../examples/mesh"}, 0, "ok: 1 gateway, 2 sidecars, 1 route, 2 services, revision "},
		{[]string{"check", two}, 0, "ok: 2 gateways, 1 route, 1 service"},
		{[]string{"render", dir}, 0, `"edge"`},
		{[]string{"render", two, "--group", "other"}, 0, `"other"`},

		{[]string{"check", bad}, 1, "policy.yaml:"},
		{[]string{"check", filepath.Join(dir, "missing")}, 1, "no such file"},
		{[]string{"check", policyDir(t)}, 1, "no policy files"},
		{[]string{"render", bad}, 1, "policy.yaml:"},
		{[]string{"status", "--server", "127.0.0.1:1"}, 1, "is legation running?"},
		{[]string{"token", "--sub", "a", "--key", filepath.Join(dir, "policy.yaml")}, 1, "neither PEM nor a JWK"},
		{[]string{"echo", "--address", "203.0.113.1"}, 1, "sample upstream"},

		{[]string{"chek", dir}, 2, `no verb "chek": did you mean check?`},
		{[]string{"nonsense"}, 2, "see legation --help"},
		{[]string{"--nonsense"}, 2, "unknown flag"},
		{[]string{"explain", "http://localhost/", dir}, 0, "the route app answers"},
		{[]string{"explain", "HEAD", "http://localhost/", dir, "-H", "x: y", "--from", "::1"}, 0, "because"},
		{[]string{"explain", "http://nowhere/", dir}, 1, "no route is for the host nowhere"},
		{[]string{"explain", "http://localhost/%2f", dir}, 1, "refused by the listener: 400"},
		{[]string{"explain", "http://localhost/", bad}, 1, "policy.yaml:"},
		{[]string{"explain", dir}, 2, "want [METHOD] URL and the directory"},
		{[]string{"explain", "GET", dir, dir}, 2, "want a URL of http:// or https://"},
		{[]string{"explain", "https://localhost/", dir}, 2, "no listener speaks HTTPS"},
		{[]string{"explain", "http://localhost/", dir, "-H", "x"}, 2, "want 'name: value'"},
		{[]string{"explain", "http://localhost/", dir, "--from", "here"}, 2, "want an IP address"},
		{[]string{"explain", "http://localhost/", dir, "--gateway", "other"}, 2, "no such listener"},
		{[]string{"explain", "http://localhost/", dir, "-o", "xml"}, 2, "want text or json"},
		{[]string{"show"}, 0, "Usage:"},
		{[]string{"show", "route", "app", dir}, 0, "hostnames"},
		{[]string{"show", "service", "app", dir, "-o", "json"}, 0, `"endpoints.127.0.0.1:9001"`},
		{[]string{"show", "gateway", "edge", dir}, 0, "listeners.http.port"},
		{[]string{"show", "route", "app", bad}, 1, "policy.yaml:"},
		{[]string{"show", "route", "ap", dir}, 2, `no route "ap": did you mean app?`},
		{[]string{"show", "service", "nonsense", dir}, 2, `no service "nonsense": there is app`},
		{[]string{"show", "gateway", "edge"}, 2, "name the gateway and the directory"},
		{[]string{"show", "plan", "free", dir}, 2, "show knows routes, services, gateways and revisions"},
		{[]string{"show", "route", "app", dir, "-o", "xml"}, 2, "want text or json"},
		{[]string{"docs"}, 0, "tries requests again"},
		{[]string{"docs", "retry"}, 0, "`attempts` "},
		{[]string{"docs", "retry.attempts"}, 0, "`attempts` "},
		{[]string{"docs", "routes"}, 0, "Keys that may stand here: `access`, "},
		{[]string{"docs", "plan"}, 0, "plan, in consumers.NAME\n"},
		{[]string{"docs", "hostnames"}, 0, "`hostnames` of `routes.NAME`: the hosts"},
		{[]string{"docs", "match"}, 0, "`methods`  any of these methods"},
		{[]string{"docs", "retyr"}, 2, `there is no key "retyr": did you mean retry?`},
		{[]string{"docs", "nonsense"}, 2, "legation docs lists all keys"},
		{[]string{"docs", "a", "b"}, 2, "name one key"},
		{[]string{"check"}, 2, "name the directory"},
		{[]string{"check", dir, dir}, 2, "name the directory"},
		{[]string{"check", dir, "--nonsense"}, 2, "see legation check --help"},
		{[]string{"check", dir, "-o", "yaml"}, 2, "want text, json, sarif or github"},
		{[]string{"version", "-o", "yaml"}, 2, "want text or json"},
		{[]string{"version", "now"}, 2, "no arguments"},
		{[]string{"status", "-o", "xml"}, 2, "want text or json"},
		{[]string{"status", "--server", "http://[::1"}, 2, "--server"},
		{[]string{"status", "--token-file", filepath.Join(dir, "missing")}, 2, "--token-file"},
		{[]string{"render", dir, "--group", "nobody"}, 2, `no gateway "nobody"`},
		{[]string{"render", two, "--static"}, 2, "--group: edge, other"},
		{[]string{"render", two, "--static", "--group", "nobody"}, 2, "--group: edge, other"},
		{[]string{"render", dir, "--static", "--tls-cert", "c"}, 2, "all of --tls-cert"},
		{[]string{"bootstrap"}, 2, "--group"},
		{[]string{"bootstrap", "--group", "edge", "--tls-key", "k"}, 2, "all of --tls-cert"},
		{[]string{"bootstrap", "--group", "edge", "--xds", "nonsense"}, 2, "want host:port"},
		{[]string{"bootstrap", "--group", "edge", "--xds", "a:1,b"}, 2, `--xds "a:1,b"`},
		{[]string{"bootstrap", "--group", "edge", "--companion", "a:99999"}, 2, "--companion"},
		{[]string{"bootstrap", "--group", "edge", "--envoy-admin-address", ":1"}, 2, "--envoy-admin-address"},
		{[]string{"bootstrap", "--group", "edge", "--max-heap", "1GB"}, 2, `--max-heap "1GB": want a size`},
		{[]string{"limits"}, 0, "Usage:"},
		{[]string{"limits", "list", dir}, 0, "the policy has no limits"},
		{[]string{"limits", "list", bad}, 1, "policy.yaml:"},
		{[]string{"limits", "top", "--server", "127.0.0.1:1"}, 1, "is legation running?"},
		{[]string{"limits", "report", "--server", "127.0.0.1:1"}, 1, "is legation running?"},
		{[]string{"usage", "acme", "--server", "127.0.0.1:1"}, 1, "is legation running?"},
		{[]string{"usage", "acme", "--server", "127.0.0.1:1", "--limit", "a", "--add", "1"}, 1, "is legation running?"},
		{[]string{"limits", "bottom"}, 2, `knows no "bottom": there is list, top or report`},
		{[]string{"limits", "top", "now"}, 2, "no arguments"},
		{[]string{"limits", "top", "-n", "0"}, 2, "want 1 to 256"},
		{[]string{"limits", "top", "-n", "257"}, 2, "want 1 to 256"},
		{[]string{"limits", "top", "-o", "xml"}, 2, "want text or json"},
		{[]string{"limits", "report", "a"}, 2, "no arguments"},
		{[]string{"limits", "list"}, 2, "name the directory"},
		{[]string{"limits", "list", dir, "-o", "xml"}, 2, "want text or json"},
		{[]string{"usage"}, 2, "name a consumer"},
		{[]string{"usage", ""}, 2, "name a consumer"},
		{[]string{"usage", "a", "b"}, 2, "name a consumer"},
		{[]string{"usage", "a", "-o", "xml"}, 2, "want text or json"},
		{[]string{"usage", "a", "--add", "1"}, 2, "name the limit with --limit"},
		{[]string{"usage", "a", "--limit", "l", "--add", "1", "--give-back", "1"}, 2, "not both"},
		{[]string{"usage", "a", "--limit", "l", "--add", "0"}, 2, "want a number of at least 1"},
		{[]string{"usage", "a", "--limit", "l", "--give-back", "-5"}, 2, "want a number of at least 1"},
		{[]string{"usage", "a", "--server", "a:1,b:2"}, 2, "asks one process, not 2"},
		{[]string{"import", "nginx"}, 2, `knows no "nginx": there is ratelimit`},
		{[]string{"token"}, 2, "--sub"},
		{[]string{"token", "--sub", "a", "--claim", "plan"}, 2, "NAME=VALUE"},
		{[]string{"token", "--sub", "a", "--key", filepath.Join(dir, "missing")}, 2, "--key"},
		{[]string{"token", "--sub", "a", "--ttl", "soon"}, 2, "--ttl"},
		{[]string{"echo", "--port", "70000"}, 2, "--port"},
		{[]string{"serve", dir, "--log-level", "loud"}, 2, `--log-level: want debug, info, warn or error, not "loud"`},
		{[]string{"serve", dir, "--log-format", "xml"}, 2, `--log-format: want text or json, not "xml"`},
		{[]string{"serve", dir, "--roles", "xds,waf"}, 2, `no role "waf"`},
		{[]string{"serve", dir, "--xds-address", "0.0.0.0:0"}, 2, "--insecure"},
		{[]string{"serve", filepath.Join(dir, "policy.yaml")}, 2, "is a file"},
		{[]string{"run", dir, "--envoy-admin-address", "0.0.0.0:1"}, 2, "--envoy-admin-address"},
	} {
		status, out, errs := legation(row.args...)
		if status != row.status || !strings.Contains(out+errs, row.says) {
			t.Errorf("legation %s: got %d %q %q, want %d and %q", strings.Join(row.args, " "), status, out, errs, row.status, row.says)
		}
		if status == statusUsage && (out != "" || !strings.HasPrefix(errs, "legation: ")) {
			t.Errorf("legation %s: %q on standard output, %q on standard error", strings.Join(row.args, " "), out, errs)
		}
	}
}

func read(t testing.TB, dir string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	must(t, err)
	return text
}

func TestUsageKeepsItsCause(t *testing.T) {
	t.Parallel()
	if err := error(usage{os.ErrNotExist}); !errors.Is(err, os.ErrNotExist) {
		t.Error("a usage error hides its cause")
	}
}

// testdata/help/VERB.txt is the help of each verb, for people to look at.
func TestHelp(t *testing.T) {
	t.Parallel()
	verbs := []string{""}
	for _, c := range verbsBelow(rootCommand()) {
		verbs = append(verbs, strings.TrimPrefix(c.CommandPath(), "legation "))
	}
	for _, verb := range verbs {
		status, got, errs := legation(append(strings.Fields(verb), "--help")...)
		if status != 0 || errs != "" {
			t.Errorf("%s --help: got %d %s", verb, status, errs)
		}
		golden := filepath.Join("testdata/help", strings.Join(append([]string{"legation"}, strings.Fields(verb)...), "-")+".txt")
		if *update {
			must(t, os.MkdirAll(filepath.Dir(golden), 0o755))
			must(t, os.WriteFile(golden, []byte(got), 0o644))
			continue
		}
		want, err := os.ReadFile(golden)
		must(t, err)
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got), or run with -update:\n%s", golden, diff)
		}
		for line := range strings.Lines(got) {
			if len(line) > 130 || strings.TrimRight(line, " \n")+"\n" != line && line != "\n" {
				t.Errorf("%s: %q is too long, or ends in a space", golden, line)
			}
		}
	}
}

// Every verb says what it does in one line and in more, and shows how it is called.
func TestEveryVerbIsExplained(t *testing.T) {
	t.Parallel()
	for _, c := range verbsBelow(rootCommand()) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 80 {
			t.Errorf("%s: %q", c.CommandPath(), c.Short)
		}
		if c.Name() != "version" && (c.Long == "" || !strings.Contains(c.Example, c.CommandPath())) {
			t.Errorf("%s: no long text, or no example", c.CommandPath())
		}
		if c.Args == nil || c.RunE == nil {
			t.Errorf("%s does not check its arguments", c.CommandPath())
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		status, out, errs := legation("completion", shell)
		if status != 0 || errs != "" || !strings.Contains(out, "__complete") || !strings.Contains(out, "legation") {
			t.Errorf("%s: got %d %.80q %q", shell, status, out, errs)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	const dirs, none, files = ":16", ":4", ":0"
	for _, row := range []struct {
		typed string
		want  string // values, then the directive
	}{
		{"che", "check " + none},
		{"serve |", dirs},
		{"serve policy |", none},
		{"check |", dirs},
		{"render |", dirs},
		{"diff |", dirs},
		{"diff a |", dirs},
		{"diff a b |", none},
		{"run |", dirs},
		{"status |", none},
		{"token |", "verify " + none},
		{"token verify |", none},
		{"token verify - |", dirs},
		{"show |", "gateway route service " + none},
		{"show route |", none},
		{"show route app |", dirs},
		{"docs retr|", "retry " + none},
		{"docs retry |", none},
		{"explain |", "GET HEAD POST PUT PATCH DELETE OPTIONS " + none},
		{"explain GET |", none},
		{"explain GET http://a/ |", dirs},
		{"explain http://a/ |", dirs},
		{"explain http://a/ policy |", none},
		{"explain --from |", none},
		{"serve --roles |", "xds ratelimit auth :6"},
		{"serve --roles xds,|", "xds,ratelimit xds,auth :6"},
		{"serve --log-level |", "debug info warn error " + none},
		{"serve --log-format |", "text json " + none},
		{"run --log-level |", "debug info warn error " + none},
		{"check -o |", "text json sarif github " + none},
		{"status --output |", "text json " + none},
		{"version --output |", "text json " + none},
		{"serve --data-dir |", dirs},
		{"serve --xds-address |", none},
		{"serve --tls-cert |", files},
		{"token --key |", files},
		{"token --sub |", none},
		{"bootstrap --group |", none},
		{"echo --port |", none},
		{"run --envoy |", files},
		{"limits |", "list report top " + none},
		{"limits list |", dirs},
		{"limits top -o |", "text json " + none},
		{"import ratelimit |", "yaml yml :8"},
		{"import ratelimit a.yaml |", "yaml yml :8"},
		{"usage --server 127.0.0.1:1 |", none},
		{"usage --server 127.0.0.1:1 a |", none},
		{"usage --server 127.0.0.1:1 --plan |", none},
		{"limits report --server 127.0.0.1:1 --limit |", none},
	} {
		typed, rest := strings.CutSuffix(row.typed, "|")
		args := append([]string{"__complete"}, strings.Fields(typed)...)
		if rest && strings.HasSuffix(typed, " ") {
			args = append(args, "")
		}
		status, out, _ := legation(args...)
		var got []string
		for line := range strings.Lines(out) {
			value, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			got = append(got, value)
		}
		if status != 0 || strings.Join(got, " ") != row.want {
			t.Errorf("%s: got %d %q, want %q", row.typed, status, got, row.want)
		}
	}
}

// No flag is left to the shell's guess: it has choices, is plain, or takes a file.
func TestEveryFlagIsCompleted(t *testing.T) {
	t.Parallel()
	files := []string{"tls-cert", "tls-key", "tls-ca", "admin-token-file", "token-file", "key", "key-file", "secret-file", "envoy", "nodes", "junit"}
	for _, c := range verbsBelow(rootCommand()) {
		for _, name := range flagNames(c) {
			_, registered := c.GetFlagCompletionFunc(name)
			isFile := false
			for _, f := range files {
				isFile = isFile || f == name
			}
			kind := c.Flags().Lookup(name).Value.Type()
			if kind != "bool" && registered == isFile {
				t.Errorf("%s --%s: completed by us: %t, but it takes a file: %t", c.Name(), name, registered, isFile)
			}
		}
	}
}

func flagNames(c *cobra.Command) (names []string) {
	for _, field := range strings.Fields(c.Flags().FlagUsages()) {
		if name, ok := strings.CutPrefix(field, "--"); ok && c.Flags().Lookup(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// Colour is for terminals only.
func TestColour(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	defer f.Close()
	if colour(f) || colour(io.Discard) {
		t.Error("a file and a buffer get colour")
	}
}
