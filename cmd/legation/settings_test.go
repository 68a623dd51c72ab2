package main

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/auth"
	"github.com/spf13/cobra"
)

// optionsOf is what a verb's command line, the environment and legation.yaml come to.
func optionsOf(t testing.TB, verb func() *cobra.Command, flags ...string) (app.Options, error) {
	t.Helper()
	c := verb()
	c.SetErr(&bytes.Buffer{})
	must(t, c.ParseFlags(flags))
	s, err := newSettings(c.Flags())
	if err != nil {
		return app.Options{}, err
	}
	return s.options(c, "policy")
}

// The first of flag, environment, legation.yaml and default wins. These tests set the environment and the working
// directory, so none of them is parallel.
func TestSettingsPrecedence(t *testing.T) {
	for _, row := range []struct {
		name, file, variable, flag string
		want                       string
	}{
		{name: "default", want: app.DefaultXDS},
		{name: "file", file: "file:1", want: "file:1"},
		{name: "variable over file", file: "file:1", variable: "variable:1", want: "variable:1"},
		{name: "flag over variable", file: "file:1", variable: "variable:1", flag: "flag:1", want: "flag:1"},
		{name: "flag over file", file: "file:1", flag: "flag:1", want: "flag:1"},
		{name: "variable", variable: "variable:1", want: "variable:1"},
		{name: "flag that says the default", file: "file:1", variable: "variable:1", flag: app.DefaultXDS, want: app.DefaultXDS},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if row.file != "" {
				must(t, os.WriteFile(settingsFile, []byte("xds-address: "+row.file+"\n"), 0o600))
			}
			if row.variable != "" {
				t.Setenv("LEGATION_XDS_ADDRESS", row.variable)
			}
			var flags []string
			if row.flag != "" {
				flags = []string{"--xds-address", row.flag}
			}
			for _, verb := range []func() *cobra.Command{serveCommand, runCommand} {
				o, err := optionsOf(t, verb, flags...)
				if err != nil || o.XDSAddress != row.want {
					t.Errorf("got %q, %v, want %q", o.XDSAddress, err, row.want)
				}
			}
		})
	}
}

