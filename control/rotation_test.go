package control

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/protobuf/types/known/anypb"
)

// vault is a setting that refers to one secret of each kind. A service shows the certificate, and asks for the authority's.
type vault struct {
	Certificate policy.SecretName `policy:"certificate"`
	CA          policy.Authority  `policy:"ca"`
	Text        policy.SecretName `policy:"text"`
}

func (v *vault) Check(c *policy.Check) {
	c.Authority("ca", &v.CA)
	if v.Certificate != "" {
		c.Certificate("certificate", string(v.Certificate))
	}
	if v.Text != "" {
		c.Secret("text", string(v.Text))
	}
}

func (v *vault) Cluster(envoy.ServiceContext) *clusterv3.Cluster {
	context := envoy.Trust(v.CA, nil)
	context.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{envoy.Certificate(string(v.Certificate))}
	packed, err := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: context})
	if err != nil {
		panic(err)
	}
	return &clusterv3.Cluster{TransportSocket: &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}}
}

// withVault is the language with that setting.
var withVault = policy.New(append(feature.All(), policy.Define[vault]("vault", policy.InGateway|policy.InService, "`vault` is for tests."))...)

// vaulted is a gateway whose vault holds this.
func vaulted(holds string) string {
	return "gateways: {edge: {vault: {" + holds + "}, listeners: {http: {port: 10000, address: 127.0.0.1}}}}\n"
}

// pair is a certificate that signs itself, and its key.
func pair(t testing.TB, name string, until time.Time) (crt, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "*." + name}, NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", keyDER)
}

// far is when certificates end that no test waits for.
func far() time.Time { return time.Now().Add(1000 * time.Hour) }

// putPair puts a certificate and its key into the directory of secrets, each in one step.
func putPair(t testing.TB, dir, name, crt, key string) {
	t.Helper()
	for ending, text := range map[string]string{".crt": crt, ".key": key} {
		put(t, filepath.Join(dir, name+ending), text)
	}
}

func put(t testing.TB, path, text string) {
	t.Helper()
	keep(t, path+".tmp", text, 0o600)
	must(t, os.Rename(path+".tmp", path))
}

// served is what is served of a secret.
func served(t testing.TB, c *Controller, id string) *policy.Secret {
	t.Helper()
	if m := c.Outcome().Model; m != nil && m.Secret(id) != nil {
		return m.Secret(id)
	}
	return &policy.Secret{}
}

// A secret that changes is served at once under the same revision; nothing is told where nothing has changed.
func TestRotation(t *testing.T) {
	t.Parallel()
	secrets := t.TempDir()
	dir := tree(t, map[string]string{"gateway.yaml": vaulted("certificate: tls/a, ca: {secret: tls/ca}, text: word"), "app.yaml": team("app", 1)})
	first, firstKey := pair(t, "a.test", far())
	ca, _ := pair(t, "ca.test", far())
	putPair(t, secrets, "tls/a", first, firstKey)
	put(t, filepath.Join(secrets, "tls/ca.crt"), ca)
	put(t, filepath.Join(secrets, "word"), planted+"\n")
	c, reports := byHand(t, Options{Dir: dir, Secrets: &Secrets{Dir: secrets}})
	c.Load()
	before := c.Outcome()
	var ids []string
	for _, s := range before.Secrets {
		ids = append(ids, s.ID)
	}
	if want := []string{"authority/tls/ca", "certificate/tls/a", "secret/word"}; !slices.Equal(ids, want) || before.Rotated != nil {
		t.Fatalf("got %v, %v, rotated %v; want %v and nothing", ids, before.Problems, before.Rotated, want)
	}
	if s := before.Secrets[1]; !slices.Equal(s.Names, []string{"a.test", "*.a.test"}) || s.Expires.IsZero() {
		t.Errorf("got %+v, want the names and the end of the certificate", s)
	}
	second, secondKey := pair(t, "b.test", far())
	for _, row := range []struct {
		about   string
		do      func()
		rotated string
	}{
		{"nothing", func() {}, ""},
		{"the same files again", func() { putPair(t, secrets, "tls/a", first, firstKey) }, ""},
		{"another line end", func() { put(t, filepath.Join(secrets, "word"), planted) }, ""},
		{"a file that is no secret of the policy", func() { put(t, filepath.Join(secrets, "other"), planted) }, ""},
		{"another pair", func() { putPair(t, secrets, "tls/a", second, secondKey) }, "certificate/tls/a"},
		{"another authority", func() { put(t, filepath.Join(secrets, "tls/ca.crt"), ca+second) }, "authority/tls/ca"},
		{"another text", func() { put(t, filepath.Join(secrets, "word"), "else") }, "secret/word"},
	} {
		row.do()
		told := len(*reports)
		c.Load()
		o := c.Outcome()
		if got := strings.Join(o.Rotated, " "); got != row.rotated || o.Changed != (got != "") || o.Revision != before.Revision {
			t.Errorf("%s: got rotated %q, changed %v, revision %s; want %q and the revision %s", row.about, got, o.Changed, o.Revision, row.rotated, before.Revision)
		}
		if got, want := len(*reports)-told, min(len(row.rotated), 1); got != want {
			t.Errorf("%s: told %d times, want %d", row.about, got, want)
		}
	}
	if s := served(t, c, "certificate/tls/a"); string(s.Value) != second || string(s.Key) != secondKey {
		t.Error("the other pair is not served")
	}
}

