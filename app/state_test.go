package app

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// claimFor makes the test binary a process that claims a data directory, and keeps it until its standard input ends.
const claimFor = "LEGATION_TEST_CLAIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(claimFor); dir != "" {
		s, err := claim(dir)
		fmt.Println(s.taken, err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // without a release, as if killed
	}
	os.Exit(m.Run())
}

func TestDataDirectoryHasOneOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made/for/us")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), claimFor+"="+dir)
	in, err := other.StdinPipe()
	must(t, err)
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	t.Cleanup(func() { _ = in.Close(); _ = other.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "false <nil>\n" {
		t.Fatalf("the other process: got %q, %v", line, err)
	}

	s, err := claim(dir)
	if err != nil || !s.taken || s.dir != "" {
		t.Errorf("while the other process has it: got %+v, %v, want it taken", s, err)
	}
	must(t, s.release())

	must(t, in.Close())
	must(t, other.Wait())
	if s, err = claim(dir); err != nil || s.taken || s.dir != dir {
		t.Errorf("once that process is gone: got %+v, %v, want it ours", s, err)
	}
	if second, err := claim(dir); err != nil || !second.taken {
		t.Errorf("a second claim: got %+v, %v, want it taken", second, err)
	}
	must(t, s.release())
	if s, err = claim(dir); err != nil || s.taken {
		t.Errorf("after the release: got %+v, %v", s, err)
	}
	must(t, s.release())
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v, want mode 0700", info.Mode(), err)
	}
}

func TestNoDataDirectory(t *testing.T) {
	t.Parallel()
	s, err := claim("")
	if err != nil || s.taken || s.dir != "" || s.release() != nil {
		t.Errorf("got %+v, %v, want nothing", s, err)
	}
	file := write(t, filepath.Join(t.TempDir(), "file"), "")
	if _, err := claim(filepath.Join(file, "data")); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("below a file: got %v, want an error of --data-dir", err)
	}
}

// A second process serves all the same; it keeps nothing, and is told so.
func TestSecondProcessKeepsNothing(t *testing.T) {
	t.Parallel()
	data, dir := t.TempDir(), policyDir(t, quickstart)
	first := assemble(t, Options{Dir: dir, DataDir: data})
	second := assemble(t, Options{Dir: dir, DataDir: data})
	if first.stateDir() != data || second.state.dir != "" || second.stateDir() == data {
		t.Errorf("the first has %q, the second %q", first.stateDir(), second.stateDir())
	}
}
