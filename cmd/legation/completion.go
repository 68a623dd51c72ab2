package main

import (
	"slices"
	"strings"

	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
)

// choices is the values of the flags that take one of a few.
var choices = map[string][]string{
	"output":     {"text", "json"},
	"log-level":  {"debug", "info", "warn", "error"},
	"log-format": {"text", "json"},
	"fast-path":  {"on", "off"},

	"decision-log": {"off", "denied", "all"},
	"validate":     {"none", "envoy"},
}

// plain is the flags whose values nothing completes: addresses, names and numbers. All others take files.
var plain = []string{
	"xds-address", "companion-address", "admin-address", "envoy-admin-address", "companion-target", "redis", "redis-timeout", "server",
	"node", "zone", "max-heap", "xds", "companion", "sub", "claim", "ttl", "issuer", "audience", "kid", "name", "address", "port",
	"add", "give-back", "number", "header", "from", "until", "reason", "decision-log-rate", "max-connection-age", "entry", "expires", "id", "overlap",
	"message", "parent", "by", "out-as", "trust-domain", "sidecar", "within",
	"run", "cover", "timeout",
}

// directories completes so many arguments, after some that are none.
func directories(after, count int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) < after || len(args) >= after+count {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
}

// complete tells the shell what may stand in a verb's command line.
func complete(c *cobra.Command) {
	c.ValidArgsFunction = cobra.NoFileCompletions
	if strings.HasSuffix(c.Use, " FILE...") {
		c.ValidArgsFunction = cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt)
	}
	switch {
	case strings.HasSuffix(c.Use, " TOKEN [DIR]"), strings.HasSuffix(c.Use, " NAME DIR"):
		c.ValidArgsFunction = directories(1, 1)
	case strings.HasPrefix(c.Use, "renew DIR "), strings.HasPrefix(c.Use, "revoke DIR "):
		c.ValidArgsFunction = directories(0, 1)
	case c.Name() == "diff":
		c.ValidArgsFunction = directories(0, 2)
	case strings.HasSuffix(c.Use, " [REV]"):
		c.ValidArgsFunction = completeRevision(1)
	case strings.HasSuffix(c.Use, " DIR"), strings.HasSuffix(c.Use, " [DIR]"):
		c.ValidArgsFunction = directories(0, 1)
	}
	for name, values := range choices {
		if c.Name() == "check" && name == "output" {
			values = []string{"text", "json", "sarif", "github"}
		}
		if c.Name() == "test" && name == "output" {
			values = []string{"text", "json", "junit"}
		}
		register(c, name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, name := range plain {
		register(c, name, cobra.NoFileCompletions)
	}
	register(c, "roles", completeRoles)
	if c.Name() == "explain" {
		c.ValidArgsFunction = completeRequest
	}
	if c.Name() == "docs" {
		c.ValidArgsFunction = completeTopic
	}
	if c.Name() == "usage" {
		c.ValidArgsFunction = completeConsumer
	}
	if c.Name() == "undo" {
		c.ValidArgsFunction = suggest("/revocations", func(all app.Revocations) (names []string) {
			for _, r := range all.Revocations {
				names = append(names, r.Name)
			}
			return names
		})
	}
	if names := entryNames[c.Name()]; names != nil && c.Parent().Name() == "show" {
		c.ValidArgsFunction = completeEntry(names)
	}
	if c.Parent().Name() == "key" && strings.HasSuffix(c.Use, " ID") {
		c.ValidArgsFunction = completeKey
	}
	register(c, "consumer", completeConsumer)
	register(c, "limit", suggest("/limits", func(l app.Limits) []string { return l.Limits }))
	register(c, "plan", suggest("/usage", func(all app.Consumers) []string { return all.Plans }))
	for _, name := range []string{"gateway", "group"} {
		register(c, name, completeName(entryNames["gateway"]))
	}
	register(c, "listener", completeName(listenerNames))
	for _, name := range []string{"data-dir", "secrets-dir", "out", "write", "cases"} {
		register(c, name, cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
	}
}

// completeRequest completes the method, the host of the URL, and the directory after it.
func completeRequest(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch n := len(args); {
	case n == 0:
		return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, cobra.ShellCompDirectiveNoFileComp
	case strings.Contains(args[n-1], "://"):
		return nil, cobra.ShellCompDirectiveFilterDirs
	case n == 1:
		if all := urls(); len(all) > 0 {
			return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeConsumer completes the consumers that the policy names.
func completeConsumer(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return suggest("/usage", func(all app.Consumers) (names []string) {
		for _, one := range all.Consumers {
			names = append(names, one.Name)
		}
		return names
	})(c, args, typed)
}

// completeKey completes the IDs of the keys that can be changed.
func completeKey(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return suggest("/keys", func(all app.Keys) (ids []string) {
		for _, k := range all.Keys {
			if !k.Policy {
				ids = append(ids, k.ID)
			}
		}
		return ids
	})(c, args, typed)
}

// register is for the verbs that have the flag.
func register(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if c.Flags().Lookup(flag) != nil {
		_ = c.RegisterFlagCompletionFunc(flag, f)
	}
}

// completeRoles completes the last of a list.
func completeRoles(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	var list []string
	for _, role := range app.Roles() {
		if !slices.Contains(strings.Split(before, ","), string(role)) {
			list = append(list, before+string(role))
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
