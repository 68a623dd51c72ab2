package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The access log tells for each request which route answered, who called, what was decided, and by which revision.
func TestAccessLogTellsTheDecision(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	log := filepath.Join(t.TempDir(), "access.log")
	policy := strings.Replace(edge(port, upstream(t, "app")), "auth:\n", "    accessLog: {path: "+log+"}\nauth:\n", 1)
	policy = strings.Replace(policy, "100/day, by: consumer", "1/day, by: consumer", 1)
	policy = strings.Replace(policy, "routes:\n", "routes:\n  tight: {hostnames: [localhost], match: {path: /tight}, rateLimit: [{rate: 1/day}, {rate: 2/day, shadow: true}], "+
		"backends: {app: 1}}\n", 1)
	policy += "consumers:\n  acme: {jwt: {demo: alice}}\n"
	p := newPlane(t, policyDir(t, policy))
	p.serve(t, "--decision-log", "all")
	p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", port)
	answers(t, base+"/?key=secret")
	bearer := "Bearer " + token(t, "alice")
	for range 3 {
		mustRequest(t, "GET", base+"/tight")
	}
	mustRequest(t, "GET", base+"/private?key=secret", "Cookie", "session=secret", "X-Api-Key", "secret")
	mustRequest(t, "GET", base+"/private", "Authorization", bearer)
	mustRequest(t, "GET", base+"/private", "Authorization", bearer)

	for _, want := range []map[string]any{
		{"route": "open", "status": 200.0, "service": "app", "path": "/", "consumer": nil, "decision": nil},
		{"route": "private", "status": 401.0, "decision": "deny", "reason": "no_credentials", "consumer": nil},
		{"route": "private", "status": 200.0, "decision": "allow", "consumer": "acme", "provider": "demo", "service": "app"},
		{"route": "private", "status": 429.0, "decision": "deny", "reason": "limited", "consumer": "acme", "limit": "route/private/0"},
		{"route": "tight", "status": 200.0, "limit": nil, "shadow": nil},
		{"route": "tight", "status": 429.0, "limit": "route/tight/0", "shadow": nil},
		{"route": "tight", "status": 429.0, "limit": "route/tight/0", "shadow": "route/tight/1"},
	} {
		eventually(t, fmt.Sprint("a line with ", want), func() error { return hasLine(log, want) })
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret", strings.TrimPrefix(bearer, "Bearer ")} {
		if strings.Contains(string(text), secret) {
			t.Errorf("the log holds %q:\n%s", secret, text)
		}
	}
	for _, line := range []string{
		"decision=deny reason=no_credentials rule=edge/private method=GET host=localhost path=/private client=127.0.0.1 request=",
		"decision=allow rule=edge/private entry=demo consumer=acme method=GET",
		"decision=deny reason=limited rule=edge/private entry=demo consumer=acme",
	} {
		p.says(0, line)
	}
	for _, secret := range []string{"secret", strings.TrimPrefix(bearer, "Bearer ")} {
		if strings.Contains(p.out.String(), secret) {
			t.Errorf("the decision log holds %q:\n%s", secret, p.out)
		}
	}
}

// hasLine looks for a line with all these fields; nil is a field that is not there. Every line has to have a revision
// and timings.
func hasLine(log string, want map[string]any) error {
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var got map[string]any
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			return fmt.Errorf("%w in %s", err, lines.Text())
		}
		if got["revision"] == nil || got["durationMs"] == nil || got["time"] == nil {
			return fmt.Errorf("no revision, durationMs or time in %s", lines.Text())
		}
		match := true
		for name, value := range want {
			match = match && got[name] == value
		}
		if match {
			return nil
		}
	}
	text, _ := os.ReadFile(log)
	return fmt.Errorf("not among\n%s", text)
}
