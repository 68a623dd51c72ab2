package envoy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

var (
	// The version stands in "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL".
	versionPattern = regexp.MustCompile(`/(\d+\.\d+\.\d+)[^/]*/`)
	// tested is the versions whose behaviour ours relies on.
	tested = regexp.MustCompile(`^1\.4\d\.`)
)

// Find looks for an Envoy and asks for its version: the explicit path, $LEGATION_ENVOY, envoy on PATH if it is 1.40 or
// a later 1.4x, then .tools/envoy-*/envoy in the working directory or above it.
func Find(explicit string) (path, version string, err error) {
	if explicit != "" {
		version, err := versionOf(explicit)
		return explicit, version, err
	}
	if path := os.Getenv("LEGATION_ENVOY"); path != "" {
		version, err := versionOf(path)
		if err != nil {
			return "", "", fmt.Errorf("LEGATION_ENVOY: %w", err)
		}
		return path, version, nil
	}
	var tried []error
	candidates := tools()
	if path, err := exec.LookPath("envoy"); err == nil {
		candidates = slices.Insert(candidates, 0, path)
	}
	for _, path := range candidates {
		version, err := versionOf(path)
		if err == nil && !Tested(version) {
			err = fmt.Errorf("%s is version %s, not 1.4x", path, version)
		}
		if err == nil {
			return path, version, nil
		}
		tried = append(tried, err)
	}
	missing := errors.New("no Envoy 1.4x found: put one on PATH, name it with --envoy or LEGATION_ENVOY, or run make envoy")
	return "", "", errors.Join(append([]error{missing}, tried...)...)
}

// tools is the Envoys that make envoy has fetched, newest first, the nearest directory's before those above it.
func tools() []string {
	dir, err := os.Getwd()
	if err != nil {
		return nil
	}
	var all []string
	for {
		found, _ := filepath.Glob(filepath.Join(dir, ".tools", "envoy-*", "envoy"))
		slices.Reverse(found)
		all = append(all, found...)
		up := filepath.Dir(dir)
		if up == dir {
			return all
		}
		dir = up
	}
}

// Tested tells whether our behaviour was tested with an Envoy of this version.
func Tested(version string) bool { return tested.MatchString(version) }

func versionOf(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s does not say an Envoy version: %.80q", path, out)
	}
	return string(m[1]), nil
}
