package app

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

var update = flag.Bool("update", false, "write the goldens anew")

// Each testdata/tour/NAME.yaml is a policy; NAME.txt is what the tour says of it.
func TestTour(t *testing.T) {
	t.Parallel()
	policies, err := filepath.Glob("testdata/tour/*.yaml")
	must(t, err)
	for _, file := range policies {
		text, err := os.ReadFile(file)
		must(t, err)
		m := model(t, string(text))
		out := &output{}
		p := &process{o: Options{Dir: "policy/", Out: out}, ports: []port{{name: "admin", address: DefaultAdmin}}}
		var children []child
		for i, g := range m.Gateways {
			admin, err := nthPort(DefaultEnvoyAdmin, i)
			must(t, err)
			children = append(children, child{gateway: g.Name, admin: admin})
		}
		p.tour(m, children)
		got := strings.ReplaceAll(out.String(), os.Args[0], "legation")
		golden := strings.TrimSuffix(file, ".yaml") + ".txt"
		if *update {
			must(t, os.WriteFile(golden, []byte(got), 0o644))
			continue
		}
		want, err := os.ReadFile(golden)
		must(t, err)
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got), or run with -update:\n%s", golden, diff)
		}
	}
	if len(policies) == 0 {
		t.Error("there are no policies")
	}
}

func TestVisible(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{"0.0.0.0": "127.0.0.1", "::": "::1", "127.0.0.1": "127.0.0.1", "10.0.0.5": "10.0.0.5"} {
		if got := visible(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

func TestShell(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"http://localhost:1/a": "http://localhost:1/a",
		"http://a/?x=1&y=2":    "'http://a/?x=1&y=2'",
		"it's":                 `'it'\''s'`,
		"$(reboot)":            "'$(reboot)'",
		"a b":                  "'a b'",
	} {
		if got := shell(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for want, limit := range map[string]ratelimit.Limit{
		"a second":   {Rate: ratelimit.Rate{Window: time.Second}},
		"a minute":   {Rate: ratelimit.Rate{Window: time.Minute}},
		"an hour":    {Rate: ratelimit.Rate{Window: time.Hour}},
		"a day":      {Rate: ratelimit.Rate{Window: 24 * time.Hour}},
		"each 1m30s": {Rate: ratelimit.Rate{Window: 90 * time.Second}},
		"at once":    {Rate: ratelimit.Rate{Window: time.Second, Algorithm: store.GCRA, Burst: 5}},
	} {
		if got := window(limit); got != want {
			t.Errorf("%+v: got %s, want %s", limit, got, want)
		}
	}
}

func TestNthPort(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		address string
		n       int
		want    string
	}{
		{"127.0.0.1:19000", 0, "127.0.0.1:19000"},
		{"127.0.0.1:19000", 2, "127.0.0.1:19002"},
		{"[::1]:19000", 1, "[::1]:19001"},
		{"127.0.0.1:65535", 0, "127.0.0.1:65535"},
		{"127.0.0.1:65535", 1, ""},
		{"127.0.0.1:admin", 1, ""},
		{"127.0.0.1", 1, ""},
	} {
		got, err := nthPort(row.address, row.n)
		if got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%s and %d: got %q, %v, want %q", row.address, row.n, got, err, row.want)
		}
	}
}
