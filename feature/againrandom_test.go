//go:build !race

package feature_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

// TestLoadingAgainOfRandomPolicies is [TestLoadingAgainIsLoadingWhole] for policies of several teams, made at random of
// all keys, and for edits of all kinds. SEEDS=from-to runs others.
func TestLoadingAgainOfRandomPolicies(t *testing.T) {
	t.Parallel()
	from, to := uint64(0), uint64(2)
	if _, err := fmt.Sscanf(os.Getenv("SEEDS"), "%d-%d", &from, &to); err != nil && os.Getenv("SEEDS") != "" {
		t.Fatal(err)
	}
	pool := make(map[string][]any)
	g := generator{rand.New(rand.NewPCG(1, 41)), readSchema(t)["$defs"].(object), pool}
	for _, kind := range []string{"service", "route"} {
		for _, key := range g.keys(kind) {
			g.fill(t, kind, key)
		}
	}
	certificates := golden.NewSecrets(t, "ca authority\nedge certificate a.test edge s0 s1 by ca\nother certificate b.test s0")
	for seed := from; seed < to; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			w := newWorld(rand.New(rand.NewPCG(seed, 42)), g, certificates)
			a := newAgain(t)
			a.secrets = w
			w.edits(a, 250)
			t.Logf("%d loads, %d good, of which %d went on from others", a.loads, a.good, a.renewed)
			if a.renewed < a.loads/8 {
				t.Error("too few loads went on from others")
			}
		})
	}
}

// world is a policy directory with its secrets, at some moment.
type world struct {
	generator
	files   map[string]object // by name, policy
	beside  policy.Files
	secrets map[string][]byte
	lines   map[string]int // empty ones before a file begins
	cut     string         // the file that is half written
	number  int
}

func newWorld(random *rand.Rand, g generator, certificates *golden.Secrets) *world {
	g.Rand = random
	w := &world{
		generator: g, files: make(map[string]object), secrets: make(map[string][]byte), lines: make(map[string]int),
		beside: policy.Files{"page.html": []byte("hello"), "s.endpoints": []byte("127.0.0.1:9000\n"), "other.txt": []byte("x")},
	}
	for _, name := range []string{"ca.crt", "edge.crt", "edge.key", "other.crt", "other.key"} {
		w.secrets[name], _ = certificates.Secret(name)
	}
	w.beside["ca.pem"] = w.secrets["ca.crt"]
	w.secrets["word"], w.secrets["key"] = []byte("open sesame"), []byte("lgn_abcdefghjk_0123456789abcdefghjkmnpqrs")
	w.files["edge.yaml"] = w.platform()
	for i := range 5 {
		w.files[fmt.Sprintf("team%d.yaml", i)] = object{"services": object{}, "routes": object{}}
	}
	for range 8 {
		w.addService()
	}
	for range 14 {
		w.addRoute()
	}
	return w
}

// Secret gives what the world has.
func (w *world) Secret(name string) ([]byte, error) {
	if content, ok := w.secrets[name]; ok {
		return content, nil
	}
	return nil, fmt.Errorf("secret %s: %w", name, fs.ErrNotExist)
}

func (*world) platform() object {
	return object{
		"gateways": object{
			"edge": object{
				"listeners": object{
					"http": object{"port": 8080}, "redis": object{"port": 6379, "protocol": "TCP"},
					"https": object{"port": 8443, "protocol": "HTTPS", "certificates": []any{
						object{"secret": "edge"}, object{"secret": "edge", "hostname": "warned-of.test"},
					}},
				},
				"mesh":     object{"certificate": "edge", "ca": object{"secret": "ca"}},
				"tracing":  object{"openTelemetry": object{"service": "collector"}},
				"defaults": object{"timeouts": object{"request": "20s"}},
			},
			"inner": object{"listeners": object{"http": object{"port": 80}}},
		},
		"auth": object{
			"idp":   object{"jwt": object{"issuer": "https://id.test/", "audiences": []any{"a"}, "jwks": "https://id.test/keys", "headers": object{"x-user": "sub"}}},
			"keys":  object{"apiKey": object{"header": "x-key"}},
			"guest": object{"anonymous": object{"plan": "free"}},
		},
		"plans":      object{"free": object{"rate": "10/second"}, "gold": object{"quota": "1000/day"}},
		"consumers":  object{"acme": object{"identities": object{"idp": "acme"}, "plan": "gold"}, "zeta": object{"apiKeys": []any{object{"secret": "key"}}}},
		"rateLimits": object{"theirs": object{"descriptors": []any{object{"key": "k", "rate": "5/second"}}}},
		"services":   object{"collector": object{"endpoints": []any{"127.0.0.1:4317"}, "protocol": "grpc"}},
	}
}

// edits loads the world after each of so many edits. What is refused is taken back sooner or later.
func (w *world) edits(a *again, n int) {
	load := func(edit string) bool {
		if w.IntN(6) == 0 {
			return a.isolate(w.text(), edit)
		}
		return a.load(w.text(), edit)
	}
	w.repair(a)
	if !load("nothing") {
		a.Fatal("nothing to begin with")
	}
	good := w.copy()
	for range n {
		edit := w.edit()
		if load(edit) {
			good = w.copy()
		} else if w.IntN(4) > 0 {
			*w = *good.copy()
			load(edit + " taken back")
		}
	}
}

// repair takes out what is refused from the start.
func (w *world) repair(a *again) {
	for range 100 {
		_, problems := a.language.WithSecrets(w).Load(w.text())
		errs, _ := problems.Split()
		if len(errs) == 0 {
			return
		}
		for _, p := range errs {
			made(w.files[p.Pos.File]).remove(p)
		}
	}
}

