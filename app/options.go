package app

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/auth"
)

// Role is one service of the process.
type Role string

// The roles.
const (
	XDS       Role = "xds"       // serves resources to Envoys
	RateLimit Role = "ratelimit" // answers Envoy's rate limit calls
	Auth      Role = "auth"      // answers Envoy's ext_authz calls
)

// Roles is all roles, the default.
func Roles() []Role { return []Role{XDS, RateLimit, Auth} }

// Default addresses; the ports are loopback's unless told otherwise.
const (
	DefaultXDS        = "127.0.0.1:18000"
	DefaultCompanion  = "127.0.0.1:18001"
	DefaultAdmin      = "127.0.0.1:18002"
	DefaultEnvoyAdmin = "127.0.0.1:19000"
)

// Options is the settings of a process. The zero value of each is its default.
type Options struct {
	Dir        string // the policy directory; empty: what is pushed is served
	SecretsDir string // of the secrets that the policy names; empty looks at the environment alone
	Roles      []Role // default all

	XDSAddress        string
	CompanionAddress  string
	AdminAddress      string
	EnvoyAdminAddress string // run: the first Envoy's; the next ones take the ports that follow
	CompanionTarget   string // where run's Envoys find the companion; default this process

	Redis        string        // URL; empty is the embedded store
	RedisTimeout time.Duration // of one decision; default 10 ms
	NoFastPath   bool          // grpc-go answers the companion's calls too
	DataDir      string        // last good policy, counts of the embedded store, state of run; empty keeps nothing
	Envoy        string        // path; empty looks for it
	Validate     Validator     // whom a policy is shown before anybody is handed it; default NoValidator

	TLSCert, TLSKey, TLSCA string // PEM files: mutual TLS on the xDS and companion ports
	Nodes                  string // the nodes file: which groups Envoys may join; empty: those that their certificates name
	AdminTokenFile         string // bearer token that the admin port asks for
	Insecure               bool   // allow addresses beyond loopback without TLS and token

	AllowShrink bool // serve a policy that takes away more than half of what is served

	// MaxConnectionAge is after which time Envoys are asked to connect anew, give or take a tenth, so that they spread over
	// replicas, and certificates that were renewed come into use. 0 is half an hour where other machines connect, and any
	// age on loopback; negative is any age.
	MaxConnectionAge time.Duration

	Decisions    auth.DecisionLog // which decisions about callers stand in the log
	DecisionRate int              // at most so many a second; default 100

	Version string
	Log     *slog.Logger
	Out     io.Writer // for people: outcomes of loads, and what run has to say
	Colour  bool
}

// Validator is who else has a say about a policy before it is served.
type Validator string

// The validators.
const (
	NoValidator    Validator = "none"
	EnvoyValidator Validator = "envoy" // the real Envoy, in its mode validate
)

// maxRedisTimeout leaves a decision, which takes up to 1.4 times as long, time to reach Envoy, which goes on without it
// after 200 ms.
const maxRedisTimeout = 100 * time.Millisecond

// maxDecisionRate is beyond what a log is read for.
const maxDecisionRate = 10_000

