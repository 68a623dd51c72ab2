package xds

import (
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

func TestVersionsAreContentHashes(t *testing.T) {
	t.Parallel()
	if a, b := cluster("a", "1"), cluster("a", "1"); a.Version != b.Version {
		t.Errorf("equal clusters have the versions %s and %s", a.Version, b.Version)
	}
	if a, b := cluster("a", "1"), cluster("a", "2"); a.Version == b.Version {
		t.Error("different clusters have the same version")
	}
	m := &clusterv3.Cluster{Name: "a"}
	if a, b := must(NewResource("a", m, "", "")), must(NewResource("a", m, "", "salt")); a.Version == b.Version {
		t.Error("the salt does not count")
	}
	one, two := usual(t, "1")["edge"], usual(t, "2")["edge"]
	var backward []Resource
	for _, of := range two.sets {
		for _, e := range slices.Backward(of.sorted) {
			backward = append(backward, e.Resource)
		}
	}
	reversed, err := NewSnapshot("3", backward)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{cds, eds, rds, lds, sds} {
		if one.Version(url) != two.Version(url) || one.Version(url) != reversed.Version(url) {
			t.Errorf("%s: versions %s, %s, %s; want them equal", url, one.Version(url), two.Version(url), reversed.Version(url))
		}
	}
	if one.Len(cds) != 1 || one.Len(sds) != 0 || one.revision != "1" {
		t.Errorf("%d clusters, %d secrets, revision %s", one.Len(cds), one.Len(sds), one.revision)
	}
}

func TestSnapshotTellsAllThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := NewSnapshot("1", []Resource{cluster("a", "1"), cluster("a", "2"), {Type: cds, Name: "b", Version: "1"}, {}})
	for _, want := range []string{`cluster "a" is there twice (policy.yaml:1:1 and policy.yaml:1:1)`, `cluster "b": no body`, "each of them has to be set"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to have %q", err, want)
		}
	}
	if _, err := NewSnapshot("", nil); err == nil {
		t.Error("a snapshot without a revision was taken")
	}
	if _, err := NewResource("", &clusterv3.Cluster{}, "", ""); err == nil {
		t.Error("a resource without a name was taken")
	}
}
