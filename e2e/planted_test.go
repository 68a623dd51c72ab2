package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/envoy/certtest"
	goredis "github.com/redis/go-redis/v9"
)

// givesAway is what would give a secret away: a part from its middle, as it is and in the usual encodings.
func givesAway(secret string) (all []string) {
	data := []byte(secret)
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
		all = append(all, strings.Split(secret, "\n")[1])
	}
	part := data[len(data)/4 : len(data)*3/4]
	for offset := range 3 { // base64 by the place in what surrounds it
		text := base64.StdEncoding.EncodeToString(part[offset:])
		all = append(all, text[:len(text)-4], strings.NewReplacer("+", "-", "/", "_").Replace(text[:len(text)-4]))
	}
	return append(all, string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)), url.QueryEscape(string(part)))
}

// hashesOf are those by which a secret could be guessed.
func hashesOf(secret string) []string {
	sum := sha256.Sum256([]byte(secret))
	return []string{hex.EncodeToString(sum[:8]), base64.StdEncoding.EncodeToString(sum[:])[:10], string(sum[:8])}
}

const plantedPolicy = `gateways:
  edge:
    listeners:
      http: {port: PLAIN, address: 127.0.0.1}
      https: {port: SECURE, address: 127.0.0.1, protocol: HTTPS, certificates: [{secret: tls/edge}]}
auth:
  keys: {apiKey: {header: x-api-key}}
  demo: {jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: test-keys.json}}}
consumers:
  initech: {apiKeys: [{secret: consumers/initech}]}
services:
  app: {endpoints: ["APP"]}
routes:
  open: {hostnames: [localhost], match: {path: /open}, backends: {app: 1}, rateLimit: {rate: 100/day, by: {header: x-session}}}
  private: {hostnames: [localhost], match: {path: /private}, backends: {app: 1}, auth: [keys, demo], rateLimit: {rate: 100/day, by: consumer}}
`

