package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/spf13/cobra"
)

func historyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "history",
		Short: "Show the revisions that a running process has served, or that were pushed to it",
		Long: `Show who changed the policy, when and why, the last revision first; the one that the process serves has a star. A history
goes back 100 revisions or so, or 256 MiB. Of a process that serves a directory, it is its own; what is pushed to several
processes by way of Redis is theirs together.`,
		Example: `  legation history
  legation history -n 3 -o json
  legation show 41; legation diff 40 41`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			most, _ := c.Flags().GetInt("number")
			if most < 1 {
				return usage{fmt.Errorf("--number: want at least 1, not %d", most)}
			}
			return answered(c, func(s settings) (h app.Revisions, err error) {
				err = s.ask(c.Context(), "/revisions", &h)
				h.Revisions = h.Revisions[:min(len(h.Revisions), most)]
				return h, err
			}, func(h app.Revisions) error { return showHistory(c.OutOrStdout(), h) })
		},
	}
	c.Flags().IntP("number", "n", 20, "how many at most")
	outputFlag(c.Flags())
	clientFlags(c.Flags())
	return c
}

func showHistory(w io.Writer, h app.Revisions) error {
	if len(h.Revisions) == 0 {
		_, err := fmt.Fprintln(w, "no revision yet: legation push DIR")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REVISION\tHASH\tTIME\tBY\tCHANGED\tWHAT")
	for _, r := range h.Revisions {
		mark := ""
		if r.Number == h.Served {
			mark = "*"
		}
		fmt.Fprintf(t, "%d%s\t%s\t%s\t%s\t%d of %d\t%s\n", r.Number, mark, short(r.Hash), r.Time.Local().Format(time.DateTime), dash(r.By), r.Changed, r.Files, what(r))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if h.Pinned {
		fmt.Fprintln(w, "pinned: the rollback holds until the directory changes")
	}
	showStaged(w, h.Staged)
	return nil
}

// what tells what a revision is, in a line.
func what(r revision.Revision) string {
	text, _, more := strings.Cut(r.Message, "\n")
	if more {
		text += " …"
	}
	switch {
	case r.Source == revision.Rollback:
		text = strings.TrimSuffix(fmt.Sprintf("back to %d: %s", r.Of, text), ": ")
	case r.Source == revision.Directory && text == "":
		text = "the directory changed"
	}
	if r.Forced {
		text = strings.TrimSpace(text + " (forced)")
	}
	return dash(text)
}

// oneLine tells of a revision in a line.
func oneLine(r revision.Revision) string {
	return fmt.Sprintf("revision %d (%s) of %s by %s: %s", r.Number, short(r.Hash), r.Time.Local().Format(time.DateTime), dash(r.By), what(r))
}

// showRevision is show with a revision.
func showRevision(c *cobra.Command, rev string) error {
	into, _ := c.Flags().GetString("write")
	path := "/revisions/" + rev
	if into != "" {
		path += "?content=true"
	}
	return answered(c, func(s settings) (r app.RevisionFiles, err error) {
		if err = s.ask(c.Context(), path, &r); err == nil && into != "" {
			err = writeFiles(into, r.Content)
			r.Content = nil
		}
		return r, err
	}, func(r app.RevisionFiles) error {
		if err := showFiles(c.OutOrStdout(), r); err != nil || into == "" {
			return err
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "written to %s\n", into)
		return err
	})
}

func showFiles(w io.Writer, r app.RevisionFiles) error {
	fmt.Fprintln(w, oneLine(r.Revision))
	fmt.Fprintln(w, "hash:", r.Hash)
	if r.Parent > 0 {
		fmt.Fprintln(w, "parent:", r.Parent)
	}
	if _, rest, more := strings.Cut(r.Message, "\n"); more {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(rest))
	}
	fmt.Fprintf(w, "\n%d %s, %d bytes; %d changed since its parent\n", r.Files, plural(r.Files, "file", "files"), r.Bytes, r.Changed)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, name := range slices.Sorted(maps.Keys(r.Sizes)) {
		fmt.Fprintf(t, "%d\t  %s\n", r.Sizes[name], name)
	}
	return t.Flush()
}

// writeFiles writes a policy into a new directory.
func writeFiles(dir string, files policy.Files) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("--write: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("--write: %w", err)
	}
	defer root.Close()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.FromSlash(name)
		if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("--write: %w", err)
		}
		if err := root.WriteFile(path, files[name], 0o644); err != nil {
			return fmt.Errorf("--write: %w", err)
		}
	}
	return nil
}

// completeRevision completes the numbers of revisions, with what they are.
func completeRevision(most int) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all := revisionsThere(c)
		if len(all) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// revisionsThere is the revisions of the process, as completions; none when it doesn't answer at once.
func revisionsThere(c *cobra.Command) (all []string) {
	ctx, cancel := context.WithTimeout(c.Context(), time.Second)
	defer cancel()
	s, err := newSettings(c.Flags())
	if err != nil {
		return nil
	}
	var h app.Revisions
	if s.ask(ctx, "/revisions", &h) != nil {
		return nil
	}
	for _, r := range h.Revisions {
		all = append(all, fmt.Sprintf("%d\t%s", r.Number, what(r)))
	}
	return all
}
