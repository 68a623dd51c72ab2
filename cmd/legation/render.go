package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
	"github.com/spf13/cobra"
)

func renderCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "render DIR",
		Short: "Show the Envoy resources that a policy directory comes to",
		Long: `Print, as JSON, the resources that the Envoys of each gateway and sidecar are served; secrets are left out. With --static,
print instead a whole configuration of one of them that a stock Envoy loads by itself: envoy -c FILE. It names the files of
secrets, below --secrets-dir or else the directory that Envoy is started in.`,
		Example: `  legation render policy/
  legation render policy/ --static --group edge > envoy.json`,
		Args: directory,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := mustLoad(c, args[0])
			if err != nil {
				return err
			}
			group, _ := c.Flags().GetString("group")
			if static, _ := c.Flags().GetBool("static"); static {
				return renderStatic(c, p, group)
			}
			return renderResources(c, p.compiled, group)
		},
	}
	c.Flags().Bool("static", false, "one configuration that Envoy loads by itself")
	c.Flags().String("group", "", "only this gateway or sidecar")
	secretsFlag(c.Flags())
	bootstrapFlags(c.Flags())
	return c
}

func renderStatic(c *cobra.Command, p loaded, group string) error {
	compiled := p.compiled
	o, err := bootstrapOptions(c)
	if err != nil {
		return err
	}
	var names []string
	for _, g := range compiled.Model.Gateways {
		names = append(names, g.Name)
	}
	if group == "" && len(names) == 1 {
		group = names[0]
	}
	if compiled.Resources[group] == nil {
		return usage{fmt.Errorf("name the gateway with --group: %s", strings.Join(names, ", "))}
	}
	o.Group, o.Secrets = group, p.directory
	resources := append(slices.Clone(compiled.Resources[group]), envoy.Labels(compiled.Model.Revision)...)
	b, err := envoy.Static(resources, o)
	if err != nil {
		return err
	}
	text, err := envoy.JSON(b)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), string(text))
	return err
}

// rendered is one resource as render prints it.
type rendered struct {
	Type     string          `json:"type"`
	Name     string          `json:"name"`
	Origin   string          `json:"origin"`
	Resource json.RawMessage `json:"resource"`
}

func renderResources(c *cobra.Command, compiled *control.Compiled, group string) error {
	out := map[string][]rendered{}
	for name, resources := range compiled.Resources {
		if group != "" && name != group {
			continue
		}
		list := []rendered{}
		for _, r := range resources {
			text, err := envoy.JSON(envoy.Redact(r.Message))
			if err != nil {
				return err
			}
			list = append(list, rendered{r.Type, r.Name, r.Pos.String(), text})
		}
		out[name] = list
	}
	if group != "" && len(out) == 0 {
		return usage{fmt.Errorf("no gateway %q in the policy", group)}
	}
	return writeJSON(c.OutOrStdout(), out)
}
