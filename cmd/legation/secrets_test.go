package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/envoy/certtest"
)

const secured = `gateways: {edge: {listeners: {https: {port: 10443, address: 127.0.0.1, protocol: HTTPS, certificates: [{secret: tls/edge}]}}}}
services: {app: {endpoints: ["127.0.0.1:9001"]}}
routes: {app: {hostnames: [a.test], backends: {app: 1}}}
`

// secretsDir is a directory with the certificate of the policy above.
func secretsDir(t testing.TB) (dir string, c certtest.Certificate) {
	t.Helper()
	dir, c = t.TempDir(), certtest.NewAuthority(t, "ca").Issue(t, "a.test")
	must(t, os.Mkdir(filepath.Join(dir, "tls"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "tls/edge.crt"), c.Chain, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "tls/edge.key"), c.Key, 0o600))
	return dir, c
}

// check looks secrets up where it is told to, or where the environment has them all, and says what it did not look up.
func TestCheckSecrets(t *testing.T) {
	dir := policyDir(t, "policy.yaml", secured)
	secrets, c := secretsDir(t)
	const note, missing = "note: 1 secret not looked up: say --secrets-dir\n", "there is no secret tls/edge"
	for _, row := range []struct {
		name      string
		args      []string
		variables map[string]string
		file      string
		status    int
		says, not string
	}{
		{"nothing said", nil, nil, "", 0, note, missing},
		{"a flag", []string{"--secrets-dir", secrets}, nil, "", 0, "ok: ", note},
		{"a variable", nil, map[string]string{"SECRETS_DIR": secrets}, "", 0, "ok: ", note},
		{"legation.yaml", nil, nil, "secrets-dir: " + secrets + "\n", 0, "ok: ", note},
		{"an empty directory", []string{"--secrets-dir", t.TempDir()}, nil, "", 1, missing, note},
		{"no directory", []string{"--secrets-dir", "missing"}, nil, "", 1, "there is no secrets directory missing", note},
		{"the environment", nil, map[string]string{"SECRET_TLS_EDGE_CRT": string(c.Chain), "SECRET_TLS_EDGE_KEY": string(c.Key)}, "", 0, "ok: ", note},
		{"half of it in the environment", nil, map[string]string{"SECRET_TLS_EDGE_CRT": string(c.Chain)}, "", 0, note, missing},
		{"a bad one in the environment", nil, map[string]string{"SECRET_TLS_EDGE_CRT": string(c.Chain), "SECRET_TLS_EDGE_KEY": "bad"}, "", 1, "tls/edge.key", note},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for name, value := range row.variables {
				t.Setenv("LEGATION_"+name, value)
			}
			if row.file != "" {
				must(t, os.WriteFile(settingsFile, []byte(row.file), 0o600))
			}
			status, out, errs := legation(append([]string{"check", dir}, row.args...)...)
			if status != row.status || !strings.Contains(out, row.says) || strings.Contains(out, row.not) || errs != "" {
				t.Errorf("got %d %q %q, want %d and %q", status, out, errs, row.status, row.says)
			}
		})
	}
	var a report
	asked(t, 0, &a, "check", dir, "-o", "json")
	if !a.OK || len(a.NotLookedUp) != 1 || a.NotLookedUp[0] != "certificate/tls/edge" {
		t.Errorf("got %+v", a)
	}
}

// The real Envoy is asked with the secrets and without.
func TestCheckAsksEnvoyAboutSecrets(t *testing.T) {
	realEnvoy(t)
	dir := policyDir(t, "policy.yaml", secured)
	secrets, _ := secretsDir(t)
	for _, args := range [][]string{nil, {"--secrets-dir", secrets}} {
		if status, out, errs := legation(append([]string{"check", dir, "--envoy"}, args...)...); status != 0 {
			t.Errorf("%v: got %d %q %q", args, status, out, errs)
		}
	}
}

// render shows no secret: it leaves them out, or names their files; what else it has to say stands beside its output.
func TestRenderSecrets(t *testing.T) {
	dir := policyDir(t, "policy.yaml", secured)
	secrets, c := secretsDir(t)
	variables := map[string]string{"LEGATION_SECRET_TLS_EDGE_CRT": string(c.Chain), "LEGATION_SECRET_TLS_EDGE_KEY": string(c.Key)}
	const note, near = "note: 1 secret not looked up: say --secrets-dir\n", "warning: certificate/tls/edge expires on "
	for _, row := range []struct {
		name      string
		args      []string
		variables map[string]string
		out, errs string // part of each
	}{
		{"not looked up", nil, nil, `"filename": "tls/edge.key"`, note},
		{"looked up", []string{"--secrets-dir", secrets}, nil, `"inline_string": "[redacted]"`, near},
		{"in the environment", nil, variables, `"inline_string": "[redacted]"`, near},
		{"static", []string{"--static"}, nil, `"filename": "tls/edge.key"`, note},
		{"static, looked up", []string{"--static", "--secrets-dir", secrets}, nil, `"filename": "` + secrets + `/tls/edge.key"`, near},
		{"static, in the environment", []string{"--static"}, variables, `"filename": "tls/edge.key"`, near},
	} {
		t.Run(row.name, func(t *testing.T) {
			for name, value := range row.variables {
				t.Setenv(name, value)
			}
			status, out, errs := legation(append([]string{"render", dir}, row.args...)...)
			if status != 0 || !strings.Contains(out, row.out) || !strings.Contains(errs, row.errs) {
				t.Errorf("got %d %q, want %q and %q in %s", status, errs, row.errs, row.out, out)
			}
			if strings.Contains(out, strings.Split(string(c.Key), "\n")[1]) {
				t.Error("the key is shown")
			}
		})
	}
}
