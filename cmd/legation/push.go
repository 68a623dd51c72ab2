package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/control"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pushPatience is how long a process may take to check, keep and serve a policy.
const pushPatience = time.Minute

func pushCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "push DIR",
		Short: "Have a running process serve a policy directory, as the next revision",
		Long: `Send the policy files below DIR to a process that serves what is pushed (legation serve without a directory). It takes all
or nothing: problems are told as legation check tells them, and nothing changes. What it takes is the next revision of its
history, and is served by the time the verb ends, with Redis by all processes within 2 s.

A push builds on a revision: the one that is the last when the push begins, or --parent. When another one is the last by then,
somebody else has pushed meanwhile: the push is refused, so that nobody's change is undone unseen. Pipelines had better say
--parent with the revision that their branch was made from.

What takes away more than half of the listeners or clusters is refused without --force. A process that serves a directory
refuses all pushes, but for its very directory with --force: that approves what was held back, and tries again what Envoys
have refused.

A gateway whose policy says delivery has it go to some of its Envoys first, and to the others once those have held it. --wait
waits for that; the same push with --force has all of them get it at once.

What Envoys refused before is parked: pushed again it is still not sent to them, which is told, and --force tries it again.

Exit status: 0 served, or kept and served by others, and with --wait all Envoys get it; 1 the policy is bad, or refused, or with
--wait it went back, or is parked, or another one took its place; 2 usage.`,
		Example: `  legation push policy/ -m "longer timeouts for orders"
  legation push policy/ --parent 41 --server https://10.0.0.5:18002 --token-file token
  legation push policy/ --wait                until all Envoys get it, where it goes to some of them first
  legation push policy/ --force               though it takes away more than half
  legation push policy/ --parent none         only as the first revision of all`,
		Args: directory,
		RunE: func(c *cobra.Command, args []string) error {
			files, unread, err := control.ReadDir(args[0])
			if err != nil {
				return err
			}
			unread.Write(c.ErrOrStderr(), files, colour(c.ErrOrStderr()))
			if unread.HasErrors() {
				return errBad
			}
			return makeChange(c, files, func(s settings, ctx context.Context, w app.ChangeWanted) (a control.Accepted, err error) {
				err = s.tell(ctx, "/revisions", app.Push{Files: revision.Kept(files), ChangeWanted: w}, &a)
				return a, err
			})
		},
	}
	changeFlags(c.Flags())
	return c
}

func rollbackCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollback [REV]",
		Short: "Have a running process serve an earlier revision again",
		Long: `Make the files of an earlier revision the next one: nothing of the history is lost, and legation history shows who went
back, and where. REV is a number, at least 6 digits of a hash, or previous, which it is where none is named: the revision before
the last one.

Where a process serves a directory the rollback holds until the directory changes; legation status then says pinned. With
several processes that each serve a directory, this one alone goes back.

It goes to all Envoys at once, whatever delivery says. Of a revision that Envoys refused it is told that it is parked.

Exit status: 0 served; 1 refused, or with --wait it is parked; 2 usage.`,
		Example: `  legation rollback                           one back
  legation rollback 41 -m "orders time out"
  legation rollback 3f9ab2 --server https://10.0.0.5:18002 --token-file token`,
		Args: revisions(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			to := revision.Previous
			if len(args) > 0 {
				to = args[0]
			}
			return makeChange(c, nil, func(s settings, ctx context.Context, w app.ChangeWanted) (a control.Accepted, err error) {
				err = s.tell(ctx, "/revisions/"+to+"/rollback", w, &a)
				return a, err
			})
		},
	}
	changeFlags(c.Flags())
	return c
}

// revisions is for verbs whose arguments name revisions.
func revisions(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := arguments(cobra.RangeArgs(least, most), "name a revision")(c, args); err != nil {
			return err
		}
		for _, one := range args {
			if !revision.IsRef(one) {
				return usage{fmt.Errorf("%q names no revision: want its number, at least 6 digits of its hash, head or previous (see legation history)", one)}
			}
		}
		return nil
	}
}

func changeFlags(f *pflag.FlagSet) {
	f.StringP("message", "m", "", "why, for the history")
	f.String("parent", "", "the revision that this builds on: its number or hash; none for the first one; else the last one there is")
	f.String("by", "", "who makes the change, for the history; else the user and host of this command")
	f.Bool("force", false, "though it takes away more than half of the listeners or clusters; with what is served already: try again what Envoys have refused, and let all have at once what is on its way")
	f.Bool("wait", false, "until all Envoys get it, where it goes to some first (delivery), or it went back")
	outputFlag(f)
	clientFlags(f)
}

