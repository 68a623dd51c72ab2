package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/feature"
	"github.com/spf13/cobra"
)

func limitsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "limits",
		Short: "Show the limits of a policy, who uses them most, and who was over them",
		Long: `Show what limits a policy comes to (list), which values ask most (top), and who was over a limit, or would have been
over one in shadow (report).`,
		Example: `  legation limits list policy/
  legation limits top -n 5
  legation limits report --limit route/search/0`,
		Args: subverb("list, top or report"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(limitsListCommand(), limitsTopCommand(), limitsReportCommand())
	return c
}

// subverb is for verbs that are nothing without another.
func subverb(all string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage{fmt.Errorf("%s knows no %q: there is %s (see %s --help)", c.CommandPath(), args[0], all, c.CommandPath())}
		}
		return nil
	}
}

// oneProcess is what the help of verbs says whose answer is no more than one process knows.
const oneProcess = `
A process tells of what it has answered itself. With several, give each one's --server: what they tell is added up.`

func limitsTopCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "top",
		Short: "Show the values that ask most",
		Long: `Ask for the values that asked most over the last minute: the limit, the value that it counts by, requests a second, and
the share of them that was refused, or would have been in shadow. The numbers are estimates. Values of headers and cookies are
digests; a long value shows its beginning and a digest.
` + oneProcess,
		Example: `  legation limits top
  legation limits top -n 5 --server 10.0.0.5:18002 --server 10.0.0.6:18002 --token-file token`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			n, _ := c.Flags().GetInt("number")
			if n < 1 || n > 256 {
				return usage{fmt.Errorf("--number: want 1 to 256, got %d", n)}
			}
			sum, problem := sumOf(c, "/limits/top?n=256", (*app.Top).Add) // what is second in each may be first in the sum
			if sum != nil {
				sum.Busiest = sum.Busiest[:min(n, len(sum.Busiest))]
			}
			return showSum(c, sum, problem, showTop)
		},
	}
	c.Flags().IntP("number", "n", 20, "how many, 1 to 256")
	outputFlag(c.Flags())
	clientsFlags(c.Flags())
	return c
}

func limitsReportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "report",
		Short: "Show who was over a limit, or would have been over one in shadow",
		Long: `Ask who was over which limit since it was loaded as it is: each limit that refused somebody, and each in shadow. Of a
limit in shadow it also tells how much would have fitted: all that came, or 99 of 100 windows.

OVER is how often the value was over, as a range where that is an estimate; WOULD FIT is the limit (of gcra the burst)
that would have fitted the value while it was over.
` + oneProcess,
		Example: `  legation limits report
  legation limits report --limit route/search/0 -o json`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			path := "/limits/report"
			limit, _ := c.Flags().GetString("limit")
			if limit != "" {
				path += "?" + url.Values{"limit": {limit}}.Encode()
			}
			sum, problem := sumOf(c, path, (*app.Report).Add)
			return showSum(c, sum, problem, func(w io.Writer, r app.Report) error { return showReport(w, r, limit) })
		},
	}
	c.Flags().String("limit", "", "one limit")
	outputFlag(c.Flags())
	clientsFlags(c.Flags())
	return c
}

// sumOf asks all processes, and adds up what they answer; nil when none does. The error is of those that don't.
func sumOf[T any](c *cobra.Command, path string, add func(*T, T)) (sum *T, err error) {
	if _, err := jsonOutput(c); err != nil { // before anybody is asked
		return nil, err
	}
	s, err := newSettings(c.Flags())
	if err != nil {
		return nil, err
	}
	answers, err := askAll[T](c.Context(), s, path)
	for i := range answers {
		if sum == nil {
			sum = &answers[i]
			continue
		}
		add(sum, answers[i])
	}
	return sum, err
}

// showSum shows what sumOf gives. When some have not answered it shows what the others told, and ends badly.
func showSum[T any](c *cobra.Command, sum *T, problem error, show func(io.Writer, T) error) error {
	if sum == nil {
		return problem
	}
	asJSON, err := jsonOutput(c)
	switch {
	case err != nil:
		return err
	case asJSON:
		err = writeJSON(c.OutOrStdout(), sum)
	default:
		err = show(c.OutOrStdout(), *sum)
	}
	if err == nil && problem != nil {
		return fmt.Errorf("this is not all: %w", problem)
	}
	return err
}

