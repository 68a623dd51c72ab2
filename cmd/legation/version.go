package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of legation and of what it is built with",
		Args:  nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			v := map[string]string{"legation": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, m := range info.Deps {
					if m.Path == "github.com/envoyproxy/go-control-plane/envoy" {
						v["envoyAPI"] = m.Version
					}
				}
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), v)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "legation %s\n%s %s\nEnvoy API %s\n", version, v["go"], v["platform"], v["envoyAPI"])
			return err
		},
	}
	outputFlag(c.Flags())
	return c
}
