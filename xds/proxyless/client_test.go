package proxyless

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/xds"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// caller calls the service once and tells which backend has answered.
type caller func() (backend string, err error)

// goClient is gRPC's client for Go.
func goClient(t *testing.T, p *plane) caller {
	t.Helper()
	resolver, err := xds.NewXDSResolverWithConfigForTesting([]byte(p.bootstrap("go")))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+service, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for {
			var name wrapperspb.StringValue
			err := conn.Invoke(ctx, "/test.Backend/Name", &emptypb.Empty{}, &name)
			// The client fails calls that it has routed by a new table before its own balancer has that: no server can help it.
			if err == nil || !strings.Contains(err.Error(), "unknown cluster selected for RPC") {
				return name.GetValue(), err
			}
		}
	}
}

// nodeClient is gRPC's client for Node, in a process of its own.
func nodeClient(t *testing.T, p *plane) caller {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node on PATH: gRPC's client for Node is not tested")
	}
	folder := os.Getenv("LEGATION_GRPC_JS")
	if folder == "" {
		folder = "../../.tools/grpc-js"
	}
	modules, err := filepath.Abs(filepath.Join(folder, "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules); err != nil {
		t.Skipf("no gRPC client for Node (scripts/fetch-grpc-js.sh .tools/grpc-js fetches it): %v", err)
	}
	cmd := exec.Command(node, "testdata/client.js", "xds:///"+service)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "GRPC_XDS_BOOTSTRAP_CONFIG="+p.bootstrap("node"))
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // which ends it
		cmd.Wait()
	})
	lines := bufio.NewReader(out)
	return func() (string, error) {
		if _, err := io.WriteString(in, "call\n"); err != nil {
			return "", err
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("the client ended: %w", err)
		}
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			return name, nil
		}
		return "", errors.New(strings.TrimSpace(line))
	}
}

// becomes calls until that backend answers. No call may fail meanwhile.
func (call caller) becomes(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		got, err := call()
		if err != nil {
			t.Fatalf("on the way to %s: %v", want, err)
		}
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("calls still go to %s, want %s", got, want)
		}
	}
}

// fails calls until a call fails.
func (call caller) fails(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if _, err := call(); err != nil {
			return
		}
	}
	t.Fatal("calls go on without a listener")
}

// recovers calls until a call succeeds again.
func (call caller) recovers(t *testing.T, want string) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		var got string
		if got, last = call(); last == nil && got == want {
			return
		}
	}
	t.Fatalf("no call gets to %s: %v", want, last)
}

func TestProxylessService(t *testing.T) {
	for name, client := range map[string]func(*testing.T, *plane) caller{"go": goClient, "node": nodeClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			one, two, three := backend(t, "one"), backend(t, "two"), backend(t, "three")
			p.serve(listener("routes"), routes("routes", map[string]uint32{"a": 1}), cluster("a"), endpoints("a", one))
			call := client(t, p)
			call.becomes(t, "one")

			p.serve(listener("routes"), routes("routes", map[string]uint32{"a": 1}), cluster("a"), endpoints("a", two))
			call.becomes(t, "two")

			p.serve(listener("routes"), routes("routes", map[string]uint32{"b": 1}), cluster("b"), endpoints("b", three))
			call.becomes(t, "three") // with what it needs added and what it had removed, in one change

			p.serve(listener("routes"), routes("routes", map[string]uint32{"a": 1, "b": 3}), cluster("a"), endpoints("a", one), cluster("b"), endpoints("b", three))
			call.becomes(t, "one")
			split(t, call)

			p.serve(routes("routes", map[string]uint32{"b": 1}), cluster("b"), endpoints("b", three))
			call.fails(t)
			// It comes back another one: gRPC's client for Node takes no notice of one that comes back as it was.
			p.serve(listener("other"), routes("other", map[string]uint32{"b": 1}), cluster("b"), endpoints("b", three))
			call.recovers(t, "three")

			p.stop()
			for range 20 {
				call.becomes(t, "three") // without a control plane
			}
			p.start()
			p.serve(listener("other"), routes("other", map[string]uint32{"b": 1}), cluster("b"), endpoints("b", one))
			call.becomes(t, "one")
		})
	}
}

// split checks that of four calls about one goes to the first.
func split(t *testing.T, call caller) {
	t.Helper()
	const calls = 400
	first := 0
	for range calls {
		got, err := call()
		if err != nil {
			t.Fatal(err)
		}
		if got == "one" {
			first++
		}
	}
	if first < calls/8 || first > calls*3/8 { // almost six standard deviations around 100
		t.Errorf("%d of %d calls went to the first of two that weigh 1 and 3", first, calls)
	}
}