// What is wrong with a secret holds back nothing but that secret, and is told until it is mended.
func TestSecretsThatGoBad(t *testing.T) {
	t.Parallel()
	first, firstKey := pair(t, "a.test", far())
	second, secondKey := pair(t, "a.test", far())
	for _, row := range []struct {
		about string
		harm  func(crt, key string)
		wrong string
	}{
		{"a rotation that is half done", func(crt, _ string) { put(t, crt, second) }, "does not belong to"},
		{"the other half", func(_, key string) { put(t, key, secondKey) }, "does not belong to"},
		{"a file that is cut off", func(crt, _ string) { put(t, crt, second[:99]) }, "not PEM"},
		{"a key that others may read", func(_, key string) { must(t, os.Chmod(key, 0o644)) }, "chmod 600"},
		{"a file that vanishes", func(_, key string) { must(t, os.Remove(key)) }, "there is no secret tls/a"},
	} {
		secrets := t.TempDir()
		dir := tree(t, map[string]string{"gateway.yaml": vaulted("certificate: tls/a, text: word"), "app.yaml": team("app", 1)})
		putPair(t, secrets, "tls/a", first, firstKey)
		put(t, filepath.Join(secrets, "word"), "one")
		c, reports := byHand(t, Options{Dir: dir, Secrets: &Secrets{Dir: secrets}})
		c.Load()
		row.harm(filepath.Join(secrets, "tls/a.crt"), filepath.Join(secrets, "tls/a.key"))
		c.Load()
		c.Load()
		o := c.Outcome()
		if o.Changed || len(*reports) != 2 || len(o.Problems) != 1 || !strings.Contains(o.Problems[0].Message, row.wrong) || o.Problems[0].Pos.File != "gateway.yaml" {
			t.Errorf("%s: got %+v in %d reports; want one problem, told once, and no change", row.about, o, len(*reports))
		}
		// Other secrets and files go on, that which names it included.
		put(t, filepath.Join(secrets, "word"), "two")
		write(t, filepath.Join(dir, "app.yaml"), team("app", 2))
		write(t, filepath.Join(dir, "gateway.yaml"), strings.Replace(vaulted("certificate: tls/a, text: word"), "10000", "10001", 1))
		c.Load()
		o = c.Outcome()
		if !o.Changed || len(o.Problems) != 1 || ports(o.Model) != "app=2" || o.Model.Gateways[0].Listeners[0].Port != 10001 ||
			string(served(t, c, "secret/word").Value) != "two" {
			t.Errorf("%s: got %+v, %s; want all other changes", row.about, o, ports(o.Model))
		}
		if s := served(t, c, "certificate/tls/a"); string(s.Value) != first || string(s.Key) != firstKey {
			t.Errorf("%s: the old pair does not stay", row.about)
		}
		putPair(t, secrets, "tls/a", second, secondKey)
		c.Load()
		if s := served(t, c, "certificate/tls/a"); string(s.Value) != second || string(s.Key) != secondKey || len(c.Outcome().Problems) > 0 {
			t.Errorf("%s: the new pair is not served when it is whole: %v", row.about, c.Outcome().Problems)
		}
	}
}

