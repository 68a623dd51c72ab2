package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/legation/legation/pki"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func pkiCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pki",
		Short: "Make a small CA, and certificates for control planes, Envoys and sidecars",
		Long: `Make a certificate authority in a directory, and have it sign certificates: for control planes (--server), for the Envoys
that ask them for configuration (--group), and for gateways and sidecars that speak with each other (--gateway, --sidecar).
For those who have no CA of their own; it needs no process and no network.`,
		Example: `  legation pki init ca/
  legation pki issue ca/ --server control.example.com
  legation pki issue ca/ --group edge
  legation serve policy/ --xds-address 0.0.0.0:18000 --tls-cert ca/legation.crt --tls-key ca/legation.key --tls-ca ca/ca.crt
  legation pki show ca/`,
		Args: subverb("init, issue, renew, revoke or show"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(pkiInitCommand(), pkiIssueCommand(), pkiRenewCommand(), pkiRevokeCommand(), pkiShowCommand())
	return c
}

// pkiDirectory is the one argument of most verbs.
var pkiDirectory = arguments(cobra.ExactArgs(1), "name the directory of the authority")

func pkiInitCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "Make an authority",
		Long: `Make an authority: DIR/ca.crt is what others trust it by, DIR/ca.key signs, and has to stay where it is. One that is there
already is kept, unless --force is said: all its certificates are worthless then.`,
		Example: `  legation pki init ca/
  legation pki init ca/ --name "Example Envoys" --ttl 1825d`,
		Args: pkiDirectory,
		RunE: func(c *cobra.Command, args []string) error {
			ttl, err := ttlFlag(c)
			if err != nil {
				return err
			}
			name, _ := c.Flags().GetString("name")
			force, _ := c.Flags().GetBool("force")
			a, err := pki.Init(args[0], name, ttl, force, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: to trust; good until %s\n", a.Path(), day(a.Certificate().NotAfter))
			return err
		},
	}
	c.Flags().String("name", "Legation", "what the authority is called")
	c.Flags().Bool("force", false, "replace an authority that is there")
	ttlFlagOf(c.Flags(), pki.AuthorityTTL)
	return c
}

func pkiIssueCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "issue DIR",
		Short: "Sign a certificate",
		Long: `Sign a certificate with a new key, and write NAME.crt and NAME.key: for a control plane, with the hosts by which Envoys dial
it; for an Envoy that joins a group, or a gateway or sidecar of the mesh, with the URI spiffe://TRUST-DOMAIN/gateway/NAME.
A certificate for a gateway or a sidecar lets its bearer join the group of that name, too.`,
		Example: `  legation pki issue ca/ --server control.example.com --server 10.0.0.5
  legation pki issue ca/ --group edge --out edge-1/ --ttl 90d
  legation pki issue ca/ --sidecar orders --out secrets/mesh`,
		Args: pkiDirectory,
		RunE: func(c *cobra.Command, args []string) error {
			order, err := pkiOrder(c)
			if err != nil {
				return err
			}
			a, err := pki.Open(args[0], time.Now())
			if err != nil {
				return err
			}
			i, err := a.Issue(order)
			if err != nil {
				return err
			}
			return tellIssued(c, i)
		},
	}
	f := c.Flags()
	f.StringSlice("server", nil, "for a control plane: a DNS name or address by which Envoys dial it; again for further ones")
	f.String("group", "", "for an Envoy: the gateway or sidecar whose configuration it gets")
	f.String("gateway", "", "for a gateway that calls sidecars")
	f.String("sidecar", "", "for a sidecar")
	f.String("name", "", "what the files are called; of a server only, default legation")
	f.String("trust-domain", "legation.internal", "the trust domain of the name; not of a server")
	f.Bool("force", false, "replace files that are there")
	outFlag(f)
	ttlFlagOf(f, pki.LeafTTL)
	return c
}

func outFlag(f *pflag.FlagSet) {
	f.String("out", "", "directory for the certificate and its key; default that of the authority")
}

func ttlFlagOf(f *pflag.FlagSet, normal time.Duration) {
	f.String("ttl", fmt.Sprintf("%dd", normal/(24*time.Hour)), "how long it is good, as 90d or 12h")
}

func ttlFlag(c *cobra.Command) (time.Duration, error) {
	text, _ := c.Flags().GetString("ttl")
	ttl, err := days(text)
	if err != nil || ttl <= 0 {
		return 0, usage{fmt.Errorf("--ttl: want a time span such as 90d or 12h, got %q", text)}
	}
	return ttl, nil
}

