package control

import (
	"testing"

	"github.com/legation/legation/policy"
)

// A candidate is compiled as it would be served, and nothing of it is.
func TestTryServesNothing(t *testing.T) {
	t.Parallel()
	c, reports := byHand(t, Options{Dir: tree(t, map[string]string{"policy.yaml": whole(1)})})
	if served, files := c.Served(); served != nil || files != nil {
		t.Errorf("before the first load: got %v and %d files", served, len(files))
	}
	c.Load()
	before, files := c.Served()
	if before == nil || before.Model.Revision != c.Outcome().Revision || len(files) != 1 {
		t.Fatalf("got %v and %d files", before, len(files))
	}
	compiled, problems, err := c.Try(policy.Files{"policy.yaml": []byte(whole(2))})
	if err != nil || len(problems) != 0 || compiled == nil || compiled.Model.Revision == before.Model.Revision || len(compiled.Resources["edge"]) == 0 {
		t.Errorf("another policy: got %v %v %v", compiled, problems, err)
	}
	if compiled, problems, err := c.Try(policy.Files{"policy.yaml": []byte("nonsense: 1\n")}); err != nil || compiled != nil || !problems.HasErrors() {
		t.Errorf("a bad one: got %v %v %v", compiled, problems, err)
	}
	if after, _ := c.Served(); after != before || len(*reports) != 1 {
		t.Errorf("got another policy, or %d reports", len(*reports))
	}
}