func showTop(w io.Writer, top app.Top) error {
	if len(top.Busiest) == 0 {
		_, err := fmt.Fprintln(w, "nobody asked for a limit in the last minute")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LIMIT\tVALUE\tREQUESTS/S\tOVER")
	for _, b := range top.Busiest {
		over := "-"
		if b.Over > 0 {
			over = fmt.Sprintf("%.0f %%", max(b.Over*100, 1))
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\n", b.Limit, dash(b.Value), b.Rate, over)
	}
	return t.Flush()
}

// shownValues is how many values of a report are shown; JSON has all.
const shownValues = 20

func showReport(w io.Writer, r app.Report, limit string) error {
	switch {
	case len(r.Limits) > 0:
	case limit != "":
		fmt.Fprintf(w, "nothing to report of %s: it is not in shadow, and has refused nobody\n", limit)
	default:
		fmt.Fprintln(w, "nothing to report: no limit is in shadow, and none has refused anybody")
	}
	for i, p := range r.Limits {
		if i > 0 {
			fmt.Fprintln(w)
		}
		name, verb := p.Limit, "were refused"
		if p.Rate != "" {
			name += ", " + p.Rate
		}
		if p.Shadow {
			name, verb = name+", in shadow", "would have been refused"
		}
		fmt.Fprintf(w, "%s, since %s (%s)\n  %d %s", name, p.Since.Local().Format(time.DateTime), since(p.Since),
			p.Requests, plural(int(p.Requests), "request", "requests"))
		if p.Shadow {
			fmt.Fprint(w, " of ", values(p.Values))
		}
		fmt.Fprintf(w, "; %d %s, of %s\n", p.Over, verb, values(p.ValuesOver))
		if advice := p.Advice(); advice != "" {
			fmt.Fprintln(w, "  "+advice)
		}
		if err := showWorst(w, r, i); err != nil {
			return err
		}
	}
	return nil
}

func values(n int64) string { return fmt.Sprintf("%d %s", n, plural(int(n), "value", "values")) }

// showWorst shows the values that were over one of the limits most often; of one in shadow, what would have fitted each.
func showWorst(w io.Writer, r app.Report, place int) error {
	worst, shadow := r.Limits[place].Worst, r.Limits[place].Shadow
	if len(worst) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  VALUE\tOVER\tFIRST\tLAST"+only(shadow, "\tWOULD FIT"))
	for _, v := range worst[:min(len(worst), shownValues)] {
		over := fmt.Sprint(v.Over)
		if v.Least < v.Over {
			over = fmt.Sprintf("%d-%d", v.Least, v.Over)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s%s\n", dash(v.Value), over, v.First.Local().Format(time.DateTime), v.Last.Local().Format(time.DateTime),
			only(shadow, fmt.Sprintf("\t%d", v.Peak)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(worst) - shownValues; more > 0 {
		fmt.Fprintf(w, "  and %d more: -o json\n", more)
	}
	return nil
}

// only is the text where it is wanted.
func only(wanted bool, text string) string {
	if wanted {
		return text
	}
	return ""
}

func limitsListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list DIR",
		Short: "Show the limits that a policy directory comes to",
		Long: `Read the policy files below DIR and list each limit that holds somewhere, with what the policy leaves open filled in: its
name, which reports, metrics and usage call it by, its rate, what it counts by, the algorithm, who counts, what becomes of
requests when that fails, and where it is written. Limits of plans are those of the consumers that have the plan.`,
		Example: `  legation limits list policy/
  legation limits list policy/ -o json`,
		Args: directory,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			p, err := mustLoad(c, args[0])
			if err != nil {
				return err
			}
			all := feature.Limits(p.compiled.Model)
			if asJSON {
				return writeJSON(c.OutOrStdout(), map[string]any{"limits": all})
			}
			return showLimits(c.OutOrStdout(), all)
		},
	}
	outputFlag(c.Flags())
	return c
}

func showLimits(w io.Writer, all []feature.Limit) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "the policy has no limits")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tRATE\tBY\tALGORITHM\tMODE\tONERROR\tAT")
	for _, l := range all {
		name, mode := l.Name, l.Mode
		if l.Plan != "" {
			name += " of " + l.Plan
		}
		if l.Lease > 0 {
			mode += fmt.Sprintf(" %d", l.Lease)
		}
		if l.Shadow {
			mode += ", shadow"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, l.Rate, dash(strings.Join(l.By, ", ")), l.Algorithm, mode, dash(l.OnError), l.Pos)
	}
	return t.Flush()
}
