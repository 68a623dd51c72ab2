package main

import (
	"github.com/legation/legation/feature"
	"github.com/legation/legation/trial"
	"github.com/spf13/cobra"
)

func schemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of policy files, for editors",
		Long: `Print the JSON Schema of policy files, or with --tests that of the files *_test.yaml that legation test runs. Editors with
the YAML language server complete and check with it, for example with this first line in a policy file:

  # yaml-language-server: $schema=legation.schema.json`,
		Example: `  legation schema > legation.schema.json
  legation schema --tests > legation-test.schema.json`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			schema := feature.Language().Schema()
			if tests, _ := c.Flags().GetBool("tests"); tests {
				schema = trial.Schema()
			}
			_, err := c.OutOrStdout().Write(schema)
			return err
		},
	}
	c.Flags().Bool("tests", false, "of files of cases for legation test")
	return c
}
