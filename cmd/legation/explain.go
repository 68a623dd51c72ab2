package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/legation/legation/explain"
	"github.com/legation/legation/feature"
	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [METHOD] URL DIR",
		Short: "Tell which route answers a request, and what happens on its way",
		Long: `Read the policy files below DIR and tell, without sending anything, what becomes of a request: which gateway, listener,
virtual host and route take it and why, why the nearest others don't, and what happens on its way: auth, limits with who
counts them, timeouts, retries, rewrites, headers, backends; each with the file and the line that it is written at. It
decides by what Envoy is served, in the way that Envoy does. METHOD is GET where it is left out.

Headers that a route asks for are given as a client would send them, with -H; a header Host takes the place of the URL's.
Where routes or limits are for clients of some addresses, --from says which one connects; behind trusted proxies the
header X-Forwarded-For counts, too.

Exit status: 0 when a route answers, 1 when none does, Envoy refuses the request or the policy is bad, 2 usage.`,
		Example: `  legation explain https://api.example.com/v1/orders policy/
  legation explain POST http://localhost:10000/orders examples/quickstart -H 'content-type: application/json'
  legation explain https://api.example.com/ policy/ --gateway edge --from 192.0.2.7 -o json`,
		Args: arguments(cobra.RangeArgs(2, 3), "want [METHOD] URL and the directory of the policy files"),
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := jsonOutput(c)
			if err != nil {
				return err
			}
			q, err := question(c, args[:len(args)-1])
			if err != nil {
				return usage{err}
			}
			p, err := load(c, args[len(args)-1])
			if err != nil {
				return err
			}
			if p.compiled == nil {
				return checked(c, p, asJSON)
			}
			e, err := explain.Policy{Model: p.compiled.Model, Resources: p.compiled.Resources, Kinds: feature.All()}.Explain(q)
			if err != nil {
				return usage{err}
			}
			if asJSON {
				err = writeJSON(c.OutOrStdout(), e)
			} else {
				err = e.Write(c.OutOrStdout(), colour(c.OutOrStdout()))
			}
			if err == nil && !e.Answered() {
				return errBad
			}
			return err
		},
	}
	c.Flags().StringArrayP("header", "H", nil, "a header of the request, 'name: value'; again for each other one")
	c.Flags().String("from", "", "the address that connects")
	c.Flags().String("gateway", "", "the gateway or sidecar that is asked")
	c.Flags().String("listener", "", "the listener that is asked, by its name")
	outputFlag(c.Flags())
	secretsFlag(c.Flags())
	return c
}

// question is what the command line asks; args are the method, which may be left out, and the URL.
func question(c *cobra.Command, args []string) (explain.Question, error) {
	q := explain.Question{URL: args[len(args)-1]}
	if len(args) > 1 {
		q.Method = args[0]
	}
	q.Gateway, _ = c.Flags().GetString("gateway")
	q.Listener, _ = c.Flags().GetString("listener")
	headers, _ := c.Flags().GetStringArray("header")
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return q, fmt.Errorf("-H: want 'name: value', got %q", h)
		}
		q.Headers = append(q.Headers, explain.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	if from, _ := c.Flags().GetString("from"); from != "" {
		address, err := netip.ParseAddr(from)
		if err != nil || address.Zone() != "" {
			return q, errors.New("--from: want an IP address, got " + from)
		}
		q.From = address
	}
	return q, nil
}
