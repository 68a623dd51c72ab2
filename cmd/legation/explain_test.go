package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/explain"
)

func TestExplainJSON(t *testing.T) {
	t.Parallel()
	dir := policyDir(t, "policy.yaml", good)
	var e explain.Explanation
	asked(t, 1, &e, "explain", "post", "http://localhost:1/a//b", dir, "-H", "Host: LOCALHOST", "--listener", "http", "-o", "json")
	if e.Answer.By != explain.Door || e.Answer.Status != 400 || e.Path != "/a/b" || !e.Normalized {
		t.Errorf("post: got %+v", e)
	}
}

func TestExplainJSONOfARoute(t *testing.T) {
	t.Parallel()
	var e explain.Explanation
	asked(t, 0, &e, "explain", "http://localhost:10000/orders?x=1", "../../examples/quickstart", "-o", "json")
	if e.Answer.By != explain.Backend || e.Route == nil || e.Route.Name != "orders" || e.Calls != (explain.Calls{Before: 1}) || len(e.Filters) == 0 {
		t.Errorf("got %+v", e)
	}
	if len(e.Others) != 1 || e.Others[0].Name != "home" {
		t.Errorf("others: got %+v", e.Others)
	}
	asked(t, 1, &e, "explain", "http://nowhere:10000/", "../../examples/quickstart", "-o", "json")
	if e.Answer.By != explain.Nobody || e.Answer.Status != 404 || len(e.Hostnames) == 0 {
		t.Errorf("nowhere: got %+v", e)
	}
	var bad struct {
		OK       bool              `json:"ok"`
		Problems []json.RawMessage `json:"problems"`
	}
	asked(t, 1, &bad, "explain", "http://localhost/", policyDir(t, "policy.yaml", "routes: {a: {}}\n"), "-o", "json")
	if bad.OK || len(bad.Problems) == 0 {
		t.Errorf("a bad policy: got %+v", bad)
	}
}

// What the documentation shows of explain is what it says.
func TestExplainIsAsDocumented(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"../../docs/troubleshooting.md"} {
		text, err := os.ReadFile(file)
		must(t, err)
		shown := 0
		for _, block := range strings.Split(string(text), "```console\n") {
			command, rest, _ := strings.Cut(block, "\n")
			args, found := strings.CutPrefix(command, "$ legation explain ")
			if !found {
				continue
			}
			shown++
			want, _, _ := strings.Cut(rest, "```")
			words := strings.Fields(args)
			dir := &words[len(words)-1]
			*dir = filepath.Join("../..", *dir)
			status, got, errs := legation(append([]string{"explain"}, words...)...)
			if status == statusUsage || errs != "" {
				t.Errorf("%s: got %d %s", args, status, errs)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", file, args, diff)
			}
		}
		if shown == 0 {
			t.Errorf("%s shows no explain", file)
		}
	}
}
