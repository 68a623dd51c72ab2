package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/spf13/cobra"
)

// slowFetch is when a person is told what is waited for.
const slowFetch = 500 * time.Millisecond

func tokenVerifyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "verify TOKEN [DIR]",
		Short: "Tell for each auth entry why it takes a token, or not",
		Long: `Judge a token by each auth entry with jwt of the policy below DIR (default: the working directory), step by step and as the
companion would: form, header, type, algorithm, issuer, keys, signature, audience, times, and whom it names. Keys behind URLs are
fetched once, from here. The token is read from standard input where TOKEN is -, so that no list of processes shows it.

Exit status 0 when some entry takes the token, 1 when none does.`,
		Example: `  legation token --sub alice | legation token verify - examples/quickstart
  legation token verify - policy/ --entry idp < token
  legation token verify - policy/ -o json < token`,
		Args: arguments(cobra.RangeArgs(1, 2), "name the token, or - for standard input, and the directory of the policy files"),
		RunE: verify,
	}
	f := c.Flags()
	f.String("entry", "", "only this auth entry")
	f.String("issuer", "", "only auth entries that take tokens of this issuer")
	outputFlag(f)
	secretsFlag(f)
	return c
}

func verify(c *cobra.Command, args []string) error {
	asJSON, err := jsonOutput(c)
	if err != nil {
		return err
	}
	token, err := readToken(c.InOrStdin(), args[0])
	if err != nil {
		return err
	}
	p, err := mustLoad(c, append(args, ".")[1])
	if err != nil {
		return err
	}
	providers, err := chosen(c, p.compiled.Model)
	if err != nil {
		return err
	}
	waiting := time.AfterFunc(slowFetch, func() { fmt.Fprintln(c.ErrOrStderr(), "fetching keys ...") })
	table, _ := feature.Companions(p.compiled.Model)
	all, err := auth.Explain(c.Context(), auth.Options{}, table, providers, token)
	waiting.Stop()
	if err != nil {
		return err
	}
	good := slices.ContainsFunc(all, func(e auth.Explanation) bool { return e.Good })
	if asJSON {
		err = writeJSON(c.OutOrStdout(), map[string]any{"good": good, "entries": all})
	} else {
		err = writeExplanations(c.OutOrStdout(), all)
	}
	if !good {
		return errors.Join(err, errBad)
	}
	return err
}

// maxInput is the most of standard input that is read: what is too long for a token is told as that.
const maxInput = 1 << 20

// readToken takes what people have at hand: also the whole of a header, and of standard input the first line.
func readToken(in io.Reader, arg string) (string, error) {
	if arg == "-" {
		b, err := io.ReadAll(io.LimitReader(in, maxInput))
		if err != nil {
			return "", fmt.Errorf("standard input: %w", err)
		}
		arg, _, _ = strings.Cut(strings.TrimSpace(string(b)), "\n")
	}
	token := strings.TrimSpace(arg)
	for _, before := range []string{"authorization:", "bearer "} {
		if len(token) >= len(before) && strings.EqualFold(token[:len(before)], before) {
			token = strings.TrimSpace(token[len(before):])
		}
	}
	if token == "" {
		return "", usage{errors.New("there is no token")}
	}
	return token, nil
}

// chosen are the ways to accept signed tokens that the flags leave.
func chosen(c *cobra.Command, m *policy.Model) ([]auth.Provider, error) {
	entry, _ := c.Flags().GetString("entry")
	issuer, _ := c.Flags().GetString("issuer")
	var all []auth.Provider
	var names []string
	for _, a := range m.Auth {
		w, ok := policy.Find[auth.ProviderContributor](a.Settings)
		if !ok {
			continue
		}
		p := w.Provider(a.Name)
		if p.JWT == nil {
			continue
		}
		names = append(names, a.Name)
		if (entry == "" || entry == a.Name) && (issuer == "" || issuer == p.JWT.Issuer || slices.Contains(p.JWT.Issuers, issuer)) {
			all = append(all, p)
		}
	}
	switch {
	case len(names) == 0:
		return nil, usage{errors.New("the policy has no auth entry with jwt")}
	case len(all) == 0:
		return nil, usage{fmt.Errorf("no such auth entry with jwt: there are %s", strings.Join(names, ", "))}
	}
	return all, nil
}

func writeExplanations(w io.Writer, all []auth.Explanation) error {
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s: %s\n", e.Provider, verdict(e))
		for _, s := range e.Steps {
			fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("  %-8s %-10s %s", s.Result, s.Check, s.Detail), " "))
		}
		for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
			fmt.Fprintf(&b, "  sets     %s: %q\n", name, e.Headers[name])
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// verdict is what an entry makes of the token, in a line.
func verdict(e auth.Explanation) string {
	if !e.Good {
		for _, s := range e.Steps {
			if s.Result != auth.StepOK {
				return fmt.Sprintf("not good (%s)", s.Check)
			}
		}
		return "not good"
	}
	text := "good, for " + e.Consumer
	if e.Consumer != e.Identity {
		text += " (" + e.Identity + ")"
	}
	if e.Plan != "" {
		text += ", plan " + e.Plan
	}
	return text
}