// Every setting can come each way.
func TestEverySettingEachWay(t *testing.T) {
	values := map[string]string{
		"insecure": "true", "roles": "auth", "log-level": "debug", "log-format": "json", "redis-timeout": "30ms", "fast-path": "off",
		"decision-log": "all", "decision-log-rate": "7", "validate": "envoy", "max-connection-age": "off", "allow-shrink": "true",
	}
	read := map[string]func(app.Options) any{
		"xds-address": func(o app.Options) any { return o.XDSAddress }, "companion-address": func(o app.Options) any { return o.CompanionAddress },
		"admin-address": func(o app.Options) any { return o.AdminAddress }, "companion-target": func(o app.Options) any { return o.CompanionTarget },
		"redis": func(o app.Options) any { return o.Redis }, "data-dir": func(o app.Options) any { return o.DataDir },
		"secrets-dir": func(o app.Options) any { return o.SecretsDir }, "envoy": func(o app.Options) any { return o.Envoy },
		"validate": func(o app.Options) any { return o.Validate == app.EnvoyValidator },
		"tls-cert": func(o app.Options) any { return o.TLSCert }, "tls-key": func(o app.Options) any { return o.TLSKey },
		"tls-ca": func(o app.Options) any { return o.TLSCA }, "admin-token-file": func(o app.Options) any { return o.AdminTokenFile },
		"allow-shrink":       func(o app.Options) any { return o.AllowShrink },
		"nodes":              func(o app.Options) any { return o.Nodes },
		"max-connection-age": func(o app.Options) any { return o.MaxConnectionAge < 0 },
		"insecure":           func(o app.Options) any { return o.Insecure }, "roles": func(o app.Options) any { return len(o.Roles) == 1 && o.Roles[0] == app.Auth },
		"redis-timeout": func(o app.Options) any { return o.RedisTimeout == 30*time.Millisecond },
		"fast-path":     func(o app.Options) any { return o.NoFastPath },
		"decision-log":  func(o app.Options) any { return o.Decisions == auth.LogAll }, "decision-log-rate": func(o app.Options) any { return o.DecisionRate == 7 },
		"log-level":  func(o app.Options) any { return o.Log.Enabled(t.Context(), slog.LevelDebug) },
		"log-format": func(o app.Options) any { _, ok := o.Log.Handler().(*slog.JSONHandler); return ok },
	}
	for _, name := range flagNames(serveCommand()) {
		if read[name] == nil {
			if name != "help" {
				t.Errorf("--%s: the test does not know it", name)
			}
			continue
		}
		value := values[name]
		want := any(true)
		if value == "" {
			value, want = "x-"+name, "x-"+name
		}
		for _, way := range []string{"flag", "variable", "file"} {
			t.Run(name+" by "+way, func(t *testing.T) {
				t.Chdir(t.TempDir())
				var flags []string
				switch way {
				case "flag":
					flags = []string{"--" + name + "=" + value}
				case "variable":
					t.Setenv("LEGATION_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_")), value)
				case "file":
					t.Setenv("LEGATION_ENVOY", "") // which make test sets
					must(t, os.WriteFile(settingsFile, []byte(name+": "+value+"\n"), 0o600))
				}
				if o, err := optionsOf(t, serveCommand, flags...); err != nil || read[name](o) != want {
					t.Errorf("got %v, %v, want %v", read[name](o), err, want)
				}
			})
		}
		if !slices.Contains(known, name) {
			t.Errorf("--%s may not stand in legation.yaml", name)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, row := range []struct{ way, text, want string }{
		{"none", "", "[xds ratelimit auth]"},
		{"flag", "auth,ratelimit", "[auth ratelimit]"},
		{"flag", "auth, ratelimit", "[auth ratelimit]"},
		{"variable", "auth,ratelimit", "[auth ratelimit]"},
		{"variable", "auth, ratelimit", "[auth ratelimit]"},
		{"variable", "auth ratelimit", "[auth ratelimit]"},
		{"file", "[auth, ratelimit]", "[auth ratelimit]"},
		{"file", "auth,ratelimit", "[auth ratelimit]"},
		{"file", "\n- auth\n- ratelimit", "[auth ratelimit]"},
	} {
		t.Run(row.way+" "+row.text, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var flags []string
			switch row.way {
			case "flag":
				flags = []string{"--roles", row.text}
			case "variable":
				t.Setenv("LEGATION_ROLES", row.text)
			case "file":
				must(t, os.WriteFile(settingsFile, []byte("roles: "+row.text+"\n"), 0o600))
			}
			o, err := optionsOf(t, serveCommand, flags...)
			must(t, err)
			var got []string
			for _, r := range o.Roles {
				got = append(got, string(r))
			}
			if text := "[" + strings.Join(got, " ") + "]"; text != row.want {
				t.Errorf("got %s, want %s", text, row.want)
			}
		})
	}
}

