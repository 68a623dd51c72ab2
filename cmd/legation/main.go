// Command legation is an Envoy control plane with its companion services: it serves a directory of policy files to
// Envoys over xDS, and answers their ext_authz and rate limit calls. One file holds one verb.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is set by the build.
var version = "dev"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// The exit statuses.
const (
	statusBad   = 1 // the policy or the answer is bad
	statusUsage = 2
)

// errBad ends with status 1; what is wrong has been told.
var errBad = errors.New("")

// run runs a command line to its end and gives the exit status.
func run(args []string, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Further signals change nothing: the end is bounded, and one that was cut short would leave Envoys behind.
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if err.Error() != "" {
		fmt.Fprintln(errs, "legation:", err)
	}
	if _, ok := errors.AsType[usage](err); ok || app.Usage(err) {
		return statusUsage
	}
	return statusBad
}

// usage is a command line that can't be understood.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// helpWidth is how many columns the lines of flags have at most in a help, about as many as the texts above them.
const helpWidth = 120

func init() {
	cobra.AddTemplateFunc("wrapped", func(f *pflag.FlagSet) string { return f.FlagUsagesWrapped(helpWidth) })
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "legation",
		Short: "Envoy control plane, rate limit and auth service",
		Long: `Legation turns a directory of short YAML policy files into listeners, routes, clusters and endpoints, serves them
to Envoys over gRPC xDS, and answers Envoy's per-request questions: who calls, and how often they may.

Every setting of a process can be given as a flag, as LEGATION_… in the environment (--xds-address is
LEGATION_XDS_ADDRESS), or as a key of legation.yaml in the working directory; the first one given wins.

Exit status: 0 fine, 1 the policy or the answer is bad, 2 usage.`,
		Example: `  legation run examples/quickstart     everything on this machine, Envoy included
  legation check policy/               is the policy good?
  legation serve policy/ --redis redis://127.0.0.1:6379
  legation push policy/ -m "longer timeouts"           to a process that serves what is pushed`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,

		DisableFlagsInUseLine: true,
		Args:                  cobra.ArbitraryArgs, // cobra's own check would not end with the usage status
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			hint := "see legation --help"
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean " + strings.Join(near, " or ") + "?"
			}
			return usage{fmt.Errorf("no verb %q: %s", args[0], hint)}
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetUsageTemplate(strings.NewReplacer(
		".LocalFlags.FlagUsages", "wrapped .LocalFlags", ".InheritedFlags.FlagUsages", "wrapped .InheritedFlags",
	).Replace(root.UsageTemplate()))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	root.AddCommand(runCommand(), serveCommand(), checkCommand(), explainCommand(), diffCommand(), pushCommand(), historyCommand(), rollbackCommand(), showCommand(), renderCommand(), bootstrapCommand(), pkiCommand(), statusCommand(),
		usageCommand(), limitsCommand(), keyCommand(), tokenCommand(), revokeCommand(), importCommand(), docsCommand(), schemaCommand(), echoCommand(), versionCommand(), testCommand())
	for _, c := range verbsBelow(root) {
		complete(c)
	}
	return root
}

// verbsBelow is the verbs of a command, and theirs.
func verbsBelow(c *cobra.Command) (all []*cobra.Command) {
	for _, verb := range c.Commands() {
		all = append(append(all, verb), verbsBelow(verb)...)
	}
	return all
}

// arguments makes cobra's argument checks end with the usage status.
func arguments(check cobra.PositionalArgs, hint string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usage{fmt.Errorf("%s (see %s --help)", hint, c.CommandPath())}
		}
		return nil
	}
}

// directory is the one argument of the verbs that read a policy.
var directory = arguments(cobra.ExactArgs(1), "name the directory of the policy files")

// nothing is for verbs without arguments.
var nothing = arguments(cobra.NoArgs, "this verb takes no arguments")
