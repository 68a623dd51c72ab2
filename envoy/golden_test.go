package envoy_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what came out into the golden files")

// TestGolden holds what Envoy is served for a policy: testdata/*.txtar has policy files (*.yaml) and, by the kind of
// resource, what comes out of them: listeners.json, routes.json, scopes.json, clusters.json, endpoints.json and
// secrets.json, which are without their contents; only those that are there are compared. errors.txt is there instead when
// Envoy can't be told the policy. The real Envoy has to take the static form of each.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { golden(t, path) })
	}
}

func golden(t *testing.T, path string) {
	t.Parallel()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	policies := make(policy.Files)
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".yaml") {
			policies[f.Name] = f.Data
		}
	}
	language := policy.New(testKinds...)
	m, problems := language.Load(policies)
	if m == nil {
		t.Fatalf("the policy is bad: %v", problems)
	}
	resources, err := envoy.Translate(m, language.Kinds())
	for i, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".yaml") {
			continue
		}
		got := []byte(errorText(err))
		if name, ok := strings.CutSuffix(f.Name, ".json"); ok {
			got = rendered(t, resources, name)
		}
		if *update {
			archive.Files[i].Data = got
		} else if diff := cmp.Diff(string(f.Data), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", f.Name, diff)
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for group, list := range resources {
		valid(t, group, list)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error() + "\n"
}

// rendered is the resources of one kind, by gateway.
func rendered(t *testing.T, resources map[string][]envoy.Resource, kind string) []byte {
	t.Helper()
	types := map[string]string{
		"listeners": "config.listener.v3.Listener", "routes": "config.route.v3.RouteConfiguration",
		"scopes": "config.route.v3.ScopedRouteConfiguration", "clusters": "config.cluster.v3.Cluster",
		"endpoints": "config.endpoint.v3.ClusterLoadAssignment", "secrets": "tls.v3.Secret",
	}
	type one struct {
		Pos     string          `json:"pos"`
		Salted  bool            `json:"salted,omitempty"`
		Message json.RawMessage `json:"message"`
	}
	out := make(map[string]map[string]one)
	for group, list := range resources {
		out[group] = make(map[string]one)
		for _, r := range list {
			if !strings.HasSuffix(r.Type, types[kind]) {
				continue
			}
			text, err := envoy.JSON(r.Message)
			if err != nil {
				t.Fatal(err)
			}
			out[group][r.Name] = one{r.Pos.String(), r.Salt != "", text}
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// valid asks the real Envoy, if there is one, whether it takes the static form.
func valid(t *testing.T, group string, list []envoy.Resource) {
	t.Helper()
	b, err := envoy.Static(list, envoy.BootstrapOptions{Group: group})
	if err != nil {
		t.Fatal(err)
	}
	binary, _, err := envoy.Find("")
	if err != nil {
		t.Logf("not validated: %v", err)
		return
	}
	if err := envoy.Validate(t.Context(), binary, b); err != nil {
		t.Error(err)
	}
}
