package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/control"
	"github.com/legation/legation/xds"
	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is served, and what each connected Envoy made of it",
		Long: `Ask a legation process for the revision that it serves, the problems of the policy files, and each connected Envoy:
its gateway or sidecar (the group), its version, and whether it took (ACK) or refused (NACK) what it was sent, with the
policy line of a refusal; what it can't do of the policy; and which Envoys have left within the hour. What some Envoys have
before the others (delivery) is told with how long these have held it, and why it went back. With --node it also
shows each resource of that Envoy, and with -o json those of all. Exit status 1 when there is a problem or a NACK.`,
		Example: `  legation status
  legation status --node edge-1
  legation status --server https://10.0.0.5:18002 --token-file token -o json`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			s, asJSON, err := asking(c)
			if err != nil {
				return err
			}
			var status app.Status
			node, _ := c.Flags().GetString("node")
			if err := s.ask(c.Context(), statusPath(node, asJSON), &status); err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(c.OutOrStdout(), status)
			} else {
				err = showStatus(c.OutOrStdout(), status, node)
			}
			if err == nil && troubled(status) {
				err = errBad
			}
			return err
		},
	}
	c.Flags().String("node", "", "only the Envoy of this name (its node.id), with each resource")
	outputFlag(c.Flags())
	clientFlags(c.Flags())
	return c
}

// statusPath asks for resources where they are shown.
func statusPath(node string, asJSON bool) string {
	q := url.Values{}
	if node != "" {
		q.Set("node", node)
	}
	if node != "" || asJSON {
		q.Set("resources", "all")
	}
	if len(q) == 0 {
		return "/status"
	}
	return "/status?" + q.Encode()
}

// troubled tells whether somebody has to look.
func troubled(s app.Status) bool {
	for _, n := range s.Nodes {
		if n.Held {
			return true
		}
		for _, t := range n.Types {
			if t.State == xds.NACK {
				return true
			}
		}
	}
	return s.Policy.Revision == "" || len(s.Policy.Parked) > 0 || s.Policy.Error != "" || s.Policy.Problems.HasErrors()
}

// showStatus shows the status, with no other Envoys than those of the name, if there is one.
func showStatus(w io.Writer, s app.Status, node string) error {
	var roles []string
	for _, r := range s.Roles {
		roles = append(roles, string(r))
	}
	fmt.Fprintf(w, "legation %s, up %s, roles %s\n", s.Version, since(s.Started), strings.Join(roles, ", "))
	showPolicy(w, s.Policy)
	if s.Policy.Error != "" {
		fmt.Fprintln(w, "  error:", s.Policy.Error)
	}
	for _, p := range s.Policy.Problems {
		fmt.Fprintln(w, "  "+p.Error())
		if p.Hint != "" {
			fmt.Fprintln(w, "    hint:", p.Hint)
		}
		for _, at := range p.Also {
			fmt.Fprintln(w, "    also:", at)
		}
	}
	for _, secret := range s.Policy.Secrets {
		fmt.Fprintln(w, "secret:", shownSecret(secret, time.Now()))
	}
	if s.Store != nil {
		state := "ok"
		if !s.Store.OK {
			state = "degraded: " + s.Store.Reason
		}
		fmt.Fprintf(w, "store: %s, %s\n", s.Store.Kind, state)
		if s.Store.Warning != "" {
			fmt.Fprintln(w, "  warning:", s.Store.Warning)
		}
	}
	if s.Shared != nil && !s.Shared.OK {
		fmt.Fprintf(w, "shared store: %s, degraded: %s\n", s.Shared.Kind, s.Shared.Reason)
	}
	if s.Shared != nil && s.Shared.Warning != "" {
		fmt.Fprintln(w, "shared store: warning:", s.Shared.Warning)
	}
	for _, k := range s.Keys {
		state := fmt.Sprintf("%d keys", k.Keys)
		if k.Error != "" {
			state += ", last fetch: " + k.Error
		}
		fmt.Fprintf(w, "keys: %s: %s\n", k.URL, state)
	}
	if err := showNodes(w, s.Nodes, node); err != nil {
		return err
	}
	if err := showResources(w, s.Nodes); err != nil {
		return err
	}
	for _, n := range s.Left {
		fmt.Fprintf(w, "\nleft: %s (%s) went %s ago and is not back\n", n.ID, n.Group, since(*n.Left))
	}
	if err := showLoads(w, s.Loads); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if n.Held && s.Policy.Revision != "" {
			fmt.Fprintf(w, "\nheld: %s asks for the gateway %q, which the policy does not have: it keeps what it had, and gets nothing new\n", n.ID, n.Group)
		}
	}
	return nil
}

// showPolicy tells what is served, and what isn't and why.
func showPolicy(w io.Writer, o control.Outcome) {
	switch {
	case o.Revision == "":
		fmt.Fprintln(w, "policy: none served yet; Envoys are held until a whole policy is loaded")
	case o.Accepted == nil:
		fmt.Fprintf(w, "policy: revision %s, served for %s\n", o.Revision, since(o.Since))
	default:
		fmt.Fprintf(w, "policy: revision %s, served for %s\n", o.Revision, since(o.Since))
		fmt.Fprintf(w, "  %s\n", oneLine(*o.Accepted))
	}
	if o.Pinned {
		fmt.Fprintln(w, "  pinned: a rollback, which holds until the directory changes")
	}
	showStaged(w, o.Staged)
	showParked(w, o.Parked)
}

// shownNames is how many names of a certificate are shown.
const shownNames = 3

