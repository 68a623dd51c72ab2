package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/legation/legation/auth"
)

// companion asks the companion port itself, as an Envoy does.
type companion struct {
	*plane
	client authv3.AuthorizationClient
}

// replicas is processes of one policy, which counts nothing, on one Redis.
func replicas(t *testing.T, n int, redis string) []companion {
	t.Helper()
	policy := edge(ports(t, 1)[0], upstream(t, "app"))
	policy = strings.ReplaceAll(policy, "    rateLimit: {rate: 100/day, by: consumer}\n", "")
	dir := policyDir(t, policy)
	var all []companion
	for range n {
		p := newPlane(t, dir)
		p.serve(t, "--redis", redis, "--redis-timeout", "100ms")
		all = append(all, companion{p, p.dial(t)})
	}
	return all
}

func (p *plane) dial(t *testing.T) authv3.AuthorizationClient {
	t.Helper()
	c, err := grpc.NewClient(p.companion, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return authv3.NewAuthorizationClient(c)
}

// asks gives the reason of the refusal of a token; empty when it passes.
func (c companion) asks(token string) (reason string, err error) {
	a, err := c.client.Check(context.Background(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{auth.RuleExtension: "edge/private"},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/private", Host: "localhost", Headers: map[string]string{"authorization": "Bearer " + token},
		}},
	}}, grpc.WaitForReady(true))
	return a.GetDynamicMetadata().GetFields()["reason"].GetStringValue(), err
}

// await waits until every replica gives that reason for the token.
func await(t *testing.T, all []companion, token, reason string) time.Duration {
	t.Helper()
	begin := time.Now()
	for i, c := range all {
		eventually(t, fmt.Sprintf("replica %d to say %q", i, reason), func() error {
			got, err := c.asks(token)
			if err == nil && got != reason {
				err = fmt.Errorf("it says %q", got)
			}
			return err
		})
	}
	return time.Since(begin)
}

// revoke revokes by the verb.
func revoke(t *testing.T, p *plane, args ...string) {
	t.Helper()
	if out, status := legation(t, append(append([]string{"revoke"}, args...), "--server", p.admin)...); status != 0 {
		t.Fatalf("revoke %v: %d %s", args, status, out)
	}
}

func readiness(t *testing.T, p *plane) string {
	t.Helper()
	return mustRequest(t, "GET", "http://"+p.admin+"/readyz").body
}

// What one process revokes, the others refuse within a second.
func TestRevocationReachesEveryReplica(t *testing.T) {
	t.Parallel()
	url, _ := redis(t)
	all := replicas(t, 2, url)
	var took []time.Duration
	for i := range 20 {
		subject := fmt.Sprint("user-", i)
		held := token(t, subject)
		await(t, all, held, "")
		body := fmt.Sprintf(`{"name": "subject:demo/%s"}`, subject)
		r, err := http.Post("http://"+all[i%2].admin+"/revocations", "application/json", strings.NewReader(body))
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatal(r, err)
		}
		r.Body.Close()
		took = append(took, await(t, all, held, "revoked"))
	}
	slices.Sort(took)
	t.Logf("after the answer to who revoked, all refused in %s (median), %s (worst of %d)", took[len(took)/2], took[len(took)-1], len(took))
	if worst := took[len(took)-1]; worst > time.Second {
		t.Errorf("it took %s, more than a second", worst)
	}
	held := token(t, "user-1", "--claim", "iat=1000000000")
	await(t, all, held, "revoked")
	revoke(t, all[1].plane, "undo", "subject:demo/user-1")
	await(t, all, held, "")
}