func (w *world) copy() *world {
	again := *w
	again.files = make(map[string]object)
	for name, of := range w.files {
		again.files[name] = deep(of).(object)
	}
	again.beside, again.secrets, again.lines = maps.Clone(w.beside), maps.Clone(w.secrets), maps.Clone(w.lines)
	return &again
}

func deep(v any) any {
	switch v := v.(type) {
	case object:
		all := make(object, len(v))
		for key, item := range v {
			all[key] = deep(item)
		}
		return all
	case []any:
		all := make([]any, len(v))
		for i, item := range v {
			all[i] = deep(item)
		}
		return all
	}
	return v
}

// text is the directory.
func (w *world) text() policy.Files {
	files := maps.Clone(w.beside)
	for name, of := range w.files {
		text, err := json.MarshalIndent(of, "", " ")
		if err != nil {
			panic(err)
		}
		text = bytes.ReplaceAll(text, []byte(`"off"`), []byte("off"))
		if name == w.cut {
			text = text[:len(text)/2]
		}
		files[name] = append(bytes.Repeat([]byte{'\n'}, w.lines[name]), text...)
	}
	return files
}

func anyKey[T any](w *world, m map[string]T) string {
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) == 0 {
		return ""
	}
	return keys[w.IntN(len(keys))]
}

// section is one of a file that has it.
func (w *world) section(section string) (file string, entries object) {
	for range 20 {
		file = anyKey(w, w.files)
		if entries, ok := w.files[file][section].(object); ok {
			return file, entries
		}
	}
	file = anyKey(w, w.files)
	entries = object{}
	w.files[file][section] = entries
	return file, entries
}

func (w *world) addService() {
	_, entries := w.section("services")
	w.number++
	s := object{}
	switch w.IntN(6) {
	case 0:
		s["endpoints"] = object{"file": "s.endpoints"}
	case 1:
		s["dns"] = "localhost:8080"
	default:
		s["endpoints"] = w.endpoints()
	}
	switch w.IntN(8) {
	case 0:
		s["tls"] = object{"hostname": "a.test", "ca": object{"file": "ca.pem"}}
	case 1:
		s["tls"] = object{"hostname": "a.test", "ca": object{"secret": "ca"}}
	default:
		w.set(s, "service")
	}
	entries[fmt.Sprintf("s%d", w.number%12)] = s
}

// set gives an entry a setting, or takes one away.
func (w *world) set(e object, kind string) {
	key := w.pick(anyOf(w.keys(kind))...).(string)
	switch pool := w.pool[kind+"."+key]; {
	case w.IntN(4) == 0:
		delete(e, key)
	case len(pool) > 0:
		e[key] = w.pick(pool...)
	}
}

func anyOf(texts []string) []any {
	var all []any
	for _, text := range texts {
		all = append(all, text)
	}
	return all
}

func (w *world) addRoute() {
	_, entries := w.section("routes")
	w.number++
	r := object{
		"hostnames": []any{w.pick("a.test", "b.test", "c.test", "*.test", "*")},
		"gateways":  []any{w.pick("edge", "edge", "inner")},
		"backends":  object{w.service(): 1},
		"match":     object{"path": w.path()},
	}
	if w.IntN(6) == 0 {
		r["backends"].(object)[w.service()] = w.IntN(3)
	}
	w.condition(r)
	w.set(r, "route")
	w.special(r)
	entries[fmt.Sprintf("r%d", w.number)] = r
}

// service is the name of one that there is.
func (w *world) service() string {
	names := make(object)
	for _, of := range w.files {
		if services, ok := of["services"].(object); ok {
			maps.Copy(names, services)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return anyKey(w, names)
}

func (w *world) path() any {
	n := strconv.Itoa(w.number)
	return w.pick("/", "/v1", "/v1/"+n, "/"+n, object{"exact": "/v1/" + n}, object{"regex": "/x" + n + "/.*"}, object{"template": "/v1/{id}/" + n}, object{"prefix": "/V1", "ignoreCase": true})
}

func (w *world) condition(r object) {
	match := r["match"].(object)
	switch w.IntN(9) {
	case 0:
		match["methods"] = []any{w.pick("GET", "POST")}
	case 1:
		match["headers"] = object{w.pick("x-a", "x-user").(string): "1"}
	case 2:
		match["query"] = object{"a": "b"}
	case 3:
		match["source"] = []any{w.pick("10.0.0.0/8", "192.0.2.1")}
	}
}

// special gives a route what looks at other entries, files or routes.
func (w *world) special(r object) {
	switch w.IntN(12) {
	case 0, 1, 2:
		r["auth"] = w.pick([]any{"idp"}, []any{"keys"}, []any{"idp", "guest"}, "none")
	case 3:
		r["auth"], r["plan"] = []any{"idp"}, w.pick("required", "optional")
	case 4:
		r["mirror"] = object{w.service(): "1%"}
	case 5:
		delete(r, "backends")
		r["directResponse"] = object{"status": 200, "file": "page.html"}
	case 6:
		delete(r, "backends")
		r["redirect"] = object{"hostname": w.pick("a.test", "x.test"), "path": w.pick("/", "/v1", "/old")}
	case 7:
		delete(r, "match")
		r["listeners"], r["hostnames"] = []any{"redis"}, []any{"*"}
	case 8:
		r["listeners"] = []any{w.pick("http", "https")}
	}
}
