package examples

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each policy file tells editors of the schema that make build writes.
func TestExamplesNameTheirSchema(t *testing.T) {
	found := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		found++
		text, err := os.ReadFile(path)
		want := "\n# yaml-language-server: $schema=" + strings.Repeat("../", strings.Count(path, "/")+1) + ".legation-schema.json\n"
		if !strings.HasSuffix(string(text), want) {
			t.Errorf("%s does not end with %q", path, want)
		}
		return err
	})
	if err != nil || found == 0 {
		t.Errorf("%d files, %v", found, err)
	}
}
