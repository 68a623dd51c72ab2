package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check DIR",
		Short: "Tell everything that is wrong with a policy directory",
		Long: `Read the policy files below DIR and tell every problem in one run, with file, line and column, the line itself, and
what to do. With --envoy the real Envoy is asked as well, with --secrets-dir the secrets that the policy names, too.`,
		Example: `  legation check policy/
  legation check policy/ --envoy
  legation check policy/ -o json`,
		Args: directory,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			p, err := load(c, args[0])
			if err != nil && asJSON {
				return errors.Join(writeJSON(c.OutOrStdout(), map[string]any{"ok": false, "problems": policy.Problems{}, "error": err.Error()}), errBad)
			}
			if err != nil {
				return err
			}
			var refusal error
			if ask, _ := c.Flags().GetBool("envoy"); ask && p.compiled != nil {
				if refusal, err = askEnvoy(c.Context(), p); err != nil {
					return err
				}
			}
			if refusal != nil && asJSON {
				answer := map[string]any{"ok": false, "problems": append(policy.Problems{}, p.problems...), "envoy": refusal.Error()}
				return errors.Join(writeJSON(c.OutOrStdout(), answer), errBad)
			}
			if refusal != nil {
				p.problems.Write(c.OutOrStdout(), p.files, colour(c.OutOrStdout()))
				return refusal
			}
			return checked(c, p, asJSON)
		},
	}
	outputFlag(c.Flags())
	secretsFlag(c.Flags())
	c.Flags().Bool("envoy", false, "also have the real Envoy validate the result")
	return c
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

// checked tells the problems, and ends badly when one of them is more than a warning.
func checked(c *cobra.Command, p loaded, asJSON bool) error {
	out := c.OutOrStdout()
	if asJSON {
		answer := map[string]any{"ok": p.compiled != nil, "problems": append(policy.Problems{}, p.problems...)}
		if len(p.unknown) > 0 {
			answer["notLookedUp"] = p.unknown
		}
		if err := writeJSON(out, answer); err != nil {
			return err
		}
	} else {
		p.problems.Write(out, p.files, colour(out))
	}
	switch {
	case p.compiled == nil:
		if !asJSON {
			fmt.Fprintf(out, "\n%s\n", tally(p.problems))
		}
		return errBad
	case !asJSON:
		m := p.compiled.Model
		fmt.Fprintf(out, "ok: %s, revision %s\n", counts(m), m.Revision)
		notes(out, m)
		noteUnknown(out, p.unknown)
	}
	return nil
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
func askEnvoy(ctx context.Context, p loaded) (refusal, err error) {
	binary, _, err := envoy.Find("")
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, g := range p.compiled.Model.Gateways {
		b, err := envoy.Static(p.compiled.Resources[g.Name], envoy.BootstrapOptions{Group: g.Name, Secrets: p.directory})
		if err == nil {
			err = envoy.Validate(ctx, binary, b)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("gateway %s: %w", g.Name, err))
		}
	}
	return errors.Join(errs...), nil
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
