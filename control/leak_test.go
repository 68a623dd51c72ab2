package control

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
	"github.com/prometheus/client_golang/prometheus"
)

// traces is what gives a secret away: itself and parts of it, encoded, and its hashes, by which it could be guessed.
func traces(secret string) []string {
	var found []string
	add := func(data []byte) {
		found = append(found, string(data), hex.EncodeToString(data), base64.StdEncoding.EncodeToString(data), base64.RawURLEncoding.EncodeToString(data))
	}
	add([]byte(secret))
	long, short := sha256.Sum256([]byte(secret)), sha1.Sum([]byte(secret))
	add(long[:8])
	add(short[:8])
	if block, _ := pem.Decode([]byte(secret)); block != nil {
		add(block.Bytes)
		for line := range strings.Lines(secret) {
			if !strings.HasPrefix(line, "-----") {
				found = append(found, strings.TrimSpace(line))
			}
		}
		add(block.Bytes[len(block.Bytes)/2:][:16])
	}
	return found
}

// What secrets hold is nowhere to be seen: good ones, bad ones, and those that were served before.
func TestSecretsAreShownNowhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		secrets, data := t.TempDir(), t.TempDir()
		first, firstKey := pair(t, "a.test", far())
		second, secondKey := pair(t, "a.test", far())
		hidden := []string{firstKey, secondKey, planted + "-first", planted + "-second"}
		putPair(t, secrets, "tls/a", first, firstKey)
		put(t, filepath.Join(secrets, "tls/ca.crt"), first)
		put(t, filepath.Join(secrets, "word"), hidden[2])
		dir := tree(t, map[string]string{"gateway.yaml": vaulted("text: word"), "app.yaml": strings.Replace(team("app", 1), "{endpoints:",
			"{vault: {certificate: tls/a, ca: {secret: tls/ca}}, endpoints:", 1)})
		var out bytes.Buffer
		metrics := prometheus.NewRegistry()
		p := newPlane(t, Options{
			Dir: dir, DataDir: data, Secrets: &Secrets{Dir: secrets}, Metrics: metrics,
			Log: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}, true)
		p.Load()
		e := p.envoy()
		must(t, e.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{"certificate/tls/a", "authority/tls/ca"},
		}))
		for _, change := range []func(){
			func() {},
			func() { put(t, filepath.Join(secrets, "tls/a.key"), secondKey) },                           // half done
			func() { put(t, filepath.Join(secrets, "tls/a.crt"), second+secondKey) },                    // the key in the wrong file
			func() { put(t, filepath.Join(secrets, "tls/a.crt"), secondKey[40:]) },                      // cut off
			func() { putPair(t, secrets, "tls/a", second, secondKey) },                                  // whole
			func() { put(t, filepath.Join(secrets, "word"), hidden[3]) },                                // another text
			func() { must(t, os.Chmod(filepath.Join(secrets, "word"), 0o666)) },                         // that others may read
			func() { e.set(func() { e.refuse = true }); putPair(t, secrets, "tls/a", first, firstKey) }, // and a NACK
		} {
			change()
			p.Load()
			synctest.Wait()
			o := p.Outcome()
			must(t, o.Problems.Write(&out, o.Files, false))
			for _, shown := range []any{o, p.o.XDS.Status()} {
				text, err := json.Marshal(shown)
				must(t, err)
				out.Write(text)
			}
		}
		compiled, err := Compile(p.Outcome().Model)
		must(t, err)
		for _, r := range compiled.Resources["edge"] {
			text, err := envoy.JSON(envoy.Redact(r.Message))
			must(t, err)
			out.Write(text)
		}
		families, err := metrics.Gather()
		must(t, err)
		for _, f := range families {
			out.WriteString(f.String())
		}
		must(t, filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			out.Write(text)
			return err
		}))
		for _, want := range []string{"secret/word", "certificate/tls/a", "does not belong to", "chmod 600", "NACK", "[redacted]"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the test looks in the wrong place: there is no %q", want)
			}
		}
		for i, secret := range hidden {
			for _, trace := range traces(secret) {
				if strings.Contains(out.String(), trace) {
					t.Errorf("secret %d is shown, as %.16q", i, trace)
				}
			}
		}
		for _, r := range e.took { // and the versions of secrets, which are hashes
			if strings.HasSuffix(r.GetResource().GetTypeUrl(), "Secret") && strings.Contains(out.String(), r.GetVersion()) {
				t.Errorf("the version of %s is shown", r.GetName())
			}
		}
		if !slices.ContainsFunc(e.took, func(r *discoveryv3.Resource) bool { return r.GetName() == "certificate/tls/a" }) {
			t.Error("no secret was sent")
		}
	})
}
