//go:build !race

package feature_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// However a policy changes: what is made of the change alone is what is made of the policy as a whole, byte by byte, and
// nothing of what was made before has changed.
func TestWhatIsMadeOfAChangeIsWhatIsMadeOfAll(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			g := generator{rand.New(rand.NewPCG(seed, 77)), readSchema(t)["$defs"].(object), make(map[string][]any)}
			c := changing{generator: g, policy: g.policy(t, 40), moved: make(map[string]int)}
			c.policy.accepted(t)
			c.settle()
			f := newFollower()
			f.follow(t, "at first", c.files(t))
			good := 0
			for step := range 100 {
				before, moved := c.clone(t), maps.Clone(c.moved)
				what := c.change()
				if f.follow(t, fmt.Sprintf("step %d, %s", step, what), c.files(t)) {
					good++
				} else {
					c.policy, c.moved = before, moved
				}
				if t.Failed() {
					break
				}
			}
			f.unchanged(t)
			if good < 40 || f.kept < f.made {
				t.Errorf("%d good policies, %d resources made anew and %d kept: this tells little", good, f.made, f.kept)
			}
		})
	}
}

// follower makes everything twice: of changes, and of the whole.
type follower struct {
	loader     *policy.Loader
	translator *envoy.Translator
	tables     feature.Tables
	last       map[string]marshalled // by gateway, type and name
	sums       map[proto.Message][sha256.Size]byte
	made, kept int
}

type marshalled struct {
	message proto.Message
	bytes   []byte
}

func newFollower() *follower {
	return &follower{
		loader: feature.Language().NewLoader(), translator: envoy.NewTranslator(feature.All()),
		last: make(map[string]marshalled), sums: make(map[proto.Message][sha256.Size]byte),
	}
}

// follow tells whether the files are good; then all has to be alike.
func (f *follower) follow(t *testing.T, what string, files policy.Files) bool {
	t.Helper()
	whole, _ := feature.Language().Load(files)
	m, problems := f.loader.Load(files)
	if (whole == nil) != (m == nil) {
		t.Fatalf("%s: the loader told %v, want as of a whole load", what, problems)
	}
	if m == nil {
		return false
	}
	want, wantErr := envoy.Translate(whole, feature.All())
	got, err := f.translator.Translate(m)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("%s:\ngot  %v\nwant %v", what, err, wantErr)
	}
	if err != nil {
		return false
	}
	f.compare(t, what, got, want)
	rules, limits := f.tables.Companions(m)
	wantRules, wantLimits := feature.Companions(whole)
	alike := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(wantRules, rules, alike); diff != "" {
		t.Errorf("%s: auth (-want +got):\n%s", what, diff)
	}
	if diff := cmp.Diff(wantLimits, limits, alike); diff != "" {
		t.Errorf("%s: limits (-want +got):\n%s", what, diff)
	}
	return true
}

// compare compares resources as they are served.
func (f *follower) compare(t *testing.T, what string, got, want map[string][]envoy.Resource) {
	t.Helper()
	next := make(map[string]marshalled)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Fatalf("%s: gateways (-want +got):\n%s", what, diff)
	}
	for gateway, list := range want {
		if len(got[gateway]) != len(list) {
			t.Fatalf("%s: %s has %d resources, want %d", what, gateway, len(got[gateway]), len(list))
		}
		for i, w := range list {
			g := got[gateway][i]
			key := gateway + " " + w.Type + " " + w.Name
			old := f.last[key]
			b, err := envoy.Marshal(g.Message, old.message, old.bytes)
			if err != nil {
				t.Fatal(err)
			}
			wholly, err := envoy.Marshal(w.Message, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, wholly) || !proto.Equal(g.Message, w.Message) {
				t.Errorf("%s: %s:\n%s", what, key, cmp.Diff(text(w.Message), text(g.Message)))
			}
			if g.Type != w.Type || g.Name != w.Name || g.Pos != w.Pos || g.Salt != w.Salt {
				t.Errorf("%s: %s: got %v %v %q, want %v %v %q", what, key, g.Name, g.Pos, g.Salt, w.Name, w.Pos, w.Salt)
			}
			if g.Message == old.message {
				f.kept++
			} else {
				f.made++
			}
			next[key] = marshalled{g.Message, b}
			if _, known := f.sums[g.Message]; !known {
				f.sums[g.Message] = sha256.Sum256(b)
			}
		}
	}
	f.last = next
}

func text(m proto.Message) []string {
	b, _ := json.MarshalIndent(m, "", " ")
	return strings.Split(string(b), "\n")
}

// unchanged holds every message that there was against what it was.
func (f *follower) unchanged(t *testing.T) {
	t.Helper()
	for m, sum := range f.sums {
		if b, err := envoy.Marshal(m, nil, nil); err != nil || sha256.Sum256(b) != sum {
			t.Errorf("it was changed after it was made: %v", m)
		}
	}
}

// changing is a policy that changes at random.
type changing struct {
	generator
	policy made
	moved  map[string]int // by file: how many lines further down all of it stands
	added  int
}

