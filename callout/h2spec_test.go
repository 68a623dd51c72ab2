package callout

import (
	"bytes"
	"context"
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"
)

// TestConformance runs h2spec, which knows the rules of HTTP/2 and HPACK one by one, against the loop and against
// grpc-go: the loop must keep every rule that grpc-go keeps. LEGATION_H2SPEC names the program.
func TestConformance(t *testing.T) {
	program := os.Getenv("LEGATION_H2SPEC")
	if program == "" {
		t.Skip("LEGATION_H2SPEC names no h2spec")
	}
	ours := h2spec(t, program, start(t, Options{}).addr)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := fallback(insecure.NewCredentials())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	theirs := h2spec(t, program, l.Addr().String())

	failures := func(all map[string]bool) (failed []string) {
		for name, ok := range all {
			if !ok {
				failed = append(failed, name)
			}
		}
		slices.Sort(failed)
		return failed
	}
	t.Logf("loop: %d rules, broken: %q", len(ours), failures(ours))
	t.Logf("grpc-go: %d rules, broken: %q", len(theirs), failures(theirs))
	for _, name := range failures(ours) {
		if theirs[name] {
			t.Errorf("grpc-go keeps it, the loop doesn't: %s", name)
		}
	}
}

// h2spec tells of every rule whether it was kept.
func h2spec(t *testing.T, program, addr string) map[string]bool {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	report := filepath.Join(t.TempDir(), "report.xml")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, program, "-h", host, "-p", port, "-P", echo, "-o", "1", "-j", report)
	out, _ := run.CombinedOutput() // it fails when a rule is broken
	raw, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var suites struct {
		Suite []struct {
			Package string `xml:"package,attr"`
			ID      string `xml:"id,attr"`
			Case    []struct {
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.NewDecoder(bytes.NewReader(raw)).Decode(&suites); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, s := range suites.Suite {
		for _, c := range s.Case {
			if c.Skipped == nil {
				all[s.Package+" "+c.Name] = c.Failure == nil && c.Error == nil
			}
		}
	}
	return all
}
