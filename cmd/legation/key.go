package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/auth"
	"github.com/spf13/cobra"
)

func keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "Make, list, rotate and revoke API keys",
		Long: `Make API keys for consumers, list them, replace one by another, and take them back, in a running process; all processes that
share its store know within a second. Or make the hash of a key for a policy file (hash), which needs no process.`,
		Example: `  legation key create --consumer acme --expires 90d
  legation key list
  legation key rotate abcdefgh23 --overlap 24h
  legation key revoke abcdefgh23
  legation key hash`,
		Args: subverb("create, list, rotate, revoke or hash"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(keyCreateCommand(), keyListCommand(), keyRotateCommand(), keyRevokeCommand(), keyHashCommand())
	return c
}

func keyCreateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "create",
		Short: "Make an API key, which is shown once",
		Long: `Make an API key for a consumer of the policy, and show it: what is kept is a hash, so that nobody can show it again.

The key is good where a route asks for an entry of apiKey: for all of them, or those of --entry. The plan of --plan is that of a
consumer whom the policy gives none.`,
		Example: `  legation key create --consumer acme
  legation key create --consumer acme --entry keys --expires 90d --name ci -o json`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			order, err := newKeyOrder(c, time.Now())
			if err != nil {
				return err
			}
			return tellKey(c, "/keys", order)
		},
	}
	f := c.Flags()
	f.String("consumer", "", "the consumer, one of the policy")
	f.StringSlice("entry", nil, "the auth entry that takes the key; again for others; default: all of apiKey")
	f.String("plan", "", "the plan of a consumer that has none in the policy")
	f.String("name", "", "what the key is for, for people")
	f.String("expires", "", "when the key ends: 90d, 12h, 2027-01-01 or 2027-01-01T12:00:00Z; default: never")
	outputFlag(f)
	clientFlags(f)
	return c
}

func newKeyOrder(c *cobra.Command, now time.Time) (app.NewKey, error) {
	f := c.Flags()
	text := func(name string) string {
		value, _ := f.GetString(name)
		return value
	}
	order := app.NewKey{Consumer: text("consumer"), Plan: text("plan"), Name: text("name")}
	order.Entries, _ = f.GetStringSlice("entry")
	if order.Consumer == "" {
		return order, usage{fmt.Errorf("say whose key it is with --consumer")}
	}
	if end := text("expires"); end != "" {
		at, err := pointInTime(end, now)
		if err != nil {
			return order, usage{fmt.Errorf("--expires: %w", err)}
		}
		order.Expires = at
	}
	return order, nil
}

// pointInTime reads a time span from now, a day, or a point in time.
func pointInTime(text string, now time.Time) (time.Time, error) {
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(form, text); err == nil {
			return at.UTC(), nil
		}
	}
	span, err := days(text)
	if err != nil || span <= 0 {
		return time.Time{}, fmt.Errorf("want a time span such as 90d or 12h, a day such as 2027-01-01, or a time such as 2027-01-01T12:00:00Z, got %q", text)
	}
	return now.Add(span).UTC().Truncate(time.Second), nil
}

// days reads a time span, which may be one of days: 90d.
func days(text string) (time.Duration, error) {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16) // a span has room for 106,751 days
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// tellKey has a key made, and shows it.
func tellKey(c *cobra.Command, path string, what any) error {
	return answered(c, func(s settings) (made auth.MadeKey, err error) {
		err = s.tell(c.Context(), path, what, &made)
		return made, err
	}, func(made auth.MadeKey) error {
		fmt.Fprintf(c.ErrOrStderr(), "key %s of %s, %s; it is not shown again:\n", made.ID, made.Consumer, ends(made.Expires))
		_, err := fmt.Fprintln(c.OutOrStdout(), made.Key)
		return err
	})
}

// ends tells when a key ends.
func ends(at time.Time) string {
	if at.IsZero() {
		return "which never expires"
	}
	return "good until " + at.Local().Format(time.DateTime)
}

func keyListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the API keys that there are",
		Long:  `List the API keys that there are, those of the policy and those that were made while running; never a key itself.`,
		Example: `  legation key list
  legation key list --consumer acme -o json`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			path := "/keys"
			if consumer, _ := c.Flags().GetString("consumer"); consumer != "" {
				path += "?" + url.Values{"consumer": {consumer}}.Encode()
			}
			return answered(c, func(s settings) (all app.Keys, err error) {
				err = s.ask(c.Context(), path, &all)
				return all, err
			}, func(all app.Keys) error { return showKeys(c.OutOrStdout(), all, time.Now()) })
		},
	}
	c.Flags().String("consumer", "", "one consumer")
	outputFlag(c.Flags())
	clientFlags(c.Flags())
	return c
}

