package main

import (
	"github.com/legation/legation/feature"
	"github.com/spf13/cobra"
)

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of policy files, for editors",
		Long: `Print the JSON Schema of policy files. Editors with the YAML language server complete and check with it, for example
with this first line in a policy file:

  # yaml-language-server: $schema=legation.schema.json`,
		Example: `  legation schema > legation.schema.json`,
		Args:    nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write(feature.Language().Schema())
			return err
		},
	}
}
