package main

import (
	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve [DIR]",
		Short: "Serve a policy to Envoys that run elsewhere",
		Long: `Serve the policy files below DIR to the Envoys that connect over xDS, and answer their auth and rate limit calls.
A change of the files is live in under a second; a bad one changes nothing, and is told here and in legation status. One that
takes away more than half of the listeners or clusters has to be approved: legation push DIR --force, or --allow-shrink.

Without DIR what legation push sends is served: it is kept in the data directory, or with --redis there, for any number of
processes. Until the first push Envoys are held. docs/delivery.md tells more.`,
		Example: `  legation serve policy/
  legation serve                                    what is pushed
  legation serve --redis redis://127.0.0.1:6379     the same, of several processes
  legation serve policy/ --redis redis://127.0.0.1:6379
  legation serve policy/ --roles auth,ratelimit     the companion alone, beside any control plane`,
		Args: arguments(cobra.MaximumNArgs(1), "name the directory of the policy files, or none to serve what is pushed"),
		RunE: process(app.Serve),
	}
	processFlags(c.Flags(), "info")
	c.Flags().StringSlice("roles", []string{"xds", "ratelimit", "auth"}, "what this process does")
	c.Flags().Bool("allow-shrink", false, "serve a policy that takes away more than half of the listeners or clusters that are served")
	return c
}
