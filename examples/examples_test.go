package examples

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each policy file tells editors of the schema that make build writes, and so does each file of cases.
func TestExamplesNameTheirSchema(t *testing.T) {
	found := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		found++
		text, err := os.ReadFile(path)
		schema := ".legation-schema.json"
		if strings.HasSuffix(path, "_test.yaml") {
			schema = ".legation-test.schema.json"
		}
		want := "\n# yaml-language-server: $schema=" + strings.Repeat("../", strings.Count(path, "/")+1) + schema + "\n"
		if !strings.HasSuffix(string(text), want) {
			t.Errorf("%s does not end with %q", path, want)
		}
		return err
	})
	if err != nil || found == 0 {
		t.Errorf("%d files, %v", found, err)
	}
}
