package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/legation/legation/control"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/spf13/cobra"
)

// maxNearby is how many directories are looked at for a shell that waits.
const maxNearby = 8

// nearby is the policies that names are completed from before the directory is typed: that of the working directory, and
// those of the folders in it. What is broken completes nothing.
func nearby() []*policy.Model {
	dirs := []string{"."}
	entries, _ := os.ReadDir(".")
	for _, e := range entries {
		if holds, _ := filepath.Glob(filepath.Join(e.Name(), "*.y*ml")); e.IsDir() && len(holds) > 0 {
			dirs = append(dirs, e.Name())
		}
	}
	if holds, _ := filepath.Glob("*.y*ml"); len(holds) == 0 {
		dirs = dirs[1:]
	}
	return readable(dirs)
}

// readable is the policies of the directories that hold one.
func readable(dirs []string) []*policy.Model {
	var all []*policy.Model
	for _, dir := range dirs[:min(len(dirs), maxNearby)] {
		if files, _, err := control.ReadDir(dir); err == nil {
			if m, _ := feature.Language().Load(files); m != nil {
				all = append(all, m)
			}
		}
	}
	return all
}

// completeName completes the value of a flag with names of the policy whose directory is typed already, or of those nearby.
func completeName(names func(*policy.Model) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		models := readable(args)
		if len(models) == 0 {
			models = nearby()
		}
		return namesOf(models, names), cobra.ShellCompDirectiveNoFileComp
	}
}

// namesOf is the names in these policies, each once.
func namesOf(models []*policy.Model, names func(*policy.Model) []string) []string {
	var all []string
	for _, m := range models {
		all = append(all, names(m)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// listenerNames is the names of the listeners of all gateways and sidecars.
func listenerNames(m *policy.Model) (names []string) {
	for _, g := range m.Gateways {
		for _, l := range g.Listeners {
			names = append(names, l.Name)
		}
	}
	return names
}

// completeEntry completes the name of an entry, then the directory.
func completeEntry(names func(*policy.Model) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return namesOf(nearby(), names), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// urls are the hosts of policies as they may be asked for. A wildcard stands for too many.
func urls() []string {
	var all []string
	for _, m := range nearby() {
		for _, routes := range m.Bound {
			for _, r := range routes {
				scheme := "http://"
				if slices.ContainsFunc(r.Gateway.Listeners, func(l *policy.Listener) bool { return r.On(l) && l.Protocol == policy.HTTPS }) {
					scheme = "https://"
				}
				for _, host := range r.Hostnames {
					if !strings.Contains(host, "*") && !r.Layer4 {
						all = append(all, scheme+host+"/")
					}
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
