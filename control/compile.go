package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// Compiled is a policy in every form that it is served in.
type Compiled struct {
	Model     *policy.Model
	Resources map[string][]envoy.Resource // by gateway
	Auth      auth.Table
	Limits    ratelimit.Table
}

// Compile turns a model into what is served. The error holds the problems of what Envoy can't be told: see [Problems].
func Compile(m *policy.Model) (*Compiled, error) { return newCompiler().compile(m) }

// compiler compiles the models of one policy as it changes, each as [Compile] does: what has not changed it takes over.
type compiler struct {
	translator *envoy.Translator
	companions feature.Tables
}

func newCompiler() *compiler { return &compiler{translator: envoy.NewTranslator(feature.All())} }

func (c *compiler) compile(m *policy.Model) (*Compiled, error) {
	resources, err := c.translator.Translate(m)
	if err != nil {
		return nil, fmt.Errorf("translate the policy: %w", err)
	}
	compiled := &Compiled{Model: m, Resources: resources}
	compiled.Auth, compiled.Limits = c.companions.Companions(m)
	return compiled, nil
}

// Problems finds the policy problems that an error joins.
func Problems(err error) policy.Problems {
	if p, ok := err.(*policy.Problem); ok {
		return policy.Problems{p}
	}
	var found policy.Problems
	switch wrapped := err.(type) {
	case interface{ Unwrap() error }:
		found = Problems(wrapped.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range wrapped.Unwrap() {
			found = append(found, Problems(one)...)
		}
	}
	return found
}

// changedListeners is the listeners that both policies have and that differ: Envoy drains their connections.
func changedListeners(before, after *Compiled) []envoy.Resource {
	var changed []envoy.Resource
	for group, resources := range after.Resources {
		for _, c := range envoy.Changes(listeners(before.Resources[group]), listeners(resources)) {
			if c.Drains() && c.After != nil {
				changed = append(changed, *c.After)
			}
		}
	}
	return changed
}

func listeners(all []envoy.Resource) []envoy.Resource {
	return slices.DeleteFunc(slices.Clone(all), func(r envoy.Resource) bool { return r.Type != resource.ListenerType })
}

// errNoPolicy tells a directory without a policy from one with a bad policy: an empty directory is never served.
var errNoPolicy = errors.New("no policy files (*.yaml or *.yml)")

// ReadDir reads the policy directory. A directory that is missing, unreadable or without a policy file is an error;
// what is wrong with single files is in the problems. Links that lead out of the directory are not followed.
func ReadDir(dir string) (policy.Files, policy.Problems, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("policy directory: %w", err)
	}
	defer root.Close()
	files, problems := policy.ReadFiles(root.FS())
	if len(files) > 0 || len(problems) > 0 {
		return files, problems, nil
	}
	if _, err := fs.ReadDir(root.FS(), "."); err != nil {
		return nil, nil, fmt.Errorf("policy directory: %w", err)
	}
	return nil, nil, fmt.Errorf("policy directory %s: %w", dir, errNoPolicy)
}
