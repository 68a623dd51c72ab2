package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/legation/legation/control"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/spf13/pflag"
)

// secretsFlag adds --secrets-dir.
func secretsFlag(f *pflag.FlagSet) {
	f.String("secrets-dir", "", "directory of the secrets that the policy names; what is not there is looked for in LEGATION_SECRET_…")
}

// loadModel loads a policy with its secrets. Without a directory of them they are looked up only if the environment has
// them all: where policies are written, there often are none. Those that were not looked up are told by their IDs.
func loadModel(files policy.Files, secretsDir string) (m *policy.Model, problems policy.Problems, unknown []string) {
	without := feature.Language()
	with := without.WithSecrets(control.Secrets{Dir: secretsDir}.Read())
	if secretsDir == "" {
		if m, problems = without.Load(files); m == nil {
			return nil, problems, nil
		}
		if ids, inEnvironment := lookedFor(m.Secrets); len(ids) == 0 || !inEnvironment {
			return m, append(problems, control.Expiring(m, time.Now())...), ids
		}
	}
	m, problems = with.Load(files)
	return m, append(problems, control.Expiring(m, time.Now())...), nil
}

// lookedFor is the IDs of the secrets that don't lie beside the policy, and whether the environment has all of them.
func lookedFor(secrets []*policy.Secret) (ids []string, inEnvironment bool) {
	inEnvironment = true
	for _, s := range secrets {
		names := s.Files()
		for _, name := range names {
			_, ok := os.LookupEnv(policy.SecretVariable(name))
			inEnvironment = inEnvironment && ok
		}
		if len(names) > 0 {
			ids = append(ids, s.ID())
		}
	}
	return ids, inEnvironment
}

// noteUnknown tells that secrets were not looked up.
func noteUnknown(w io.Writer, ids []string) {
	if n := len(ids); n > 0 {
		fmt.Fprintf(w, "note: %d %s not looked up: say --secrets-dir\n", n, plural(n, "secret", "secrets"))
	}
}