// shownSecret is a secret in a line: its name, the certificate's names, and when that expires.
func shownSecret(s control.Secret, now time.Time) string {
	text := s.ID
	if n := len(s.Names); n > 0 {
		text += ": " + strings.Join(s.Names[:min(n, shownNames)], ", ")
		if n > shownNames {
			text += fmt.Sprintf(" and %d more", n-shownNames)
		}
	}
	days := int(s.Expires.Sub(now).Hours() / 24)
	switch {
	case s.Expires.IsZero():
		return text
	case !now.Before(s.Expires):
		return text + ", EXPIRED on " + s.Expires.UTC().Format(time.DateOnly)
	case s.Expires.Sub(now) < control.NearEnd:
		return fmt.Sprintf("%s, EXPIRES on %s, in %d %s", text, s.Expires.UTC().Format(time.DateOnly), days, plural(days, "day", "days"))
	default:
		return fmt.Sprintf("%s, expires on %s, in %d days", text, s.Expires.UTC().Format(time.DateOnly), days)
	}
}

func showNodes(w io.Writer, nodes []xds.NodeStatus, node string) error {
	if len(nodes) == 0 && node != "" {
		_, err := fmt.Fprintf(w, "envoys: none of the name %s is connected\n", node)
		return err
	}
	if len(nodes) == 0 {
		_, err := fmt.Fprintln(w, "envoys: none connected")
		return err
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tGROUP\tENVOY\tADDRESS\tXDS\tUP\tREVISION\tTYPE\tSTATE\tVERSION")
	for _, n := range nodes {
		head := strings.Join([]string{n.ID, n.Group, dash(n.Version), n.Address, string(n.Protocol), since(n.Connected), dash(short(n.Revision))}, "\t")
		for _, one := range n.Types {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", head, one.Type, one.State, dash(one.Acknowledged))
			head = strings.Repeat("\t", 6)
		}
		if len(n.Types) == 0 {
			fmt.Fprintf(t, "%s\t\t\t\n", head)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range nodes {
		for _, one := range n.Types {
			switch {
			case one.State == xds.NACK:
				showNACK(w, n, one)
			case one.State == xds.Sent && one.Time != nil && time.Since(*one.Time) >= slow:
				showSlow(w, n, one)
			}
		}
		for _, l := range n.Lacks {
			fmt.Fprintf(w, "\ncan't: %s (Envoy %s) has no %s\n  %s: needs it\n", n.ID, dash(n.Version), l.Type, l.Origin)
		}
	}
	return nil
}

// showResources tells what each Envoy has, where that was asked for.
func showResources(w io.Writer, nodes []xds.NodeStatus) error {
	for _, n := range nodes {
		if !slices.ContainsFunc(n.Types, func(t xds.TypeStatus) bool { return len(t.Resources) > 0 }) {
			continue
		}
		fmt.Fprintf(w, "\n%s was last heard %s ago, and has:\n", n.ID, since(n.Seen))
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "TYPE\tRESOURCE\tSTATE\tVERSION\tFOR\tFROM")
		for _, of := range n.Types {
			for _, r := range of.Resources {
				held := ""
				if r.Since != nil {
					held = since(*r.Since)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", of.Type, r.Name, r.State, dash(r.Acknowledged), dash(held), dash(r.Origin))
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// shownLoads is how many services are shown, of those with the most requests.
const shownLoads = 20

// showLoads tells which services are in use, by what Envoys report.
func showLoads(w io.Writer, loads []xds.ServiceLoad) error {
	busy := slices.DeleteFunc(slices.Clone(loads), func(l xds.ServiceLoad) bool { return l.Minute.Traffic == xds.Traffic{} && l.InProgress == 0 })
	if len(busy) == 0 {
		return nil
	}
	slices.SortStableFunc(busy, func(a, b xds.ServiceLoad) int { return cmp.Compare(b.Minute.Issued, a.Minute.Issued) })
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tGROUP\tREQ/S 10S\tREQ/S 1M\tERRORS 1M\tIN PROGRESS")
	for _, l := range busy[:min(len(busy), shownLoads)] {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f\t%.1f%%\t%d\n", l.Service, l.Group, l.Recent.PerSecond, l.Minute.PerSecond, 100*l.Minute.ErrorShare, l.InProgress)
	}
	if n := len(busy) - shownLoads; n > 0 {
		fmt.Fprintf(t, "and %d more: -o json shows all\n", n)
	}
	return t.Flush()
}

// slow is how long an answer of Envoy may take before it is remarked on.
const slow = 5 * time.Second

// showSlow tells that an Envoy has not answered, and what it may be at.
func showSlow(w io.Writer, n xds.NodeStatus, t xds.TypeStatus) {
	fmt.Fprintf(w, "\nwaiting: %s has not acknowledged its %ss for %s\n", n.ID, t.Type, since(*t.Time))
	if t.Type == "cluster" {
		fmt.Fprintln(w, "  It first asks the endpoints of new and changed services whether they are well (healthCheck), and resolves their names (dns).")
	}
}

// showNACK tells where in the policy a refusal comes from.
func showNACK(w io.Writer, n xds.NodeStatus, t xds.TypeStatus) {
	fmt.Fprintf(w, "\nNACK: %s refused %s: %s\n", n.ID, t.Type, t.Error)
	for _, b := range t.Blamed {
		fmt.Fprintf(w, "  %s: %s %s\n", b.Origin, t.Type, b.Resource)
	}
	fmt.Fprintln(w, "  It keeps its last good one, and is sent this again when it changes.")
}

// short is enough of a revision to tell it from others; the whole one would make the table wider than most terminals.
func short(revision string) string { return revision[:min(len(revision), 12)] }

func since(t time.Time) string { return time.Since(t).Round(time.Second).String() }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