func TestSettingsFileErrors(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"xds-adress: a:1\n", `no setting "xds-adress"; did you mean xds-address?`},
		{"admin_address: a:1\n", `no setting "admin_address"; did you mean admin-address?`},
		{"tls:\n  cert: x\n", `no setting "tls.cert"; did you mean tls-cert?`},
		{"upstreams: 1\nzz: 1\n", `no setting "upstreams"; see legation serve --help`},
		{"xds-address: [\n", settingsFile},
		{"- a\n", settingsFile},
	} {
		t.Run(row.text, func(t *testing.T) {
			t.Chdir(t.TempDir())
			must(t, os.WriteFile(settingsFile, []byte(row.text), 0o600))
			for _, args := range [][]string{{"serve", "."}, {"run", "."}, {"status"}} {
				status, _, errs := legation(args...)
				if status != statusUsage || !strings.Contains(errs, row.want) || !strings.Contains(errs, settingsFile) {
					t.Errorf("%s: got %d %q, want 2 and %q", args[0], status, errs, row.want)
				}
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		t.Chdir(t.TempDir())
		must(t, os.Mkdir(settingsFile, 0o755))
		if status, _, errs := legation("serve", "."); status != statusUsage || !strings.Contains(errs, settingsFile) {
			t.Errorf("got %d %q", status, errs)
		}
	})
}

// One legation.yaml serves all verbs, upper case or not; verbs that start nothing don't look at it.
func TestSettingsFileIsShared(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, os.WriteFile(settingsFile, []byte("server: http://127.0.0.1:1\ntoken-file: none\nenvoy: /e\nREDIS: redis://r\nroles: [xds]\n"), 0o600))
	for _, verb := range []func() *cobra.Command{serveCommand, runCommand} {
		if o, err := optionsOf(t, verb); err != nil || o.Redis != "redis://r" {
			t.Errorf("got %q, %v", o.Redis, err)
		}
	}
	must(t, os.WriteFile(settingsFile, []byte("nonsense: true\n"), 0o600))
	for _, args := range [][]string{{"version"}, {"schema"}, {"token", "--sub", "a"}} {
		if status, _, errs := legation(args...); status != 0 {
			t.Errorf("%s: got %d %s", args[0], status, errs)
		}
	}
}

// run is for a terminal: it logs warnings, serve logs what operators want to know. Both can be told otherwise.
func TestLogLevels(t *testing.T) {
	for _, row := range []struct {
		verb     func() *cobra.Command
		variable string
		flags    []string
		info     bool
	}{
		{serveCommand, "", nil, true},
		{runCommand, "", nil, false},
		{runCommand, "info", nil, true},
		{runCommand, "error", []string{"--log-level", "info"}, true},
		{serveCommand, "", []string{"--log-level=WARN"}, false},
	} {
		t.Chdir(t.TempDir())
		t.Setenv("LEGATION_LOG_LEVEL", row.variable)
		o, err := optionsOf(t, row.verb, row.flags...)
		if err != nil || o.Log.Enabled(t.Context(), slog.LevelInfo) != row.info {
			t.Errorf("%+v: got %v", row, err)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"log_level": "did you mean log-level?", "rediss": "did you mean redis?",
		"something-else-entirely": "see legation serve --help",
	} {
		if got := nearest(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func TestFastPath(t *testing.T) {
	for _, row := range []struct {
		text string
		on   bool
	}{{"", true}, {"fast-path: on\n", true}, {"fast-path: true\n", true}, {"fast-path: off\n", false}, {"fast-path: \"off\"\n", false}, {"fast-path: false\n", false}} {
		t.Chdir(t.TempDir())
		must(t, os.WriteFile(settingsFile, []byte(row.text), 0o600))
		if o, err := optionsOf(t, serveCommand); err != nil || o.NoFastPath == row.on {
			t.Errorf("%q: got %v, %v", row.text, o.NoFastPath, err)
		}
	}
	t.Chdir(t.TempDir())
	if status, _, errs := legation("serve", ".", "--fast-path", "maybe"); status != statusUsage || !strings.Contains(errs, `want on or off, not "maybe"`) {
		t.Errorf("got %d %q, want 2", status, errs)
	}
}

// A time without its unit is not guessed at.
func TestRedisTimeout(t *testing.T) {
	for _, row := range []struct{ text, want string }{{"20", "unit"}, {"soon", "unit"}, {"1s", "at most"}, {"-1ms", "--redis-timeout"}} {
		t.Chdir(t.TempDir())
		must(t, os.WriteFile(settingsFile, []byte("redis-timeout: "+row.text+"\n"), 0o600))
		if status, _, errs := legation("serve", "."); status != statusUsage || !strings.Contains(errs, row.want) {
			t.Errorf("%s: got %d %q, want 2 and %q", row.text, status, errs, row.want)
		}
	}
}
