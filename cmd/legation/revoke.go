package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/auth"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func revokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "revoke",
		Short: "Stop tokens, logins and consumers before their time, and take that back",
		Long: `Have a legation process refuse what looks good: from then on every process that shares its Redis answers 401, within a
second. A revocation outlasts restarts of Redis and of the processes.

How long it stands is --until: a time from now (30d, 12h), a date with its time (2031-01-31T00:00:00Z), or never. It has to
be as long as what it stops is good. Left out: a token's own end where it tells one; 30d for other tokens, a jti or a
session; never for a subject, a consumer or a key.`,
		Example: `  legation revoke token eyJhbGciOi…
  legation revoke subject idp/alice --reason "laptop stolen"
  legation revoke consumer acme --until 7d
  legation revoke list
  legation revoke undo subject:idp/alice`,
		Args: cobra.ArbitraryArgs, // cobra's own check would not end with the usage status
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage{fmt.Errorf("say what to revoke (see %s --help)", c.CommandPath())}
			}
			return usage{fmt.Errorf("nothing called %q can be revoked (see %s --help)", args[0], c.CommandPath())}
		},
	}
	for _, k := range revocable {
		c.AddCommand(revokeKind(k))
	}
	c.AddCommand(revokeList(), revokeUndo())
	return c
}

// kindRevocable is a kind of what can be revoked.
type kindRevocable struct{ name, argument, example, short, long string }

var revocable = []kindRevocable{
	{
		"token", "TOKEN", "-", "Revoke one token; - reads it from standard input",
		"Revoke one token, which stays here: what is sent is a hash of it. - reads the token from standard input, which keeps it\nout of the shell's history.",
	},
	{
		"jti", "ENTRY/JTI", "idp/7f6f1a2e --until 12h", "Revoke the tokens of an entry of auth with that jti",
		"Revoke the tokens of an entry of the policy's auth whose claim jti is JTI.",
	},
	{
		"subject", "ENTRY/VALUE", `idp/alice --reason "laptop stolen"`, "Revoke what one identity was given until now",
		"Revoke what the identity VALUE of an entry of the policy's auth was given until now: its tokens with an iat up to now,\nand those without. What doesn't tell when it was given is refused for as long as the revocation stands.",
	},
	{
		"consumer", "NAME", "acme --until 7d", "Revoke all that a consumer has, and will have",
		"Revoke all that a consumer of the policy has, by whatever entry of auth, and what it is given while the revocation\nstands.",
	},
	{
		"key", "ENTRY/ID", "keys/ci-2031", "Revoke one API key",
		"Revoke the API key with that ID of an entry of the policy's auth.",
	},
	{
		"session", "ID", "5e1a07", "Revoke one login",
		"Revoke one login, by the ID of its session.",
	},
}

func revokeKind(k kindRevocable) *cobra.Command {
	c := &cobra.Command{
		Use: k.name + " " + k.argument, Short: k.short, Long: k.long, Example: "  legation revoke " + k.name + " " + k.example,
		Args: arguments(cobra.ExactArgs(1), "name one "+k.argument),
		RunE: func(c *cobra.Command, args []string) error {
			return answered(c, func(s settings) (made auth.Revocation, err error) {
				wanted, err := revocationOf(c, k.name, args[0], time.Now())
				if err != nil {
					return made, err
				}
				err = s.tell(c.Context(), "/revocations", wanted, &made)
				return made, err
			}, func(made auth.Revocation) error {
				if made.Note != "" {
					fmt.Fprintln(c.ErrOrStderr(), "legation: note:", made.Note)
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "revoked %s, until %s\n", made.Name, untilText(made.Until))
				return err
			})
		},
	}
	f := c.Flags()
	f.String("until", "", "how long it stands: 30d, 12h, a time such as 2031-01-31T00:00:00Z, or never")
	f.String("reason", "", "a line for those who look at the list")
	revokeFlags(f)
	return c
}

func revokeFlags(f *pflag.FlagSet) {
	outputFlag(f)
	clientFlags(f)
}

