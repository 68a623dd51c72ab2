package main

import (
	"errors"
	"fmt"

	"github.com/legation/legation/app"
	"github.com/legation/legation/control"
	"github.com/legation/legation/diff"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/spf13/cobra"
)

func diffCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff DIR [DIR] | REV REV",
		Short: "Tell what a change of policy does",
		Long: `Compare two policy directories, or with --server what a running process serves with one directory. Told are the
entries that come and go; the settings that become others, at the routes where they hold once the layers of gateway, service
and route are merged, each with the file and line of both; what Envoys do for it: which listeners' connections drain, which
clusters warm; and which limits' counts begin anew. Other files, another order and another way to write the same are no
change. Values that may be secrets are not shown.

With --server the directory is sent to the process, which compares it, with its own secrets, with what it serves; nothing
is served or kept of it. With two revisions (legation history) the process compares these. A directory of such a name has to
be written with a slash: 41/.

Exit status: 0 no difference, 1 there is one, 2 a policy is bad, or can't be read or asked for, or usage.`,
		Example: `  legation diff policy.old/ policy/
  legation diff policy/ --server 127.0.0.1:18002
  legation diff 40 41
  legation diff previous head
  legation diff main/policy policy/ -o json`,
		Args: arguments(cobra.RangeArgs(1, 2), "name two directories, or one and --server, or two revisions"),
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			d, err := compare(c, args)
			if err != nil {
				return usage{err} // as diff has it, 1 is a difference
			}
			if asJSON {
				err = writeJSON(c.OutOrStdout(), d)
			} else {
				err = d.Write(c.OutOrStdout(), colour(c.OutOrStdout()))
			}
			if err == nil && !d.Empty() {
				return errBad
			}
			return err
		},
	}
	outputFlag(c.Flags())
	secretsFlag(c.Flags())
	clientFlags(c.Flags())
	return c
}

// compare compares what the command line names.
func compare(c *cobra.Command, args []string) (*diff.Diff, error) {
	asked := c.Flags().Changed("server")
	switch {
	case len(args) == 2 && revision.IsRef(args[0]) && revision.IsRef(args[1]):
		return compareRevisions(c, args[0], args[1])
	case asked && len(args) == 2:
		return nil, errors.New("name one directory with --server: the other side is what the process serves")
	case asked:
		return compareServed(c, args[0])
	case len(args) == 1:
		return nil, errors.New("name a second directory, or the process to compare with: --server 127.0.0.1:18002")
	}
	var sides []diff.Policy
	for _, dir := range args {
		p, err := mustLoad(c, dir)
		if errors.Is(err, errBad) {
			return nil, fmt.Errorf("%s: %s", dir, tally(p.problems)) // the places told don't say of which directory
		}
		if err != nil {
			return nil, err
		}
		sides = append(sides, diff.Policy{Files: p.files, Model: p.compiled.Model, Resources: p.compiled.Resources})
	}
	return diff.Between(sides[0], sides[1]), nil
}

// compareRevisions has a process compare two revisions.
func compareRevisions(c *cobra.Command, before, after string) (*diff.Diff, error) {
	s, err := newSettings(c.Flags())
	if err != nil {
		return nil, err
	}
	var d diff.Diff
	return &d, s.ask(c.Context(), "/revisions/"+before+"/diff/"+after, &d)
}

// compareServed has a process compare what it serves with a directory.
func compareServed(c *cobra.Command, dir string) (*diff.Diff, error) {
	s, err := newSettings(c.Flags())
	if err != nil {
		return nil, err
	}
	files, unread, err := control.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var told app.Comparison
	if !unread.HasErrors() {
		if err := s.tell(c.Context(), "/policy/diff", app.Candidate{Files: files}, &told); err != nil {
			return nil, err
		}
	}
	problems := append(append(policy.Problems{}, unread...), told.Problems...)
	problems.Write(c.ErrOrStderr(), files, colour(c.ErrOrStderr()))
	if told.Diff == nil {
		return nil, fmt.Errorf("%s: %s", dir, tally(problems))
	}
	return told.Diff, nil
}