// Secrets are watched like the policy: however they change, they are served as soon as they are whole and rest.
func TestSecretsAreWatched(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		about       string
		first, next func(t *testing.T, dir, text string)
	}{
		{"rename over", putWord, putWord},
		{"in place", putWord, func(t *testing.T, dir, text string) { keep(t, filepath.Join(dir, "a/word"), text, 0o600) }},
		{"a mounted secret", putMounted, putMounted},
		{"a mode that is mended", func(t *testing.T, dir, text string) {
			keep(t, filepath.Join(dir, "a/word"), text, 0o600)
		}, func(t *testing.T, dir, text string) {
			keep(t, filepath.Join(dir, "a/word"), text, 0o644)
			must(t, os.Chmod(filepath.Join(dir, "a/word"), 0o600))
		}},
		{"the directory comes later", func(t *testing.T, dir, text string) {
			must(t, os.Remove(dir))
			putWord(t, dir, text)
		}, putWord},
		{"the directory is swapped", putWord, func(t *testing.T, dir, text string) {
			putWord(t, dir+".new", text)
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Rename(dir+".new", dir))
		}},
	} {
		t.Run(row.about, func(t *testing.T) {
			t.Parallel()
			secrets := filepath.Join(t.TempDir(), "secrets")
			must(t, os.Mkdir(secrets, 0o700))
			dir := tree(t, map[string]string{"gateway.yaml": vaulted("text: a/word"), "app.yaml": team("app", 1)})
			l := start(t, Options{Dir: dir, Secrets: &Secrets{Dir: secrets}})
			if o := l.next(); o.Revision != "" || len(o.Problems) != 1 {
				t.Fatalf("without the secret: got %+v, want nothing served and a problem", o)
			}
			for i, give := range []func(*testing.T, string, string){row.first, row.next} {
				text := []string{"one", "two"}[i]
				give(t, secrets, text)
				for o := l.next(); !o.Changed; o = l.next() {
					continue
				}
				if got := string(served(t, l.Controller, "secret/a/word").Value); got != text {
					t.Errorf("got %q, want %q", got, text)
				}
			}
		})
	}
}

func putWord(t *testing.T, dir, text string) {
	t.Helper()
	put(t, filepath.Join(dir, "a/word"), text)
}

// putMounted swaps ..data, as mounted secrets do it.
func putMounted(t *testing.T, dir, text string) {
	t.Helper()
	keep(t, filepath.Join(dir, "a/.."+text, "word"), text, 0o400)
	link(t, ".."+text, filepath.Join(dir, "a/..data"))
	link(t, "..data/word", filepath.Join(dir, "a/word"))
}

// After a restart a secret that is missing holds everything back, for there is nothing to stay; nor does the data
// directory have any.
func TestRestartWithoutASecret(t *testing.T) {
	t.Parallel()
	secrets, data := t.TempDir(), t.TempDir()
	dir := tree(t, map[string]string{"gateway.yaml": vaulted("text: word"), "app.yaml": team("app", 1)})
	put(t, filepath.Join(secrets, "word"), planted)
	o := Options{Dir: dir, DataDir: data, Secrets: &Secrets{Dir: secrets}}
	c, _ := byHand(t, o)
	c.Load()
	want := c.Outcome().Revision
	must(t, os.Remove(filepath.Join(secrets, "word")))
	must(t, filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(planted)) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	}))

	again, reports := byHand(t, o)
	again.Load()
	if got := again.Outcome(); got.Revision != "" || got.Model != nil || len(got.Problems) != 1 || len(*reports) != 1 {
		t.Errorf("without the secret: got %+v, want nothing served and one problem", got)
	}
	put(t, filepath.Join(secrets, "word"), planted)
	again.Load()
	if got := again.Outcome(); want == "" || got.Revision != want || len(got.Problems) > 0 {
		t.Errorf("with it: got %+v, want the revision %s", got, want)
	}
}

// A certificate near its end is told in the problems, as a warning, and in the log once a day; and when it has ended.
func TestCertificatesNearTheirEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		day, secrets := 24*time.Hour, t.TempDir()
		crt, key := pair(t, "a.test", time.Now().Add(20*day))
		young, _ := pair(t, "b.test", time.Now().Add(900*day))
		putPair(t, secrets, "tls/a", crt, key)
		put(t, filepath.Join(secrets, "tls/ca.crt"), crt+young) // a bundle lasts as long as one of it
		dir := tree(t, map[string]string{"gateway.yaml": vaulted("certificate: tls/a, ca: {secret: tls/ca}"), "app.yaml": team("app", 1)})
		var log strings.Builder
		metrics := prometheus.NewRegistry()
		c, reports := byHand(t, Options{
			Dir: dir, Secrets: &Secrets{Dir: secrets}, Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: metrics,
		})
		c.Load()
		ends := c.Outcome().Secrets[1].Expires
		at := 0 * day
		for _, row := range []struct {
			day           time.Duration
			warns         string
			logs, reports int // so far
		}{
			{0, "", 0, 1},
			{5 * day, "", 0, 1},
			{6*day + time.Second, "certificate/tls/a expires on 2000-01-21 00:00 UTC", 1, 2},
			{6*day + time.Hour, "certificate/tls/a expires on 2000-01-21 00:00 UTC", 1, 2},
			{8 * day, "certificate/tls/a expires on", 2, 2},
			{20 * day, "certificate/tls/a expired on 2000-01-21 00:00 UTC", 3, 3},
			{21 * day, "certificate/tls/a expired on", 4, 3},
		} {
			time.Sleep(row.day - at)
			at = row.day
			c.Load()
			o := c.Outcome()
			got := ""
			for _, p := range o.Problems {
				got += p.Message
				if !p.Warning || p.Pos.Line != 1 {
					t.Errorf("after %v: got %+v, want a warning at its line", at, p)
				}
			}
			if row.warns == "" && got != "" || !strings.HasPrefix(got, row.warns) {
				t.Errorf("after %v: warns %q, want %q", at, got, row.warns)
			}
			if logs := strings.Count(log.String(), "certificate expires"); logs != row.logs || len(*reports) != row.reports {
				t.Errorf("after %v: %d lines of log, %d reports, want %d and %d", at, logs, len(*reports), row.logs, row.reports)
			}
		}
		want := float64(ends.Unix())
		if got := expiries(t, metrics)["certificate/tls/a"]; got != want {
			t.Errorf("metric: got %v, want %v", got, want)
		}
		renewed, renewedKey := pair(t, "a.test", time.Now().Add(90*day))
		putPair(t, secrets, "tls/a", renewed, renewedKey)
		c.Load()
		if o := c.Outcome(); len(o.Problems) > 0 || !o.Changed {
			t.Errorf("renewed: got %v, changed %v", o.Problems, o.Changed)
		}
		write(t, filepath.Join(dir, "gateway.yaml"), gateway(10000))
		c.Load()
		if got := expiries(t, metrics); len(got) > 0 {
			t.Errorf("metric: got %v, want none when none is served", got)
		}
	})
}

