package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/legation/legation/diff"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/spf13/cobra"
)

func showCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "show [REV]",
		Short: "Show what a route, service or gateway comes to, and where; or a revision",
		Long: `Show an entry of a policy with each value that holds for it, whichever layer and file it was written in, and the place in
the file. Values that may be secrets are not shown. What holds where nothing is written, legation docs KEY tells.

With REV show a revision of the running process: who made it, when and why, and its files; --write DIR makes them a new
directory.`,
		Example: `  legation show 41
  legation show 41 --write policy.41/
  legation show route orders policy/
  legation show service orders policy/
  legation show gateway edge policy/ -o json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || revision.IsRef(args[0]) {
				return revisions(0, 1)(c, args)
			}
			return usage{errors.New("show knows routes, services, gateways and revisions (see legation show --help)")}
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return showRevision(c, args[0])
		},
	}
	outputFlag(c.Flags())
	clientFlags(c.Flags())
	c.Flags().String("write", "", "a directory that isn't there yet: write the files of the revision there")
	c.AddCommand(
		showEntry("route", "routes", diff.Route),
		showEntry("service", "services", diff.Service),
		showEntry("gateway", "gateways", diff.Gateway),
	)
	return c
}

// entryNames is the names of what can be shown.
var entryNames = map[string]func(*policy.Model) []string{
	"route": func(m *policy.Model) (names []string) {
		for _, r := range m.Routes {
			names = append(names, r.Name)
		}
		return names
	},
	"service": func(m *policy.Model) (names []string) {
		for _, s := range m.Services {
			names = append(names, s.Name)
		}
		return names
	},
	"gateway": func(m *policy.Model) (names []string) {
		for _, g := range m.Gateways {
			names = append(names, g.Name)
		}
		return names
	},
}

// aboutEntries is the long help of the verbs below show.
var aboutEntries = map[string]string{
	"route": `Show the fields of a route, and at each of its gateways the settings once the layers of gateway, service and route are
merged: each with the layer and the line that wrote it.`,
	"service": `Show the endpoints of a service and what is written under it. For a route that sends there the route itself may say
otherwise: legation show route tells what holds.`,
	"gateway": `Show the settings of a gateway or a sidecar, its listeners, and the defaults that it gives to its routes.`,
}

func showEntry(kind, section string, find func(*policy.Model, string) (*diff.Shown, bool)) *cobra.Command {
	c := &cobra.Command{
		Use:   kind + " NAME DIR",
		Short: "Show what a " + kind + " comes to, and where each of it is written",
		Long: aboutEntries[kind] + `

Exit status: 0 fine, 1 the policy is bad, 2 there is no such entry, or usage.`,
		Example: fmt.Sprintf("  legation show %s NAME policy/\n  legation show %s NAME policy/ -o json", kind, kind),
		Args:    arguments(cobra.ExactArgs(2), "name the "+kind+" and the directory of the policy files"),
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			p, err := load(c, args[1])
			if err != nil {
				return err
			}
			if p.compiled == nil {
				return checked(c, p, asJSON)
			}
			s, found := find(p.compiled.Model, args[0])
			if !found {
				return usage{fmt.Errorf("the policy has no %s %q%s", kind, args[0], among(args[0], section, entryNames[kind](p.compiled.Model)))}
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), s)
			}
			return s.Write(c.OutOrStdout(), colour(c.OutOrStdout()))
		},
	}
	outputFlag(c.Flags())
	secretsFlag(c.Flags())
	return c
}

// among tells which names there are, or the one that was likely meant.
func among(name, section string, all []string) string {
	const most = 12
	near := policy.Nearest(name, all)
	switch {
	case near != "":
		return fmt.Sprintf(": did you mean %s?", near)
	case len(all) == 0:
		return ""
	case len(all) > most:
		return fmt.Sprintf(": it has %d %s", len(all), section)
	}
	return ": there is " + strings.Join(all, ", ")
}
