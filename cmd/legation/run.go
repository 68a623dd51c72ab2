package main

import (
	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
)

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run DIR",
		Short: "Run a policy directory on this machine, Envoy included",
		Long: `Serve the policy files below DIR and run everything that they take on this machine: a real Envoy for each gateway
and each sidecar, and sample upstreams for the services that are marked sample: true. Ctrl-C ends all of it. An Envoy
that a killed run left behind is adopted by the next one.`,
		Example: `  legation run examples/quickstart`,
		Args:    directory,
		RunE:    process(app.Run),
	}
	processFlags(c.Flags(), "warn") // the terminal is for the person who tries things out
	c.Flags().Bool("allow-shrink", true, "also serve a policy that takes away more than half of the listeners or clusters that are served")
	c.Flags().String("companion-target", "", "where the Envoys find the companion, when it isn't this process")
	c.Flags().String("envoy-admin-address", app.DefaultEnvoyAdmin, "where the first Envoy's admin answers; further ones take the next ports")
	return c
}