// expiries is what the metric tells of each secret.
func expiries(t testing.TB, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	must(t, err)
	all := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "legation_control_certificate_expiry_timestamp_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			all[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
		if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
			t.Errorf("lint: %v %v", problems, err)
		}
	}
	return all
}

// A secret that changes is sent alone: no listener, route or cluster with it, and no other secret.
func TestRotatedSecretIsSentAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		secrets := t.TempDir()
		first, firstKey := pair(t, "a.test", far())
		second, secondKey := pair(t, "b.test", far())
		putPair(t, secrets, "tls/a", first, firstKey)
		put(t, filepath.Join(secrets, "tls/ca.crt"), first)
		dir := tree(t, map[string]string{"gateway.yaml": gateway(10000), "app.yaml": strings.Replace(team("app", 1), "{endpoints:",
			"{vault: {certificate: tls/a, ca: {secret: tls/ca}}, endpoints:", 1)})
		p := newPlane(t, Options{Dir: dir, Secrets: &Secrets{Dir: secrets}}, true)
		p.Load()
		e := p.envoy()
		must(t, e.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{"certificate/tls/a", "authority/tls/ca"},
		}))
		synctest.Wait()
		var before int
		e.set(func() { before = len(e.took) })
		putPair(t, secrets, "tls/a", second, secondKey)
		p.Load()
		synctest.Wait()
		var took []*discoveryv3.Resource
		e.set(func() { took = e.took[before:] })
		if before < 5 || len(took) != 1 || took[0].GetName() != "certificate/tls/a" {
			t.Fatalf("got %v after %d resources, want the certificate alone", took, before)
		}
		s := new(tlsv3.Secret)
		must(t, took[0].GetResource().UnmarshalTo(s))
		if s.GetTlsCertificate().GetPrivateKey().GetInlineString() != secondKey {
			t.Error("the key that was sent is not the new one")
		}
	})
}

func TestSecretOf(t *testing.T) {
	t.Parallel()
	soon, _ := pair(t, "soon.test", far().Add(-time.Hour))
	late, _ := pair(t, "late.test", far())
	end := func(crt string) time.Time { return chain([]byte(crt))[0].NotAfter }
	for _, row := range []struct {
		secret policy.Secret
		names  string
		ends   time.Time
	}{
		{policy.Secret{Kind: policy.CertificateSecret, Value: []byte(soon + late)}, "soon.test *.soon.test", end(soon)},
		{policy.Secret{Kind: policy.CertificateSecret, Value: []byte(late + soon)}, "late.test *.late.test", end(soon)},
		{policy.Secret{Kind: policy.AuthoritySecret, Value: []byte(soon + late)}, "CN=soon.test CN=late.test", end(late)},
		{policy.Secret{Kind: policy.CertificateSecret}, "", time.Time{}}, // not looked up
		{policy.Secret{Kind: policy.OpaqueSecret, Value: []byte(soon)}, "", time.Time{}},
	} {
		if got := secretOf(&row.secret); strings.Join(got.Names, " ") != row.names || !got.Expires.Equal(row.ends) {
			t.Errorf("got %+v, want %s until %v", got, row.names, row.ends)
		}
	}
}