// pkiOrder reads what to sign.
func pkiOrder(c *cobra.Command) (pki.Order, error) {
	f := c.Flags()
	text := func(name string) string {
		value, _ := f.GetString(name)
		return value
	}
	o := pki.Order{TrustDomain: text("trust-domain"), Dir: text("out")}
	o.Force, _ = f.GetBool("force")
	o.Hosts, _ = f.GetStringSlice("server")
	said := 0
	if len(o.Hosts) > 0 {
		o.Use, o.Name = pki.ForServer, cmp.Or(text("name"), "legation")
		said++
	}
	for _, use := range []pki.Use{pki.ForNode, pki.ForGateway, pki.ForSidecar} {
		if name := text(string(use)); name != "" {
			o.Use, o.Name = use, name
			said++
		}
	}
	switch {
	case said != 1:
		return o, usage{errors.New("say what the certificate is for with one of --server, --group, --gateway and --sidecar")}
	case o.Use != pki.ForServer && text("name") != "":
		return o, usage{fmt.Errorf("--name is for servers: the files of this one are called %s", o.Name)}
	}
	var err error
	o.TTL, err = ttlFlag(c)
	return o, err
}

func tellIssued(c *cobra.Command, i pki.Issued) error {
	_, err := fmt.Fprintf(c.OutOrStdout(), "%s, %s: for %s, good until %s\n", i.Cert, i.Key, pkiNames(i), day(i.Certificate.NotAfter))
	return err
}

// pkiNames is what a certificate says of its bearer.
func pkiNames(i pki.Issued) string {
	names := append([]string{}, i.Certificate.DNSNames...)
	for _, ip := range i.Certificate.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range i.Certificate.URIs {
		names = append(names, u.String())
	}
	return strings.Join(names, ", ")
}

func day(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func pkiRenewCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "renew DIR [NAME...]",
		Short: "Sign certificates anew that are about to end",
		Long: `Sign anew, with new keys, the certificates of these names, or without a name all that end within --within and have lived for two
thirds of their time; and write them in the place of the old ones, which stay good until their end. Legation and Envoys take
files that were moved into place as soon as they are there. It is meant to be run each day.`,
		Example: `  legation pki renew ca/
  legation pki renew ca/ edge --out /etc/envoy`,
		Args: arguments(cobra.MinimumNArgs(1), "name the directory of the authority"),
		RunE: func(c *cobra.Command, args []string) error {
			text, _ := c.Flags().GetString("within")
			within, err := days(text)
			if err != nil || within < 0 {
				return usage{fmt.Errorf("--within: want a time span such as 30d, got %q", text)}
			}
			a, err := pki.Open(args[0], time.Now())
			if err != nil {
				return err
			}
			due, err := dueOrNamed(a, within, args[1:])
			if err != nil {
				return err
			}
			out, _ := c.Flags().GetString("out")
			for _, old := range due {
				i, err := a.Renew(old, out)
				if err != nil {
					return err
				}
				if err := tellIssued(c, i); err != nil {
					return err
				}
			}
			if len(due) == 0 {
				fmt.Fprintf(c.OutOrStdout(), "nothing ends within %s\n", text)
			}
			warnOfAuthority(c.ErrOrStderr(), a, time.Now())
			return nil
		},
	}
	c.Flags().String("within", "30d", "which ones are about to end")
	outFlag(c.Flags())
	return c
}

// dueOrNamed is what to renew. Of those that would be written over each other it takes none.
func dueOrNamed(a *pki.Authority, within time.Duration, names []string) ([]pki.Issued, error) {
	var all []pki.Issued
	if len(names) == 0 {
		due, err := a.Due(within)
		if err != nil {
			return nil, err
		}
		all = due
	}
	for _, name := range names {
		found, err := a.Find(name)
		if err != nil {
			return nil, err
		}
		last := found[len(found)-1]
		for _, i := range found {
			if i.Use != last.Use {
				return nil, fmt.Errorf("%s is the name of certificates for %s and for %s: name one by its serial number", name, i.Use, last.Use)
			}
		}
		all = append(all, last)
	}
	for n, i := range all {
		for _, other := range all[:n] {
			if other.Name == i.Name {
				return nil, fmt.Errorf("two certificates are called %s, for %s and for %s: renew each by its serial number, with an --out of its own", i.Name, other.Use, i.Use)
			}
		}
	}
	return all, nil
}

func pkiRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke DIR NAME...",
		Short: "Take certificates back",
		Long: `Take back all certificates of a name, or the one of a serial number. DIR/ca.crt lists them from then on: where legation serve
reads that file, or a copy of it, handshakes by them are refused, and connections end within two seconds.`,
		Example: `  legation pki revoke ca/ edge
  legation pki revoke ca/ 4fd1c3a9b2e84d7f`,
		Args: arguments(cobra.MinimumNArgs(2), "name the directory of the authority, and certificates by their names or serial numbers"),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := pki.Open(args[0], time.Now())
			if err != nil {
				return err
			}
			var all []pki.Issued
			for _, what := range args[1:] {
				found, err := a.Find(what)
				if err != nil {
					return err
				}
				all = append(all, found...)
			}
			if err := a.Revoke(pki.Serials(all)); err != nil {
				return err
			}
			for _, i := range all {
				fmt.Fprintf(c.OutOrStdout(), "revoked: %s, serial number %s\n", i.Name, i.Serial())
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s has the list: copy it to where legation serve has its --tls-ca\n", a.Path())
			return err
		},
	}
}

func pkiShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "show DIR",
		Short: "List what the authority has signed",
		Long:  `List the certificates that the authority has signed, what they are for, and when they end; never a key.`,
		Example: `  legation pki show ca/
  legation pki show ca/ -o json`,
		Args: pkiDirectory,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			now := time.Now()
			a, err := pki.Look(args[0], now)
			if err != nil {
				return err
			}
			all, err := a.Issued()
			if err != nil {
				return err
			}
			warnOfAuthority(c.ErrOrStderr(), a, now)
			if asJSON {
				return showIssuedJSON(c.OutOrStdout(), a, all, now)
			}
			return showIssued(c.OutOrStdout(), a, all, now)
		},
	}
	outputFlag(c.Flags())
	return c
}

func showIssued(w io.Writer, a *pki.Authority, all []pki.Issued, now time.Time) error {
	fmt.Fprintf(w, "%s: %s, good until %s\n\n", a.Path(), a.Certificate().Subject.CommonName, day(a.Certificate().NotAfter))
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "it has signed nothing yet")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tFOR\tENDS\tSTATE\tNAMES\tSERIAL")
	for _, i := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", i.Name, i.Use, day(i.Certificate.NotAfter), pkiState(i, now), pkiNames(i), i.Serial())
	}
	return t.Flush()
}

// pkiState tells whether a certificate is good, and for how long where that is not long.
func pkiState(i pki.Issued, now time.Time) string {
	left := i.Certificate.NotAfter.Sub(now)
	switch {
	case i.Revoked:
		return "revoked"
	case left <= 0:
		return "over"
	case left < 48*time.Hour:
		return fmt.Sprintf("good, ends in %d hours", left/time.Hour)
	case left <= 30*24*time.Hour:
		return fmt.Sprintf("good, ends in %d days", left/(24*time.Hour))
	}
	return "good"
}

func showIssuedJSON(w io.Writer, a *pki.Authority, all []pki.Issued, now time.Time) error {
	type certificate struct {
		Name   string    `json:"name"`
		Use    pki.Use   `json:"for"`
		Names  string    `json:"names"`
		Serial string    `json:"serial"`
		Begins time.Time `json:"begins"`
		Ends   time.Time `json:"ends"`
		Good   bool      `json:"good"`
		Back   bool      `json:"revoked"`
	}
	list := []certificate{}
	for _, i := range all {
		c := i.Certificate
		list = append(list, certificate{
			i.Name, i.Use, pkiNames(i), i.Serial(), c.NotBefore, c.NotAfter, !i.Revoked && now.Before(c.NotAfter), i.Revoked,
		})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{
		"authority":    map[string]any{"file": a.Path(), "name": a.Certificate().Subject.CommonName, "ends": a.Certificate().NotAfter},
		"certificates": list,
	})
}

// warnOfAuthority tells in time of what no renewal of certificates helps against.
func warnOfAuthority(w io.Writer, a *pki.Authority, now time.Time) {
	if left := a.Certificate().NotAfter.Sub(now); left < 180*24*time.Hour {
		fmt.Fprintf(w, "warning: the authority ends on %s, and all its certificates with it: make another, and have both in --tls-ca for a while\n",
			day(a.Certificate().NotAfter))
	}
}
