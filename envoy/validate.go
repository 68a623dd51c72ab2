package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
)

// Refused is that Envoy does not take a bootstrap.
type Refused struct{ Words string } // Envoy's own, without what is about this try alone

func (r *Refused) Error() string { return "envoy refuses the configuration: " + r.Words }

// Validate asks the real Envoy whether it would take the bootstrap. It takes some tenths of a second. The error is a
// [Refused], or that Envoy can't be asked. Certificates whose files are not on this machine are stood in for: those of Envoy's host are not to
// be had here, and secrets may have been left out.
func Validate(ctx context.Context, envoyPath string, b *bootstrapv3.Bootstrap) error {
	complete, err := withStandIns(b)
	if err != nil {
		return err
	}
	text, err := JSON(complete)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "legation-validate-")
	if err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, envoyPath, "--mode", "validate", "-c", path, "--use-dynamic-base-id", "-l", "error")
	cmd.Stdout, cmd.Stderr, cmd.Env = &said, &said, environment()
	// A group of its own, so that what a wrapper has started ends with it; and whoever holds on to our pipes is left.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("validate with %s: %w", envoyPath, context.Cause(ctx))
	}
	if refused, ok := errors.AsType[*exec.ExitError](err); ok {
		if from, killed := killedBy(refused); killed {
			return fmt.Errorf("validate with %s: it was ended from outside: %s", envoyPath, from)
		}
		return &Refused{words(said.String(), path, refused)}
	}
	if err != nil {
		return fmt.Errorf("validate with %s: %w", envoyPath, err)
	}
	return nil
}

// killedBy tells of an Envoy that did not end by itself, such as for want of memory. One that crashes over a configuration
// has refused it.
func killedBy(ended *exec.ExitError) (syscall.Signal, bool) {
	status, ok := ended.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, false
	}
	return status.Signal(), status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGTERM || status.Signal() == syscall.SIGINT
}

// logPrefix is "[2026-11-21 12:00:00.000][123][critical][main] [source/server/server.cc:456] ".
var logPrefix = regexp.MustCompile(`^\[[^\]]*\](\[[^\]]*\])+ (\[source/[^\]]*\] )?`)

// dump is a message that Envoy shows whole, hundreds of lines, before or behind what is wrong with it.
var dump = regexp.MustCompile(`(?ms)goo\.gle/debug\w*.*?(^: |\z)`)

// words is what Envoy said, without times, threads, dumps and our temporary file; each sentence once.
func words(said, path string, refused *exec.ExitError) string {
	var lines []string
	seen := make(map[string]bool)
	for line := range strings.Lines(dump.ReplaceAllString(said, "")) {
		line = logPrefix.ReplaceAllString(strings.TrimSpace(line), "")
		line = strings.TrimSuffix(strings.TrimPrefix(line, "error initializing configuration '"+path+"': "), ":")
		if line == "" || seen[line] {
			continue
		}
		seen[line] = true
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return refused.Error()
	}
	return strings.Join(lines, "\n")
}