// makeChange has a process make a change, and tells what came of it.
func makeChange(c *cobra.Command, files policy.Files, change func(settings, context.Context, app.ChangeWanted) (control.Accepted, error)) error {
	s, asJSON, err := asking(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), pushPatience)
	defer cancel()
	wanted, err := wantedChange(ctx, c, s)
	if err != nil {
		return err
	}
	a, err := change(s, ctx, wanted)
	if err != nil {
		return tellRefusal(c, err, files, asJSON)
	}
	wait, _ := c.Flags().GetBool("wait")
	if asJSON {
		err = writeJSON(c.OutOrStdout(), a)
	} else {
		a.Problems.Write(c.ErrOrStderr(), files, colour(c.ErrOrStderr()))
		showAccepted(c.OutOrStdout(), a)
	}
	if err != nil || !wait {
		if !asJSON {
			showParked(c.ErrOrStderr(), a.Parked)
		}
		return err
	}
	err = await(c.Context(), c.ErrOrStderr(), a, func(ctx context.Context) (control.Outcome, error) {
		var now app.Status
		err := s.ask(ctx, "/status", &now)
		return now.Policy, err
	})
	if err == nil && !asJSON && len(a.Staged) > 0 {
		_, err = fmt.Fprintln(c.OutOrStdout(), "all Envoys get it")
	}
	return err
}

// wantedChange is what the flags say of a change. The parent is the last revision unless they name one.
func wantedChange(ctx context.Context, c *cobra.Command, s settings) (app.ChangeWanted, error) {
	f := c.Flags()
	w := app.ChangeWanted{}
	w.Message, _ = f.GetString("message")
	w.Parent, _ = f.GetString("parent")
	w.By, _ = f.GetString("by")
	w.Force, _ = f.GetBool("force")
	w.By = cmp.Or(w.By, self())
	if w.Parent != "" && w.Parent != control.NoParent && !revision.IsRef(w.Parent) {
		return w, usage{fmt.Errorf("--parent: %q names no revision", w.Parent)}
	}
	if w.Parent != "" && w.Parent != revision.Head {
		return w, nil
	}
	var h app.Revisions
	if err := s.ask(ctx, "/revisions", &h); err != nil {
		return w, err
	}
	w.Parent = control.NoParent
	if len(h.Revisions) > 0 {
		w.Parent = fmt.Sprint(h.Revisions[0].Number)
	}
	return w, nil
}

// self is who runs the command, as far as that is known.
func self() string {
	name, host := "", ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = "@" + h
	}
	return strings.ToValidUTF8(name+host, "?")
}

// tellRefusal tells why a change was not made: problems at their lines.
func tellRefusal(c *cobra.Command, err error, files policy.Files, asJSON bool) error {
	answer, ok := errors.AsType[*refusedError](err)
	if !ok {
		return err
	}
	var told app.ChangeRefused
	if json.Unmarshal(answer.body, &told) != nil || told.Error == "" {
		return err
	}
	w := c.ErrOrStderr()
	switch {
	case asJSON:
		return errors.Join(writeJSON(c.OutOrStdout(), told), errBad)
	case len(told.Problems) > 0:
		told.Problems.Write(w, files, colour(w))
		fmt.Fprintf(w, "\n%s: nothing was changed\n", tally(told.Problems))
		return errBad
	}
	if told.Head != nil {
		fmt.Fprintf(w, "last: %s\n", oneLine(*told.Head))
	}
	if answer.code == http.StatusUnauthorized {
		return err
	}
	return errors.New(told.Error)
}

func showAccepted(w io.Writer, a control.Accepted) {
	switch {
	case a.Unchanged:
		fmt.Fprintf(w, "unchanged: revision %d (%s) is what was sent\n", a.Number, short(a.Hash))
	case a.Source == revision.Rollback:
		fmt.Fprintf(w, "revision %d (%s), with the files of %d\n", a.Number, short(a.Hash), a.Of)
	default:
		// Those that are gone have changed, too: there may be more of them than there are files.
		fmt.Fprintf(w, "revision %d (%s): %d %s changed, %d in all\n", a.Number, short(a.Hash), a.Changed, plural(a.Changed, "file", "files"), a.Files)
	}
	if !a.Served {
		fmt.Fprintln(w, "note: it is kept, and not served by this process: see legation status")
	}
	if a.Pin != "" {
		fmt.Fprintln(w, "note: it holds until the directory changes")
	}
	showGoing(w, a.Staged)
	for _, group := range a.Released {
		fmt.Fprintf(w, "forced: all Envoys of %s get it\n", group)
	}
}
