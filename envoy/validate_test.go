package envoy_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

func brokenSocket() *corev3.TransportSocket { return &corev3.TransportSocket{Name: "no.such.socket"} }

func TestValidateTellsEnvoysWords(t *testing.T) {
	binary := realEnvoy(t)
	b := emptyBootstrap("edge")
	if err := envoy.Validate(t.Context(), binary, b); err != nil {
		t.Errorf("a good bootstrap: %v", err)
	}
	b.StaticResources.Clusters[0].TransportSocket = brokenSocket()
	err := envoy.Validate(t.Context(), binary, b)
	if err == nil || !strings.Contains(err.Error(), "no.such.socket") || strings.Contains(err.Error(), os.TempDir()) {
		t.Errorf("a bad bootstrap: %v", err)
	}
	t.Log(err)
	b = emptyBootstrap("edge")
	b.StaticResources.Clusters[0].ConnectTimeout = durationpb.New(0) // of a message that Envoy then shows whole
	if err = envoy.Validate(t.Context(), binary, b); err == nil || strings.Contains(err.Error(), "goo.gle/") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a bad cluster: %v, want what is wrong alone", err)
	}
	t.Log(err)
}

// A listener with tables per host that has no host yet is good, and served; Envoy takes no empty list of them.
func TestNoHostsYet(t *testing.T) {
	l := httpListener("http")
	l.PerHost = true
	resources, err := envoy.Translate(modelOf([]*policy.Listener{l}), testKinds)
	if err != nil {
		t.Fatal(err)
	}
	b, err := envoy.Static(resources["edge"], envoy.BootstrapOptions{Group: "edge"})
	if err != nil {
		t.Fatal(err)
	}
	if err := envoy.Validate(t.Context(), realEnvoy(t), b); err != nil {
		t.Error(err)
	}
}

func TestBootstrapIsTaken(t *testing.T) {
	binary := realEnvoy(t)
	for name, o := range map[string]envoy.BootstrapOptions{
		"zero":         {},
		"in a zone":    {Group: "edge", Zone: "eu-1a"},
		"two servers":  {Group: "edge", XDS: "127.0.0.1:18000, 127.0.0.2:18000", Companion: "companion.test:18001"},
		"IPv6 and TLS": withTLS(t, envoy.BootstrapOptions{Group: "edge", Node: "edge-1", XDS: "[::1]:18000,xds.test:18000"}),
	} {
		if err := envoy.Validate(t.Context(), binary, envoy.Bootstrap(o)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	fake := func(t *testing.T, version string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "envoy")
		script := "#!/bin/sh\necho 'envoy  version: 9e55/" + version + "/Clean/RELEASE/BoringSSL'\n"
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("LEGATION_ENVOY", "")
	t.Chdir(t.TempDir())
	old := fake(t, "1.36.2")
	t.Setenv("PATH", filepath.Dir(old)+":/bin:/usr/bin")
	if _, _, err := envoy.Find(""); err == nil || !strings.Contains(err.Error(), "1.36.2") {
		t.Errorf("an old one on PATH: %v", err)
	}
	good := fake(t, "1.40.3")
	t.Setenv("PATH", filepath.Dir(good)+":/bin:/usr/bin")
	if path, version, err := envoy.Find(""); path != good || version != "1.40.3" || err != nil {
		t.Errorf("on PATH: %s %s %v", path, version, err)
	}
	t.Setenv("LEGATION_ENVOY", old)
	if path, version, err := envoy.Find(""); path != old || version != "1.36.2" || err != nil {
		t.Errorf("by LEGATION_ENVOY, whatever its version: %s %s %v", path, version, err)
	}
	if path, _, err := envoy.Find(good); path != good || err != nil {
		t.Errorf("explicit: %s %v", path, err)
	}
}

// What the environment holds for Legation, secrets among it, is not for its children.
func TestEnvoyGetsNoneOfOurVariables(t *testing.T) {
	t.Setenv("LEGATION_SECRET_WORD", "planted")
	t.Setenv("OTHER", "passed on")
	binary := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nenv\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	check := func(way, said string) {
		if strings.Contains(said, "planted") || !strings.Contains(said, "passed on") {
			t.Errorf("%s: the child has %s", way, said)
		}
	}
	err := envoy.Validate(t.Context(), binary, emptyBootstrap("edge"))
	check("validate", err.Error())
	var said bytes.Buffer
	o := processOptions(binary, t.TempDir(), "edge")
	o.Log = &said
	p, err := envoy.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	check("start", said.String())
}

// An Envoy that was killed has not refused anything; one that crashes has, and what a wrapper started ends with it.
func TestHowEnvoyEndsIsToldApart(t *testing.T) {
	b := emptyBootstrap("edge")
	for does, refuses := range map[string]bool{"exit 1": true, "kill -SEGV $$": true, "kill -KILL $$": false, "kill -TERM $$": false} {
		err := envoy.Validate(t.Context(), script(t, does), b)
		if _, ok := errors.AsType[*envoy.Refused](err); err == nil || ok != refuses {
			t.Errorf("%s: %v, want refused %t", does, err, refuses)
		}
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("too long"))
	defer cancel()
	err := envoy.Validate(ctx, script(t, "sleep 600 & sleep 600"), b)
	if _, ok := errors.AsType[*envoy.Refused](err); ok || err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("hanging: %v", err)
	}
}

// script is a program that stands for Envoy.
func script(t *testing.T, does string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+does+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