// settle gives the policy what is not made by the schema: a second gateway, with a table for each host, and those who call.
func (c *changing) settle() {
	c.policy["gateways"].(object)["hosts"] = object{
		"listeners": object{"http": object{"port": 10001, "routeTables": "perHost"}, "other": object{"port": 10002}},
		"accessLog": object{},
	}
	c.policy["auth"].(object)["key"] = object{"basic": object{"secret": "auth/users"}}
	c.policy["consumers"] = object{"acme": object{"identities": object{"idp": []any{"acme"}}, "plan": "gold"}}
	c.policy["plans"] = object{"gold": object{"rate": "100/second"}}
	c.policy["rateLimits"] = object{"foreign": object{"descriptors": []any{object{"entry": "user", "rate": "5/second"}}}}
	routes := c.policy["routes"].(object)
	for i, name := range slices.Sorted(maps.Keys(routes)) {
		r := routes[name].(object)
		r["gateways"] = []any{"edge", "hosts"}
		if i%3 == 0 {
			r["auth"], r["plan"] = []any{"idp"}, "optional"
		}
	}
}

func (c *changing) clone(t *testing.T) made {
	t.Helper()
	b, err := json.Marshal(c.policy)
	if err != nil {
		t.Fatal(err)
	}
	copied := made{}
	if err := json.Unmarshal(b, &copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

// files is the policy, its services and routes by the first two letters of their names in some files.
func (c *changing) files(t *testing.T) policy.Files {
	t.Helper()
	parts := map[string]made{"edge.yaml": {}}
	for section, v := range c.policy {
		if section != "services" && section != "routes" {
			parts["edge.yaml"][section] = v
			continue
		}
		for name, entry := range v.(object) {
			file := name[:min(2, len(name))] + ".yaml"
			if parts[file] == nil {
				parts[file] = made{}
			}
			if parts[file][section] == nil {
				parts[file][section] = object{}
			}
			parts[file][section].(object)[name] = entry
		}
	}
	files := policy.Files{}
	for name, p := range parts {
		files[name] = append(bytes.Repeat([]byte("#\n"), c.moved[name]), p.text(t)...)
	}
	return files
}

// one is one of the entries of a section.
func (c *changing) one(section string) object {
	all := c.policy[section].(object)
	return all[c.pick(anys(slices.Sorted(maps.Keys(all)))...).(string)].(object)
}

func anys(names []string) []any {
	all := make([]any, 0, len(names))
	for _, name := range names {
		all = append(all, name)
	}
	return all
}

// change changes something, and tells what.
func (c *changing) change() string {
	kinds := map[string]string{"services": "service", "routes": "route"}
	section := c.pick("services", "routes", "routes").(string)
	switch c.IntN(16) {
	case 0, 1, 2, 3:
		e := c.one(section)
		key := c.pick(anys(c.keys(kinds[section]))...).(string)
		delete(e, key)
		if pool := c.pool[kinds[section]+"."+key]; len(pool) > 0 && c.IntN(3) > 0 {
			e[key] = c.pick(pool...)
		}
		return section + " " + key
	case 4:
		routes := c.policy["routes"].(object)
		delete(routes, c.pick(anys(slices.Sorted(maps.Keys(routes)))...).(string))
		return "a route less"
	case 5:
		c.added++
		s, r := c.policy.add(c.generator, fmt.Sprintf("n%d", c.added))
		c.combine(s, "service")
		c.combine(r, "route")
		r["gateways"] = []any{c.pick("edge", "hosts")}
		return "a route more"
	case 6:
		c.one("routes")["hostnames"] = []any{c.pick("a.test", "b.a.test", "*.a.test", "*.test", "c.test", "*")}
		return "hostnames"
	case 7, 8:
		c.one("routes")["match"] = c.pick(
			object{"path": "/x"}, object{"path": object{"exact": "/x"}}, object{"path": "/x/longer", "methods": []any{"GET"}},
			object{"source": []any{"10.0.0.0/8"}}, object{"source": []any{"10.1.0.0/16", "192.0.2.1/32"}}, object{"headers": object{"x-a": "b"}},
		)
		return "match"
	case 9:
		c.one("routes")["auth"] = c.pick([]any{"idp"}, []any{"idp", "key"}, "none")
		return "auth"
	case 10:
		r := c.one(section)
		r["rateLimit"] = object{"rate": fmt.Sprintf("%d/second", 1+c.IntN(9)), "by": c.pick("ip", object{"header": "x-a"}), "mode": c.pick("exact", "perEnvoy")}
		return section + " rateLimit"
	case 11:
		c.policy["plans"].(object)["gold"] = object{"rate": fmt.Sprintf("%d/second", 1+c.IntN(9)), "refund": []any{c.pick("429", "503")}}
		return "plan"
	case 12:
		c.policy["auth"].(object)["idp"].(object)["jwt"].(object)["audiences"] = []any{c.pick("a", "b")}
		return "auth entry"
	case 13:
		c.policy["gateways"].(object)["edge"].(object)["defaults"] = c.pick(
			object{"timeouts": object{"request": "7s"}}, object{"rateLimit": object{"rate": "9/second"}}, object{},
		)
		return "defaults"
	case 14:
		c.one("routes")["listeners"] = []any{"http"}
		return "listeners"
	default:
		file := c.pick(anys(slices.Sorted(maps.Keys(map[string]int{"s1.yaml": 0, "s2.yaml": 0, "edge.yaml": 0})))...).(string)
		c.moved[file]++
		return "lines of " + file
	}
}
