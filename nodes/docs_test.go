package nodes

import (
	"os"
	"strings"
	"testing"

	"github.com/legation/legation/auth/tokentest"
)

// The files that the documentation shows are good.
func TestDocsShowGoodFiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, block := range strings.Split(string(text), "```yaml settings\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.HasPrefix(block, "nodes:") && !strings.HasPrefix(block, "tokens:") {
			continue
		}
		tried++
		if _, err := New(Options{Path: write(t, map[string]string{"nodes.yaml": block, "keys.json": string(tokentest.JWKS())})}); err != nil {
			t.Error(err)
		}
	}
	if tried != 2 {
		t.Errorf("found %d files, want 2", tried)
	}
}