// A Redis that is killed and comes back empty takes no revocation back, and learns of them again.
func TestRevocationsOutliveRedis(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	server := redisAt(t, port)
	url := fmt.Sprintf("redis://127.0.0.1:%d", port)
	all := replicas(t, 2, url)
	good := token(t, "good")
	stolen := map[string]string{ // by what is revoked
		"subject demo/alice": token(t, "alice"),
		"jti demo/7":         token(t, "bob", "--claim", "jti=\"7\""),
	}
	one := token(t, "carol")
	stolen["token "+one] = one
	refused := func() {
		t.Helper()
		for _, held := range stolen {
			await(t, all, held, "revoked")
		}
		await(t, all, good, "")
	}
	for what, held := range stolen {
		await(t, all, held, "")
		revoke(t, all[0].plane, strings.Fields(what)...)
	}
	refused()
	server.kill()
	for i, c := range all {
		eventually(t, "the loss to be told", func() error {
			if s := c.status(t); s.Shared == nil || s.Shared.OK {
				return fmt.Errorf("replica %d: %+v", i, s.Shared)
			}
			return nil
		})
		for _, held := range stolen {
			if got, err := c.asks(held); got != "revoked" || err != nil {
				t.Errorf("without Redis replica %d says %q, %v", i, got, err)
			}
		}
		if got, err := c.asks(good); got != "" || err != nil {
			t.Errorf("without Redis replica %d says %q of a good token, %v", i, got, err)
		}
	}
	if out, status := legation(t, "revoke", "session", "x", "--server", all[0].admin); status != 1 || !strings.Contains(out, "503") {
		t.Errorf("revoked without Redis: %d %s", status, out)
	}
	redisAt(t, port)
	for _, c := range all {
		eventually(t, "Redis to be back", func() error {
			if s := c.status(t); !s.Shared.OK {
				return fmt.Errorf("%+v", s.Shared)
			}
			return nil
		})
	}
	refused()
	fresh := newPlane(t, all[0].dir) // one that has no copy of its own
	fresh.serve(t, "--redis", url, "--redis-timeout", "100ms")
	all = append(all, companion{fresh, fresh.dial(t)})
	refused()
}

// A process that starts while Redis is away goes by its own copy; one that has none lets nobody in.
func TestRevocationsOutliveAProcessWithoutRedis(t *testing.T) {
	t.Parallel()
	url, server := redis(t)
	all := replicas(t, 1, url)
	held, good := token(t, "alice"), token(t, "good")
	await(t, all, good, "")
	revoke(t, all[0].plane, "subject", "demo/alice")
	await(t, all, held, "revoked")
	eventually(t, "the copy on disk", func() error { // within a second: that it is whole, and what was revoked
		text, err := os.ReadFile(filepath.Join(all[0].data, "counts.shared"))
		if err == nil && (!bytes.Contains(text, []byte("k\x07revoked")) || !bytes.Contains(text, []byte("subject:demo/alice"))) {
			err = fmt.Errorf("%d bytes", len(text))
		}
		return err
	})
	server.kill()
	all[0].kill()
	all[0].serve(t, "--redis", url)
	await(t, all, held, "revoked")
	await(t, all, good, "")
	if got := readiness(t, all[0].plane); !strings.Contains(got, "shared store: ") || strings.Contains(got, "revocations: not known") {
		t.Error(got)
	}

	fresh := newPlane(t, all[0].dir)
	fresh.serve(t, "--redis", url)
	await(t, []companion{{fresh, fresh.dial(t)}}, good, "revocations_unknown")
	if got := readiness(t, fresh); !strings.Contains(got, "revocations: not known yet") {
		t.Error(got)
	}
}

// Without Redis the process keeps what was revoked itself, and a kill takes none of it back.
func TestRevocationsOutliveAKill(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	p := newPlane(t, policyDir(t, edge(port, upstream(t, "app"))))
	p.serve(t)
	p.envoy(t, "edge")
	held := token(t, "alice")
	status := func(want int) func() error {
		return func() error {
			a := mustRequest(t, "GET", fmt.Sprintf("http://localhost:%d/private", port), "Authorization", "Bearer "+held)
			if a.status != want {
				return fmt.Errorf("got %d %s", a.status, a.body)
			}
			return nil
		}
	}
	eventually(t, "the token to pass", status(200))
	revoke(t, p, "consumer", "other")
	revoke(t, p, "token", held, "--reason", "stolen")
	if err := status(401)(); err != nil {
		t.Errorf("revoked here: %v", err)
	}
	p.kill()
	p.serve(t)
	eventually(t, "the answer after a kill", func() error { // Envoy comes back in its own time, and answers 503 before
		err := status(401)()
		if err != nil && !strings.Contains(err.Error(), "503") {
			t.Fatal(err)
		}
		return err
	})
	if s := p.status(t); s.Shared == nil || !s.Shared.OK || s.Shared.Kind != "embedded" {
		t.Errorf("%+v", s.Shared)
	}
}
