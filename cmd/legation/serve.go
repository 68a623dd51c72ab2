package main

import (
	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve DIR",
		Short: "Serve a policy directory to Envoys that run elsewhere",
		Long: `Serve the policy files below DIR to the Envoys that connect over xDS, and answer their auth and rate limit calls.
A change of the files is live in under a second; a bad one changes nothing, and is told here and in legation status.`,
		Example: `  legation serve policy/
  legation serve policy/ --redis redis://127.0.0.1:6379
  legation serve policy/ --roles auth,ratelimit     the companion alone, beside any control plane`,
		Args: directory,
		RunE: process(app.Serve),
	}
	processFlags(c.Flags(), "info")
	c.Flags().StringSlice("roles", []string{"xds", "ratelimit", "auth"}, "what this process does")
	return c
}