func showKeys(w io.Writer, all app.Keys, now time.Time) error {
	if len(all.Keys) == 0 {
		_, err := fmt.Fprintln(w, "there are no API keys")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tCONSUMER\tNAME\tENTRIES\tPLAN\tCREATED\tEXPIRES")
	for _, k := range all.Keys {
		created, expires := "in the policy", "never"
		if !k.Policy {
			created = k.Created.Local().Format(time.DateTime)
		}
		if !k.Expires.IsZero() {
			expires = k.Expires.Local().Format(time.DateTime)
			if !k.Expires.After(now) {
				expires += ", over"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Consumer, dash(k.Name), dash(strings.Join(k.Entries, ",")), dash(k.Plan), created, expires)
	}
	return t.Flush()
}

func keyRotateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make a key that takes another's place",
		Long: `Make a key like the one with this ID: for the same consumer and entries, with the same plan and name, to live as long. It is
shown once. The old key stays good for the time of --overlap, so that clients can change.`,
		Example: `  legation key rotate abcdefgh23
  legation key rotate abcdefgh23 --overlap 7d`,
		Args: arguments(cobra.ExactArgs(1), "name the ID of a key: legation key list shows them"),
		RunE: func(c *cobra.Command, args []string) error {
			text, _ := c.Flags().GetString("overlap")
			overlap, err := days(text)
			if err != nil || overlap < 0 {
				return usage{fmt.Errorf("--overlap: want a time span such as 24h or 7d, got %q", text)}
			}
			return tellKey(c, "/keys/"+url.PathEscape(args[0])+"/rotate", app.Rotation{Overlap: overlap.String()})
		},
	}
	c.Flags().String("overlap", "24h", "for how long the old key stays good; 0s ends it at once")
	outputFlag(c.Flags())
	clientFlags(c.Flags())
	return c
}

func keyRevokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "revoke ID",
		Short:   "Take an API key back",
		Long:    `Take the API key with this ID back: from then on it is not known. Keys of the policy are taken back in the policy.`,
		Example: `  legation key revoke abcdefgh23`,
		Args:    arguments(cobra.ExactArgs(1), "name the ID of a key: legation key list shows them"),
		RunE: func(c *cobra.Command, args []string) error {
			return answered(c, func(s settings) (old auth.KeyInfo, err error) {
				err = s.remove(c.Context(), "/keys/"+url.PathEscape(args[0]), &old)
				return old, err
			}, func(old auth.KeyInfo) error {
				_, err := fmt.Fprintf(c.OutOrStdout(), "key %s of %s is revoked\n", old.ID, old.Consumer)
				return err
			})
		},
	}
	outputFlag(c.Flags())
	clientFlags(c.Flags())
	return c
}

func keyHashCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "hash",
		Short: "Make the line of a key for a policy file",
		Long: `Make an API key, or read one from a file, and print the line that lists it in a policy, under apiKeys of a consumer. Nothing is
asked over the network. A key that was made is shown once, on standard error.

Where the auth entry names a secret the hash is made with it: give its contents with --secret-file.`,
		Example: `  legation key hash
  legation key hash --key-file key.txt --secret-file secrets/auth/pepper`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			pepper, err := readLine(c, "secret-file")
			if err != nil {
				return err
			}
			if pepper != "" {
				if err := auth.CheckPepper([]byte(pepper)); err != nil {
					return usage{fmt.Errorf("--secret-file: %w", err)}
				}
			}
			id, key, err := hashedKey(c)
			if err != nil {
				return err
			}
			hash := auth.HashKey(key, []byte(pepper))
			if asJSON {
				return writeJSON(c.OutOrStdout(), map[string]string{"id": id, "hash": hash, "key": key})
			}
			if !c.Flags().Changed("key-file") {
				fmt.Fprintf(c.ErrOrStderr(), "the key, which is not shown again: %s\n", key)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "{id: %s, hash: %q}\n", id, hash)
			return err
		},
	}
	c.Flags().String("key-file", "", "file with a key that there is already, - for standard input; default: a new key")
	c.Flags().String("id", "", "the ID of a key that legation did not make")
	c.Flags().String("secret-file", "", "file with the secret of the auth entry")
	outputFlag(c.Flags())
	return c
}

// hashedKey is the key to make a hash of, and its ID.
func hashedKey(c *cobra.Command) (id, key string, err error) {
	id, _ = c.Flags().GetString("id")
	if !c.Flags().Changed("key-file") {
		if id != "" {
			return "", "", usage{fmt.Errorf("--id: a new key has an ID of its own")}
		}
		id, key = auth.NewKey()
		return id, key, nil
	}
	if key, err = readLine(c, "key-file"); err != nil {
		return "", "", err
	}
	if err := auth.CheckKey(key); err != nil {
		return "", "", usage{fmt.Errorf("--key-file: %w", err)}
	}
	if own := auth.KeyID(key); own != "" {
		return own, key, nil
	}
	if id == "" {
		return "", "", usage{fmt.Errorf("--id: the key was not made by legation, so give it an ID")}
	}
	return id, key, nil
}

// readLine reads the file that a flag names, without the line end; "" without one.
func readLine(c *cobra.Command, flag string) (string, error) {
	path, _ := c.Flags().GetString(flag)
	var text []byte
	var err error
	switch path {
	case "":
		return "", nil
	case "-":
		text, err = io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
	default:
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return "", usage{fmt.Errorf("--%s: %w", flag, err)}
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}
