package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func importCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import",
		Short: "Translate the configuration of other software into a policy",
		Long: `Translate the configuration of other software into a policy, which is printed. What can't be translated is told, and
nothing is printed then.`,
		Example: `  legation import ratelimit config/*.yaml > policy/limits.yaml`,
		Args:    subverb("ratelimit"),
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(importRateLimitCommand())
	return c
}

func importRateLimitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ratelimit FILE...",
		Short: "Translate files of envoyproxy/ratelimit into the section rateLimits",
		Long: `Translate configuration files of envoyproxy/ratelimit into a policy file with the section rateLimits, on standard
output. Comments are kept. What is asked for by domain and descriptors is answered the same; what differs is written in
the output as a comment beginning with "import:". FILE - is standard input; files of one domain become one.`,
		Example: `  legation import ratelimit config/*.yaml > policy/limits.yaml
  legation check policy/`,
		Args: arguments(cobra.MinimumNArgs(1), "name the configuration files"),
		RunE: func(c *cobra.Command, args []string) error {
			var t translation
			for _, name := range args {
				text, err := readInput(c, name)
				if err != nil {
					return usage{err}
				}
				t.add(name, text)
			}
			if len(t.problems) > 0 {
				for _, p := range t.problems {
					fmt.Fprintln(c.ErrOrStderr(), p)
				}
				return errBad
			}
			text, err := t.policy()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
}

// maxImport is how many bytes of a file are read.
const maxImport = 16 << 20

func readInput(c *cobra.Command, name string) ([]byte, error) {
	in := c.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxImport+1))
	if err == nil && len(text) > maxImport {
		err = fmt.Errorf("%s: larger than %d MiB", name, maxImport>>20)
	}
	return text, err
}