// usageError is a setting that can't work; the command line ends with status 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// Usage tells whether err is about the settings.
func Usage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (o Options) withDefaults() Options {
	o.XDSAddress = cmp.Or(o.XDSAddress, DefaultXDS)
	o.CompanionAddress = cmp.Or(o.CompanionAddress, DefaultCompanion)
	o.AdminAddress = cmp.Or(o.AdminAddress, DefaultAdmin)
	o.EnvoyAdminAddress = cmp.Or(o.EnvoyAdminAddress, DefaultEnvoyAdmin)
	o.Version = cmp.Or(o.Version, "dev")
	o.Validate = cmp.Or(o.Validate, NoValidator)
	if len(o.Roles) == 0 {
		o.Roles = Roles()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return o
}

func (o Options) has(r Role) bool { return slices.Contains(o.Roles, r) }

// companion tells whether the process has a role that answers on the companion port.
func (o Options) companion() bool { return o.has(RateLimit) || o.has(Auth) }

// check finds settings that can't work or would open a port to strangers.
func (o Options) check() error {
	var errs []error
	for _, r := range o.Roles {
		if !slices.Contains(Roles(), r) {
			errs = append(errs, usagef("--roles: no role %q; the roles are %s", r, names(Roles())))
		}
	}
	if info, err := os.Stat(o.Dir); o.Dir != "" && err == nil && !info.IsDir() {
		errs = append(errs, usagef("%s is a file: name the directory of the policy files", o.Dir))
	}
	if err := o.checkSecretsDir(); err != nil {
		errs = append(errs, err)
	}
	if o.RedisTimeout < 0 || o.RedisTimeout > maxRedisTimeout {
		errs = append(errs, usagef("--redis-timeout %s: want at most %s: Envoy waits 200ms for a limit", o.RedisTimeout, maxRedisTimeout))
	}
	if !slices.Contains([]auth.DecisionLog{auth.LogNone, auth.LogDenied, auth.LogAll}, o.Decisions) {
		errs = append(errs, usagef("--decision-log: want off, denied or all, not %q", string(o.Decisions)))
	}
	if o.Validate != NoValidator && o.Validate != EnvoyValidator {
		errs = append(errs, usagef("--validate: want none or envoy, not %q", string(o.Validate)))
	}
	if o.DecisionRate < 0 || o.DecisionRate > maxDecisionRate {
		errs = append(errs, usagef("--decision-log-rate %d: want at least 1 and at most %d lines a second", o.DecisionRate, maxDecisionRate))
	}
	if err := o.checkTLS(); err != nil {
		errs = append(errs, err)
	}
	if o.MaxConnectionAge > 0 && o.MaxConnectionAge < time.Second {
		errs = append(errs, usagef("--max-connection-age %s: want at least 1s, or off", o.MaxConnectionAge))
	}
	ports := []struct {
		flag, address, cure string
		used, safe          bool
	}{
		{"--xds-address", o.XDSAddress, "give --tls-cert, --tls-key and --tls-ca (or tokens with --nodes)", o.has(XDS), o.TLSCert != ""},
		{"--companion-address", o.CompanionAddress, "give --tls-cert, --tls-key and --tls-ca", o.companion(), o.TLSCA != ""},
		{"--admin-address", o.AdminAddress, "give --admin-token-file", true, o.AdminTokenFile != ""},
	}
	for _, p := range ports {
		local, err := loopback(p.address)
		switch {
		case !p.used:
		case err != nil:
			errs = append(errs, usagef("%s %s: %w", p.flag, p.address, err))
		case !local && !p.safe && !o.Insecure:
			errs = append(errs, usagef("%s %s can be reached from other machines: %s, or say --insecure", p.flag, p.address, p.cure))
		}
	}
	return errors.Join(errs...)
}

// checkTLS finds out who could be known by what.
func (o Options) checkTLS() error {
	files := []string{o.TLSCert, o.TLSKey, o.TLSCA}
	switch {
	case o.Nodes == "" && slices.Contains(files, "") && strings.Join(files, "") != "":
		return usagef("mutual TLS takes all of --tls-cert, --tls-key and --tls-ca")
	case o.Nodes == "":
		return nil
	case o.TLSCert == "" || o.TLSKey == "":
		return usagef("--nodes %s: Envoys show certificates and tokens by TLS alone: give --tls-cert and --tls-key, and --tls-ca for certificates", o.Nodes)
	case o.Dir != "" && within(o.Nodes, o.Dir):
		return usagef("--nodes %s lies in the policy directory: who may write policy would say who gets it; keep the file elsewhere", o.Nodes)
	}
	return nil
}

// age is how old connections to an address may become; 0 is any age.
func (o Options) age(address string) time.Duration {
	local, _ := loopback(address)
	if o.MaxConnectionAge == 0 && !local {
		return defaultAge
	}
	return max(o.MaxConnectionAge, 0)
}

// defaultAge is far above what a reconnect costs, and short enough for replicas to even out between two deployments.
const defaultAge = 30 * time.Minute

// checkSecretsDir holds the secrets apart from the policy, of which copies are kept in the data directory.
func (o Options) checkSecretsDir() error {
	if o.SecretsDir == "" {
		return nil
	}
	if info, err := os.Stat(o.SecretsDir); err == nil && !info.IsDir() {
		return usagef("--secrets-dir %s is a file: name the directory of the secrets", o.SecretsDir)
	}
	if o.Dir != "" && within(o.SecretsDir, o.Dir) {
		return usagef("--secrets-dir %s lies in the policy directory, of which copies are kept: keep the secrets elsewhere", o.SecretsDir)
	}
	return nil
}

// within tells whether path is dir or below it, also by way of links.
func within(path, dir string) bool {
	for _, name := range []*string{&path, &dir} {
		if absolute, err := filepath.Abs(*name); err == nil {
			*name = absolute
		}
		if real, err := filepath.EvalSymlinks(*name); err == nil {
			*name = real
		}
	}
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}

// openXDS tells whether other machines can reach xDS without TLS.
func (o Options) openXDS() bool {
	local, err := loopback(o.XDSAddress)
	return o.has(XDS) && o.TLSCert == "" && !local && err == nil
}

// checkEnvoyAdmin is check for the port that only run opens. Envoy's admin asks nobody for a token, and can end it.
func (o Options) checkEnvoyAdmin() error {
	local, err := loopback(o.EnvoyAdminAddress)
	_, port, _ := net.SplitHostPort(o.EnvoyAdminAddress)
	switch {
	case err != nil:
		return usagef("--envoy-admin-address %s: %w", o.EnvoyAdminAddress, err)
	case port == "0":
		return usagef("--envoy-admin-address %s: name a port, so that it can be found", o.EnvoyAdminAddress)
	case !local && !o.Insecure:
		return usagef("--envoy-admin-address %s can be reached from other machines: keep it on loopback, or say --insecure", o.EnvoyAdminAddress)
	}
	return nil
}

func names(roles []Role) string {
	var s []string
	for _, r := range roles {
		s = append(s, string(r))
	}
	return strings.Join(s, ", ")
}

// Local tells whether all addresses are of this machine alone.
func Local(addresses ...string) bool {
	return !slices.ContainsFunc(addresses, func(a string) bool {
		local, err := loopback(a)
		return err != nil || !local
	})
}

// loopback tells whether only this machine can reach the address.
func loopback(address string) (bool, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("want host:port: %w", err)
	}
	if port == "" {
		return false, errors.New("want host:port, and the port is missing; 0 is any that is free")
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return false, err
	}
	if host == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(host)
	if host != "" && ip == nil {
		return false, fmt.Errorf("want an IP address or localhost, not %q", host)
	}
	return ip != nil && ip.IsLoopback(), nil
}
