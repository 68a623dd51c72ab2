package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check DIR",
		Short: "Tell everything that is wrong with a policy directory",
		Long: `Read the policy files below DIR and tell every problem in one run, with file, line and column, the line itself, and
what to do. With --envoy the real Envoy is asked as well, and what it refuses is told at the line of the policy that it
comes from; with --secrets-dir the secrets that the policy names are looked up, too.

Output: text for people; json for programs; sarif (2.1.0) for code scanning; github for annotations of a workflow's run.
The last two name files from the working directory on: run them where the repository begins. docs/operating.md has the
fields of json.

Exit status: 0 good, warnings or not; 1 the policy is bad, or it or Envoy can't be asked; 2 usage.`,
		Example: `  legation check policy/
  legation check policy/ --envoy
  legation check policy/ -o json
  legation check policy/ -o github        in a workflow of GitHub Actions
  legation check policy/ -o sarif > legation.sarif`,
		Args: directory,
		RunE: func(c *cobra.Command, args []string) error {
			format, _ := c.Flags().GetString("output")
			tell := formats[format]
			if tell == nil {
				return usage{fmt.Errorf("-o: want text, json, sarif or github, not %q", format)}
			}
			return tell(c.OutOrStdout(), check(c, args[0]))
		},
	}
	c.Flags().StringP("output", "o", "text", "text, json, sarif or github")
	secretsFlag(c.Flags())
	c.Flags().Bool("envoy", false, "also have the real Envoy validate the result")
	return c
}

// check finds everything that is wrong with a directory.
func check(c *cobra.Command, dir string) finding {
	f := finding{dir: dir}
	if f.loaded, f.err = load(c, dir); f.err != nil || f.compiled == nil {
		return f
	}
	if ask, _ := c.Flags().GetBool("envoy"); ask {
		f.refused, f.err = askEnvoy(c.Context(), f.loaded, c.ErrOrStderr())
	}
	return f
}

// loaded is a policy directory as the offline verbs read it.
type loaded struct {
	files    policy.Files
	problems policy.Problems
	compiled *control.Compiled // nil where a problem is in the way
	unknown  []string          // the IDs of the secrets that were not looked up
	// directory is where an Envoy of this machine finds the files of secrets: those that it is asked about, or is to load,
	// have their names in place of what they hold.
	directory string
}

// load reads, checks and compiles a directory.
func load(c *cobra.Command, dir string) (loaded, error) {
	s, err := newSettings(c.Flags())
	if err != nil {
		return loaded{}, err
	}
	files, unread, err := control.ReadDir(dir)
	if err != nil {
		return loaded{}, err
	}
	secrets := s.v.GetString("secrets-dir")
	model, problems, unknown := loadModel(files, secrets)
	p := loaded{files: files, problems: append(unread, problems...), unknown: unknown, directory: "."}
	if secrets != "" {
		if p.directory, err = filepath.Abs(secrets); err != nil {
			return loaded{}, err
		}
	}
	if model == nil || p.problems.HasErrors() {
		return p, nil
	}
	p.compiled, err = control.Compile(model)
	if told := control.Problems(err); len(told) > 0 {
		p.problems, p.compiled = append(p.problems, told...), nil
		return p, nil
	}
	return p, err
}

// checked tells the problems of a policy that another verb was to work on, and ends badly when one of them is more than a
// warning.
func checked(c *cobra.Command, p loaded, asJSON bool) error {
	if asJSON {
		return writeJSONReport(c.OutOrStdout(), finding{loaded: p})
	}
	return writeText(c.OutOrStdout(), finding{loaded: p})
}

// tally counts problems, and warnings apart.
func tally(all policy.Problems) string {
	warnings := 0
	for _, p := range all {
		if p.Warning {
			warnings++
		}
	}
	problems := len(all) - warnings
	text := fmt.Sprintf("%d %s", problems, plural(problems, "problem", "problems"))
	if warnings > 0 {
		text += fmt.Sprintf(", %d %s", warnings, plural(warnings, "warning", "warnings"))
	}
	return text
}

// counts tells how much stands in a policy. Of sidecars it counts the entries, not what they expand to.
func counts(m *policy.Model) string {
	n := map[string]int{}
	for _, g := range m.Gateways {
		if g.Sidecar {
			n["sidecar"]++
		} else {
			n["gateway"]++
		}
	}
	for _, r := range m.Routes {
		if !strings.Contains(r.Name, "/") {
			n["route"]++
		}
	}
	for _, s := range m.Services {
		if !strings.Contains(s.Name, "/") {
			n["service"]++
		}
	}
	var parts []string
	for _, what := range []string{"gateway", "sidecar", "route", "service"} {
		if what != "sidecar" || n[what] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[what], plural(n[what], what, what+"s")))
		}
	}
	return strings.Join(parts, ", ")
}

// notes tells what an operator should know before this goes live.
func notes(w io.Writer, m *policy.Model) {
	for _, g := range m.Gateways {
		for _, l := range g.Listeners {
			if l.PerHost {
				fmt.Fprintf(w, "note: %s: listener %s has routeTables: perHost; switching it on or off drains the listener's connections\n", l.Pos, l.Name)
			}
		}
	}
}

// askEnvoy has the real Envoy validate what each gateway would be served, and tells what it refuses. The error is that
// it can't be asked.
func askEnvoy(ctx context.Context, p loaded, progress io.Writer) (policy.Problems, error) {
	binary, _, err := envoy.Find("")
	if err != nil {
		return nil, err
	}
	j := envoy.Judge{
		Kinds: feature.All(), Secrets: p.directory,
		Ask: func(ctx context.Context, b *bootstrapv3.Bootstrap) error { return envoy.Validate(ctx, binary, b) },
		Searching: func(gateway string) {
			fmt.Fprintf(progress, "Envoy refuses what the gateway %s is served; looking for the line: up to %d tries of some 0.3 s\n", gateway, envoy.MaxAsked)
		},
	}
	var all policy.Problems
	seen := map[string]bool{} // services are those of several gateways
	for _, g := range p.compiled.Model.Gateways {
		problems, err := j.Gateway(ctx, p.compiled.Model, g)
		if err != nil {
			return nil, fmt.Errorf("gateway %s: %w", g.Name, err)
		}
		for _, one := range problems {
			if !seen[one.Error()] {
				seen[one.Error()] = true
				all = append(all, one)
			}
		}
	}
	return all, nil
}

// mustLoad is load for the verbs that need a good policy.
func mustLoad(c *cobra.Command, dir string) (loaded, error) {
	p, err := load(c, dir)
	if err != nil {
		return p, err
	}
	if len(p.problems) > 0 {
		p.problems.Write(c.ErrOrStderr(), p.files, colour(c.ErrOrStderr()))
	}
	if p.compiled == nil {
		return p, errBad
	}
	noteUnknown(c.ErrOrStderr(), p.unknown)
	return p, nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
