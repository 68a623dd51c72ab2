package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/auth"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// settingsFile is read from the working directory when it is there.
const settingsFile = "legation.yaml"

// settings is the flags of a verb, over the environment, over legation.yaml. Policy files never pass through viper: it
// lower-cases keys and knows no positions.
type settings struct{ v *viper.Viper }

func newSettings(flags *pflag.FlagSet) (settings, error) {
	v := viper.New()
	v.SetEnvPrefix("LEGATION")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	v.SetConfigFile(settingsFile)
	if err := v.ReadInConfig(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return settings{}, usage{fmt.Errorf("%s: %w", settingsFile, err)}
	}
	for _, key := range slices.Sorted(slices.Values(v.AllKeys())) {
		if !slices.Contains(known, key) {
			return settings{}, usage{fmt.Errorf("%s: no setting %q; %s", settingsFile, key, nearest(key))}
		}
	}
	if err := v.BindPFlags(flags); err != nil {
		return settings{}, usage{err}
	}
	return settings{v}, nil
}

// nearest is a hint at the setting that was meant: cobra's distance, as for a verb.
func nearest(key string) string {
	all := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, name := range known {
		all.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	near := all.SuggestionsFor(strings.NewReplacer("_", "-", ".", "-").Replace(key))
	if len(near) == 0 {
		return "see legation serve --help"
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// known is the settings of all verbs, which one legation.yaml may hold together.
var known = []string{
	"roles", "xds-address", "companion-address", "admin-address", "envoy-admin-address", "companion-target", "redis", "redis-timeout",
	"fast-path", "data-dir", "secrets-dir", "envoy", "log-level", "log-format", "validate", "decision-log", "decision-log-rate", "tls-cert", "tls-key", "tls-ca", "nodes", "max-connection-age", "admin-token-file", "insecure",
	"server", "token-file", "allow-shrink",
}

// process reads the settings of serve and run, and runs the process until the command's context ends.
func process(run func(context.Context, app.Options) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		s, err := newSettings(c.Flags())
		if err != nil {
			return err
		}
		dir := ""
		if len(args) > 0 {
			dir = args[0]
		}
		o, err := s.options(c, dir)
		if err != nil {
			return err
		}
		return run(c.Context(), o)
	}
}

// processFlags adds the flags of serve and run.
func processFlags(f *pflag.FlagSet, level string) {
	f.String("xds-address", app.DefaultXDS, "where xDS is served (gRPC)")
	f.String("companion-address", app.DefaultCompanion, "where the auth and rate limit services answer (gRPC)")
	f.String("admin-address", app.DefaultAdmin, "where health, metrics and status are served (HTTP)")
	f.String("redis", "", "where limits are counted, and API keys, revocations and sessions kept: redis://, rediss:// or unix:// URL; with ?master_name= Sentinel, with ?addr= (more than one) or ?cluster=true Cluster; empty does so in this process alone. Without DIR pushed policies are kept there, too")
	f.Duration("redis-timeout", 10*time.Millisecond, "how long Redis may take for a decision, at most 100ms; then onError of the limit holds")
	f.String("fast-path", "on", "on, or off: grpc-go answers auth and rate limit calls too, at several times the CPU")
	f.String("data-dir", ".legation", "where the last good policy and its history, API keys and revocations and, without --redis, counts and sessions are kept; empty keeps none")
	secretsFlag(f)
	f.String("tls-cert", "", "certificate for the xDS and companion ports (PEM)")
	f.String("tls-key", "", "its key (PEM)")
	f.String("tls-ca", "", "the CA of the Envoys' certificates, with revocation lists if there are any (PEM)")
	f.String("nodes", "", "file that says which groups Envoys may join, by their certificates and tokens; default: as certificates say")
	f.String("max-connection-age", "", "after which time Envoys are asked to connect anew, or off; default 30m where other machines connect, and off on loopback")
	f.String("admin-token-file", "", "file with the bearer token that the admin port asks for")
	f.String("envoy", "", "path of the Envoy binary; else LEGATION_ENVOY, PATH, then .tools/")
	f.String("validate", "none", "none, or envoy: the real Envoy is asked about each policy before it is served, some tenths of a second for each gateway that changes; what it refuses is kept back, and told at its line")
	f.Bool("insecure", false, "serve other machines without TLS and admin token")
	f.String("log-level", level, "debug, info, warn or error")
	f.String("log-format", "text", "text or json")
	f.String("decision-log", "off", "off, or log a line for each decision of auth: denied for those that let nobody in, or all")
	f.Int("decision-log-rate", 100, "how many such lines a second at most, up to 10000")
}

// options makes the process's options of the settings.
func (s settings) options(c *cobra.Command, dir string) (app.Options, error) {
	log, err := s.logger(c.ErrOrStderr())
	if err != nil {
		return app.Options{}, err
	}
	timeout, err := time.ParseDuration(s.v.GetString("redis-timeout")) // viper reads 20 as 20 ns, and what it can't read as 0
	if err != nil {
		return app.Options{}, usage{fmt.Errorf("--redis-timeout: want a time with its unit, as in 10ms, not %q", s.v.GetString("redis-timeout"))}
	}
	fast, err := s.onOff("fast-path")
	if err != nil {
		return app.Options{}, err
	}
	age, err := s.age("max-connection-age")
	if err != nil {
		return app.Options{}, err
	}
	rate, err := strconv.Atoi(s.v.GetString("decision-log-rate"))
	if err != nil || rate < 1 {
		return app.Options{}, usage{fmt.Errorf("--decision-log-rate: want a number of lines, at least 1, not %q", s.v.GetString("decision-log-rate"))}
	}
	o := app.Options{
		Dir:               dir,
		XDSAddress:        s.v.GetString("xds-address"),
		CompanionAddress:  s.v.GetString("companion-address"),
		AdminAddress:      s.v.GetString("admin-address"),
		EnvoyAdminAddress: s.v.GetString("envoy-admin-address"),
		CompanionTarget:   s.v.GetString("companion-target"),
		Redis:             s.v.GetString("redis"),
		RedisTimeout:      timeout,
		NoFastPath:        !fast,
		DataDir:           s.v.GetString("data-dir"),
		SecretsDir:        s.v.GetString("secrets-dir"),
		Envoy:             s.v.GetString("envoy"),
		TLSCert:           s.v.GetString("tls-cert"),
		TLSKey:            s.v.GetString("tls-key"),
		TLSCA:             s.v.GetString("tls-ca"),
		Nodes:             s.v.GetString("nodes"),
		MaxConnectionAge:  age,
		AdminTokenFile:    s.v.GetString("admin-token-file"),
		Validate:          app.Validator(s.v.GetString("validate")),
		Insecure:          s.v.GetBool("insecure"),
		DecisionRate:      rate,
		AllowShrink:       s.v.GetBool("allow-shrink"),
		Version:           version,
		Log:               log,
		Out:               c.OutOrStdout(),
		Colour:            colour(c.OutOrStdout()),
	}
	if which := s.v.GetString("decision-log"); which != "off" && which != "false" { // as some writers of YAML have off
		o.Decisions = auth.DecisionLog(cmp.Or(which, "nothing"))
	}
	for _, role := range s.list("roles") {
		o.Roles = append(o.Roles, app.Role(role))
	}
	return o, nil
}

// list reads a setting of several words.
func (s settings) list(name string) (all []string) {
	for _, words := range s.v.GetStringSlice(name) {
		for _, word := range strings.Split(words, ",") { // the environment's list comes as one text
			if word = strings.TrimSpace(word); word != "" {
				all = append(all, word)
			}
		}
	}
	return all
}

// age reads a time span, or off, which is negative.
func (s settings) age(name string) (time.Duration, error) {
	text := s.v.GetString(name)
	if text == "" {
		return 0, nil
	}
	if text == "off" || text == "false" { // as some writers of YAML have off
		return -1, nil
	}
	age, err := time.ParseDuration(text)
	if err != nil || age <= 0 {
		return 0, usage{fmt.Errorf("--%s: want a time with its unit, as in 30m, or off, not %q", name, text)}
	}
	return age, nil
}

// onOff reads a switch; legation.yaml may hold it as true or false, which some writers of YAML make of on and off.
func (s settings) onOff(name string) (bool, error) {
	switch text := s.v.GetString(name); text {
	case "on", "true":
		return true, nil
	case "off", "false":
		return false, nil
	default:
		return false, usage{fmt.Errorf("--%s: want on or off, not %q", name, text)}
	}
}

func (s settings) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.v.GetString("log-level"))); err != nil {
		return nil, usage{fmt.Errorf("--log-level: want debug, info, warn or error, not %q", s.v.GetString("log-level"))}
	}
	o := &slog.HandlerOptions{Level: level}
	switch format := s.v.GetString("log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	default:
		return nil, usage{fmt.Errorf("--log-format: want text or json, not %q", format)}
	}
}

// colour tells whether w is a terminal whose owner does not mind colour.
func colour(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && terminal(w)
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// outputFlag adds -o, and jsonOutput reads it.
func outputFlag(f *pflag.FlagSet) { f.StringP("output", "o", "text", "text or json") }

func jsonOutput(c *cobra.Command) (bool, error) {
	switch format, _ := c.Flags().GetString("output"); format {
	case "text":
		return false, nil
	case "json":
		return true, nil
	default:
		return false, usage{fmt.Errorf("-o: want text or json, not %q", format)}
	}
}
