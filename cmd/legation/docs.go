package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/spf13/cobra"
)

func docsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "docs [KEY]",
		Short: "Print the reference of a key of the policy language",
		Long: `Print what a key of policy files does, what stands under it, and its defaults. Of an entry, such as gateways, listeners or
routes, its own fields are told and the keys that may stand in it. Without a KEY, all of them are listed.`,
		Example: `  legation docs
  legation docs retry
  legation docs routes`,
		Args: arguments(cobra.MaximumNArgs(1), "name one key"),
		RunE: func(c *cobra.Command, args []string) error {
			p := page{colour: colour(c.OutOrStdout())}
			topics, err := topics()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				index(&p, topics)
				return p.print(c.OutOrStdout())
			}
			name, _, _ := strings.Cut(args[0], ".") // retry.attempts stands in retry
			found := slices.DeleteFunc(slices.Clone(topics), func(t topic) bool { return t.name != name })
			if len(found) == 0 {
				hint := "legation docs lists all keys"
				if near := policy.Nearest(name, names(topics)); near != "" {
					hint = fmt.Sprintf("did you mean %s?", near)
				}
				return usage{fmt.Errorf("there is no key %q: %s", name, hint)}
			}
			for i, t := range found {
				if i > 0 || len(found) > 1 {
					p.heading(t.name + ", in " + t.in)
				}
				p.markdown(t.text)
			}
			return p.print(c.OutOrStdout())
		},
	}
}

// topic is something that a policy can say.
type topic struct {
	name    string
	in      string // where it stands
	summary string // half a sentence
	text    string // Markdown
	section bool   // an entry, not a key of one
}

// keyTopic is a key that a feature defines.
func keyTopic(k *policy.Kind) topic {
	first, _, _ := strings.Cut(k.Doc, "\n")
	summary := strings.TrimSuffix(strings.TrimPrefix(first, "`"+k.Key+"` "), ".")
	return topic{name: k.Key, in: strings.Join(k.Places.Names(), ", "), summary: summary, text: k.Doc}
}

func names(all []topic) []string {
	var list []string
	for _, t := range all {
		list = append(list, t.name)
	}
	return slices.Compact(list)
}

// entry is what keys stand in.
type entry struct{ schema, name, in, what string }

// entries are what keys stand in, each with its name in the schema and in the policy.
var entries = []entry{
	{"gateway", "gateways", "gateways.NAME", "a group of Envoys that are served the same"},
	{"listener", "listeners", "gateways.NAME.listeners.NAME", "a port that they listen on"},
	{"defaults", "defaults", "gateways.NAME.defaults", "settings that every route of the gateway has, where service and route say nothing else"},
	{"service", "services", "services.NAME", "what routes send requests to, by `endpoints` or `dns`"},
	{"route", "routes", "routes.NAME", "which requests go where"},
	{"sidecar", "sidecars", "sidecars.NAME", "an Envoy beside an app; NAME is the service that the app is"},
	{"auth", "auth", "auth.NAME", "a way to tell who calls"},
	{"consumer", "consumers", "consumers.NAME", "a caller by a name of your own"},
	{"plan", "plans", "plans.NAME", "what consumers may use"},
	{"domain", "rateLimits", "rateLimits.NAME", "what Envoys that others configure may ask the rate limit service for; NAME is their domain"},
}

// part is as much of the JSON Schema as is told.
type part struct {
	Description string           `json:"description"`
	Enum        []any            `json:"enum"`
	Properties  map[string]*part `json:"properties"`
	Required    []string         `json:"required"`
	Ref         string           `json:"$ref"`
}

// topics is all of them, sorted by name.
func topics() ([]topic, error) {
	var schema struct {
		Defs map[string]*part `json:"$defs"`
	}
	if err := json.Unmarshal(feature.Language().Schema(), &schema); err != nil {
		return nil, err
	}
	byKey := map[string]bool{}
	var all []topic
	for _, k := range feature.All() {
		byKey[k.Key] = true
		all = append(all, keyTopic(k))
	}
	for _, e := range entries {
		defined := schema.Defs[e.schema]
		text := &strings.Builder{}
		fmt.Fprintf(text, "`%s`: %s.\n\n| field | meaning |\n| --- | --- |\n", e.in, e.what)
		var keys []string
		for _, field := range slices.Sorted(maps.Keys(defined.Properties)) {
			of := defined.Properties[field]
			if byKey[field] {
				keys = append(keys, "`"+field+"`")
				continue
			}
			meaning := of.meaning(slices.Contains(defined.Required, field))
			fmt.Fprintf(text, "| `%s` | %s |\n", field, meaning)
			if !slices.ContainsFunc(entries, func(other entry) bool { return other.name == field }) {
				about := fmt.Sprintf("`%s` of `%s`: %s.\n\n", field, e.in, of.Description)
				all = append(all, topic{name: field, in: e.in, summary: "of " + e.in + ": " + of.Description, text: about + below(schema.Defs, of)})
			}
		}
		if len(keys) > 0 {
			fmt.Fprintf(text, "\nKeys that may stand here: %s.\n", strings.Join(keys, ", "))
		}
		all = append(all, topic{name: e.name, in: e.in, summary: e.what, text: text.String(), section: true})
	}
	slices.SortStableFunc(all, func(a, b topic) int { return cmp.Compare(a.name, b.name) })
	return all, nil
}

// below is the fields of a field.
func below(defs map[string]*part, of *part) string {
	inner := defs[strings.TrimPrefix(of.Ref, "#/$defs/")]
	if inner == nil || len(inner.Properties) == 0 {
		return ""
	}
	text := &strings.Builder{}
	text.WriteString("| field | meaning |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(inner.Properties)) {
		fmt.Fprintf(text, "| `%s` | %s |\n", name, inner.Properties[name].meaning(slices.Contains(inner.Required, name)))
	}
	return text.String()
}

func (p *part) meaning(required bool) string {
	meaning := p.Description
	if required {
		meaning += "; required"
	}
	if len(p.Enum) > 0 {
		var values []string
		for _, v := range p.Enum {
			values = append(values, fmt.Sprintf("`%v`", v))
		}
		meaning += "; one of " + strings.Join(values, ", ")
	}
	return strings.ReplaceAll(meaning, "|", `\|`)
}

// index lists the topics, each with its summary: entries before the keys that stand in them.
func index(p *page, all []topic) {
	for _, entries := range []bool{true, false} {
		text := &strings.Builder{}
		text.WriteString("| key | what it does |\n| --- | --- |\n")
		for _, t := range all {
			if t.section == entries {
				fmt.Fprintf(text, "| `%s` | %s |\n", t.name, strings.ReplaceAll(t.summary, "|", `\|`))
			}
		}
		p.heading(map[bool]string{true: "Entries", false: "Keys"}[entries])
		p.markdown(text.String())
	}
}

// completeTopic completes the names of keys.
func completeTopic(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	all, err := topics()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all = slices.DeleteFunc(all, func(t topic) bool { return !strings.HasPrefix(t.name, typed) })
	return names(all), cobra.ShellCompDirectiveNoFileComp
}

// print writes a page.
func (p *page) print(w io.Writer) error {
	_, err := io.WriteString(w, strings.TrimSpace(p.text.String())+"\n")
	return err
}