// revocationOf is what the command line asks for.
func revocationOf(c *cobra.Command, kind, what string, now time.Time) (app.RevocationWanted, error) {
	text, _ := c.Flags().GetString("until")
	reason, _ := c.Flags().GetString("reason")
	until, err := parseUntil(text, now)
	if err != nil {
		return app.RevocationWanted{}, err
	}
	w := app.RevocationWanted{Name: kind + ":" + what, Reason: reason}
	var least time.Time
	if kind == "token" {
		token, err := readToken(c.InOrStdin(), what)
		if err != nil {
			return app.RevocationWanted{}, err
		}
		r := auth.TokenRevocation(token)
		w.Name, least = r.Name, r.Until
	}
	if text == "" && !least.IsZero() {
		until, text = least, "its end"
	}
	switch {
	case text == "never":
		w.Until = text
	case text != "":
		w.Until = until.UTC().Format(time.RFC3339)
	}
	switch _, err := auth.Lasting(w.Name); {
	case err != nil:
		return w, usage{err}
	case !least.IsZero() && !least.After(now):
		return w, fmt.Errorf("the token ended by itself at %s", least.UTC().Format(time.RFC3339))
	case !until.IsZero() && until.Before(least):
		return w, usage{fmt.Errorf("--until: the token may be good until %s, so that it would be good again", least.UTC().Format(time.RFC3339))}
	}
	return w, nil
}

// parseUntil reads a time from now, days included, or a date with its time; zero for never, and where there is none.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if text == "" || text == "never" {
		return time.Time{}, nil
	}
	until, err := time.Parse(time.RFC3339, text)
	if err != nil {
		var span time.Duration
		if days, ok := strings.CutSuffix(text, "d"); ok {
			var n uint64
			n, err = strconv.ParseUint(days, 10, 16)
			span = time.Duration(n) * 24 * time.Hour
		} else {
			span, err = time.ParseDuration(text)
		}
		until = now.Add(span)
	}
	if err != nil || !until.After(now) {
		return time.Time{}, usage{fmt.Errorf("--until: want a time to come, such as 30d, 12h, 2031-01-31T00:00:00Z or never, got %q", text)}
	}
	return until, nil
}

func revokeList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "Show what is revoked", Args: nothing,
		Long:    "Show all revocations that stand, the latest first, with when they were made and end.",
		Example: "  legation revoke list\n  legation revoke list -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			return answered(c, func(s settings) (all app.Revocations, err error) {
				err = s.ask(c.Context(), "/revocations", &all)
				return all, err
			}, func(all app.Revocations) error { return showRevocations(c.OutOrStdout(), all) })
		},
	}
	revokeFlags(c.Flags())
	return c
}

func showRevocations(w io.Writer, all app.Revocations) error {
	if len(all.Revocations) == 0 {
		_, err := fmt.Fprintln(w, "nothing is revoked")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSINCE\tUNTIL\tREASON")
	for _, r := range all.Revocations {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(r.Name), untilText(r.Since), untilText(r.Until), dash(r.Reason))
	}
	return t.Flush()
}

// printable quotes names that a terminal would not show as they are: a jti may hold anything.
func printable(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

func untilText(t time.Time) string {
	if t.IsZero() {
		return "undone"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func revokeUndo() *cobra.Command {
	c := &cobra.Command{
		Use: "undo NAME", Short: "Take a revocation back, by the name that the list shows",
		Long:    "Take a revocation back: what it stopped, and is still good by itself, is let in again.",
		Example: "  legation revoke undo subject:idp/alice",
		Args:    arguments(cobra.ExactArgs(1), "give the name of one, as the list shows it: subject:idp/alice"),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				return usage{fmt.Errorf("give the name of one (see %s --help)", c.CommandPath())}
			}
			return answered(c, func(s settings) (undone auth.Revocation, err error) {
				err = s.remove(c.Context(), "/revocations/"+url.PathEscape(args[0]), &undone)
				return undone, err
			}, func(undone auth.Revocation) error {
				_, err := fmt.Fprintf(c.OutOrStdout(), "good again: %s\n", printable(undone.Name))
				return err
			})
		},
	}
	revokeFlags(c.Flags())
	return c
}
