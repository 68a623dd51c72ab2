package main

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
)

func usageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "usage CONSUMER",
		Short: "Show what a consumer has used of its plan and limits, or correct it",
		Long: `Ask a legation process what CONSUMER has used of its plan, and of each limit that counts by consumer and nothing else.
CONSUMER is a consumer of the policy, or an identity: AUTH/SUBJECT, as in idp/alice. The plan is the one that the policy
gives it; where the token says it, give --plan.

What is used is what the store has counted, for all processes that share it; what one of them took ahead of need
(mode: leased) is used. With --add and --give-back the count of one limit is corrected: --add counts beyond the limit, too.`,
		Example: `  legation usage acme
  legation usage idp/alice --plan free -o json
  legation usage acme --limit plan/quota --give-back 500`,
		Args: arguments(cobra.ExactArgs(1), "name a consumer"),
		RunE: func(c *cobra.Command, args []string) error {
			ask := func(s settings) (app.ConsumerUsage, error) { return askUsage(c, s, args[0]) }
			return answered(c, ask, func(u app.ConsumerUsage) error { return showUsage(c.OutOrStdout(), u, time.Now()) })
		},
	}
	f := c.Flags()
	f.String("plan", "", "the plan, where a token's claim says it; default: the one that the policy gives the consumer")
	f.String("limit", "", "one limit of those that are shown")
	f.Int64("add", 0, "count so many more, of the limit")
	f.Int64("give-back", 0, "give so many back, of the limit")
	outputFlag(f)
	clientFlags(f)
	return c
}

// askUsage asks for what is used, after a change where one is wanted.
func askUsage(c *cobra.Command, s settings, consumer string) (u app.ConsumerUsage, err error) {
	f := c.Flags()
	plan, _ := f.GetString("plan")
	limit, _ := f.GetString("limit")
	add, _ := f.GetInt64("add")
	back, _ := f.GetInt64("give-back")
	change := f.Changed("add") || f.Changed("give-back")
	switch {
	case consumer == "":
		return u, usage{fmt.Errorf("name a consumer (see %s --help)", c.CommandPath())}
	case f.Changed("add") && f.Changed("give-back"):
		return u, usage{fmt.Errorf("give --add or --give-back, not both")}
	case f.Changed("add") && add < 1 || f.Changed("give-back") && back < 1:
		return u, usage{fmt.Errorf("--add, --give-back: want a number of at least 1")}
	case change && limit == "":
		return u, usage{fmt.Errorf("name the limit with --limit: %s lists them", c.CommandPath())}
	}
	path := "/usage/" + url.PathEscape(consumer)
	if plan != "" {
		path += "?" + url.Values{"plan": {plan}}.Encode()
	}
	if change {
		return u, s.tell(c.Context(), path, app.Adjustment{Limit: limit, Hits: add - back}, &u)
	}
	if err := s.ask(c.Context(), path, &u); err != nil || limit == "" {
		return u, err
	}
	for _, one := range u.Limits {
		if one.Limit == limit {
			u.Limits = append(u.Limits[:0], one)
			return u, nil
		}
	}
	return u, fmt.Errorf("there is no limit %q that counts by consumer alone", limit)
}

func showUsage(w io.Writer, u app.ConsumerUsage, now time.Time) error {
	fmt.Fprint(w, u.Consumer)
	if u.Identity != "" {
		fmt.Fprintf(w, " (%s)", u.Identity)
	}
	if u.Plan != "" {
		fmt.Fprintf(w, ", plan %s\n", u.Plan)
	} else {
		fmt.Fprintln(w, ", no plan that the policy gives it")
	}
	if len(u.Limits) == 0 {
		_, err := fmt.Fprintln(w, "nothing is counted by consumer alone")
		return err
	}
	bars := terminal(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{"LIMIT", "RATE", "USED", "OF", "LEFT", "RESETS"}
	if bars {
		head = slices.Insert(head, 5, "")
	}
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, one := range u.Limits {
		rate := one.Rate
		if one.Shadow {
			rate += ", in shadow"
		}
		if one.Exempt {
			fmt.Fprintf(t, "%s\t%s\tnot counted\t\t\t\n", one.Limit, rate)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t", one.Limit, rate, one.Used, one.Size, one.Remaining)
		if bars {
			fmt.Fprintf(t, "%s\t", bar(one.Used, one.Size))
		}
		fmt.Fprintln(t, resets(time.Duration(one.Reset)*time.Second, now))
	}
	return t.Flush()
}

// bar shows how much of it is used in ten steps: a full one is used up, an empty one hasn't been touched.
func bar(used, size int64) string {
	const width = 10
	n := int(min(float64(used)/float64(max(size, 1)), 1) * width)
	if used > 0 {
		n = max(n, 1)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat("-", width-n) + "]"
}

// resets tells when it is whole again, as a time from now and by the clock here.
func resets(in time.Duration, now time.Time) string {
	at := now.Add(in)
	switch {
	case in <= 0:
		return "-"
	case in < 24*time.Hour:
		return fmt.Sprintf("in %s, at %s", in, at.Format(time.TimeOnly))
	}
	days, rest := in/(24*time.Hour), in%(24*time.Hour)
	return fmt.Sprintf("in %dd%dh, on %s", days, rest/time.Hour, at.Format("2006-01-02 15:04"))
}