// Secrets of every kind are planted: in files, of callers, in the settings. None is to be seen in logs at debug, in anything the
// admin port or the command line tell, in answers to callers, in Redis, or in the data directory.
func TestPlantedSecretsAreShownNowhere(t *testing.T) {
	t.Parallel()
	ca := certtest.NewAuthority(t, "ca")
	pair := ca.Issue(t, "edge.test")
	secrets, hidden := t.TempDir(), map[string]string{
		"private key":       string(pair.Key),
		"key of a consumer": "planted/consumer+key~of~initech",
		"wrong API key":     "planted/wrong+api~key~of~nobody",
		"header":            "planted/session+header~that~is~counted~by",
		"Redis password":    "planted.password.of.redis.itself",
		"admin token":       "planted.token.of.the.admin.port",
		"wrong admin token": "planted.wrong.admin.token.of.nobody",
		"token":             token(t, "planted-subject"),
		"wrong token":       token(t, "planted-other", "--ttl", "-1h"),
	}
	for name, text := range map[string]string{
		"tls/edge.crt": string(pair.Chain), "tls/edge.key": hidden["private key"], "consumers/initech": hidden["key of a consumer"],
		"admin": hidden["admin token"],
	} {
		path := filepath.Join(secrets, name)
		write(t, path, text)
		must(t, os.Chmod(path, 0o600))
	}
	listen := ports(t, 3)
	server := start(t, redisProgram(), "--port", fmt.Sprint(listen[2]), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
		"--requirepass", hidden["Redis password"])
	server.says(0, "Ready to accept connections")
	policy := strings.NewReplacer("PLAIN", fmt.Sprint(listen[0]), "SECURE", fmt.Sprint(listen[1]), "APP", upstream(t, "app")).Replace(plantedPolicy)
	p := newPlane(t, "")
	p.child = start(t, binary, p.args("serve", "--log-level", "debug", "--decision-log", "all", "--secrets-dir", secrets, "--admin-token-file", filepath.Join(secrets, "admin"),
		"--redis", fmt.Sprintf("redis://:%s@127.0.0.1:%d", url.QueryEscape(hidden["Redis password"]), listen[2]))...)
	eventually(t, "the admin port", func() error { _, err := get("http://"+p.admin+"/healthz", hidden["admin token"]); return err })
	var seen strings.Builder
	verb := func(args ...string) int {
		t.Helper()
		out, status := legation(t, append(args, "--server", "http://"+p.admin, "--token-file", filepath.Join(secrets, "admin"))...)
		fmt.Fprintln(&seen, out)
		return status
	}
	dir := policyDir(t, policy)
	eventually(t, "a push", func() error {
		if verb("push", dir, "--parent", "none") != 0 {
			return fmt.Errorf("%s", seen.String())
		}
		return nil
	})
	p.envoy(t, "edge")
	base := fmt.Sprintf("http://localhost:%d", listen[0])
	answers(t, base+"/open")
	for _, row := range []struct {
		path, header, value string
		status              int
	}{
		{"/open", "X-Session", "header", 200},
		{"/private", "X-Api-Key", "key of a consumer", 200},
		{"/private", "X-Api-Key", "wrong API key", 401},
		{"/private", "Authorization", "token", 200},
		{"/private", "Authorization", "wrong token", 401},
	} {
		value := hidden[row.value]
		if row.header == "Authorization" {
			value = "Bearer " + value
		}
		a := mustRequest(t, "GET", base+row.path, row.header, value)
		if a.status != row.status {
			t.Errorf("%s with %s: got %d, want %d", row.path, row.value, a.status, row.status)
		}
		if row.status != http.StatusOK { // what is let through, the sample sends back
			fmt.Fprintln(&seen, a)
		}
	}
	for _, path := range []string{
		"/status", "/status?resources=1000", "/metrics", "/limits", "/limits/top", "/limits/report", "/usage", "/usage/initech", "/keys", "/revocations", "/revisions", "/revisions/head",
		"/revisions/head?content=true", "/nowhere", "/readyz", "/healthz", "/",
	} {
		for _, as := range []string{"admin token", "wrong admin token"} {
			fmt.Fprintln(&seen, mustRequest(t, "GET", "http://"+p.admin+path, "Authorization", "Bearer "+hidden[as]))
		}
	}
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"history"}, {"show", "head"}, {"limits"}, {"key", "list"}, {"usage"}} {
		verb(args...)
	}
	write(t, filepath.Join(secrets, "tls/edge.key"), hidden["private key"][:200]) // a bad one is told
	verb("push", dir, "--force")
	keys := 0
	for key, value := range inRedis(t, listen[2], hidden["Redis password"]) {
		fmt.Fprintln(&seen, key, value)
		keys++
	}
	must(t, filepath.WalkDir(p.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		seen.Write(text)
		return err
	}))
	all := seen.String() + p.out.String()
	for _, want := range []string{"initech", "legation_auth_decisions_total", "token_expired", "tls/edge", "revision 1", "consumer"} {
		if !strings.Contains(all, want) {
			t.Errorf("the test looks in the wrong place: there is no %q", want)
		}
	}
	if keys < 4 {
		t.Errorf("Redis holds %d keys only", keys)
	}
	for name, secret := range hidden {
		traces := givesAway(secret)
		if name != "header" { // of header values a limit's counter has the hash in its name
			traces = append(traces, hashesOf(secret)...)
		}
		for _, trace := range traces {
			if at := strings.Index(all, trace); at >= 0 {
				t.Errorf("%s is shown, as %.20q: …%.200q", name, trace, all[max(0, at-80):])
			}
		}
	}
}

// redisProgram is the redis-server of the tests.
func redisProgram() string {
	if path := os.Getenv("LEGATION_REDIS_SERVER"); path != "" {
		return path
	}
	return "redis-server"
}

// inRedis is all that a server holds, by key.
func inRedis(t *testing.T, port int, password string) map[string]string {
	t.Helper()
	c := goredis.NewClient(&goredis.Options{Addr: local(port), Password: password})
	defer c.Close()
	all := map[string]string{}
	keys, err := c.Keys(t.Context(), "*").Result()
	must(t, err)
	for _, key := range keys {
		var value any
		switch kind := c.Type(t.Context(), key).Val(); kind {
		case "string":
			value, err = c.Get(t.Context(), key).Result()
		case "hash":
			value, err = c.HGetAll(t.Context(), key).Result()
		case "zset":
			value, err = c.ZRangeWithScores(t.Context(), key, 0, -1).Result()
		case "set":
			value, err = c.SMembers(t.Context(), key).Result()
		case "list":
			value, err = c.LRange(t.Context(), key, 0, -1).Result()
		case "none": // it has expired
		default:
			t.Errorf("%s is a %s, which this test can't read", key, kind)
		}
		if err != nil && err != goredis.Nil {
			t.Fatal(err)
		}
		all[key] = fmt.Sprint(value)
	}
	return all
}
