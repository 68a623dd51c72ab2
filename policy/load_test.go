package policy_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/policy"
)

const edge = `gateways:
  edge:
    listeners:
      http: {port: 10000}
    defaults:
      timeouts: {request: 15s}
      rateLimit: {rate: 50}
`

const orders = `auth:
  idp:
    jwt: {issuer: https://id.example.com/}
services:
  orders:
    endpoints: [10.0.0.11:8080, "[::1]:8080"]
    loadBalancer: leastRequest
    timeouts: {backendRequest: 5s}
    rateLimit: {rate: 40}
routes:
  orders:
    hostnames: [API.example.com]
    match: {path: /v1/orders, methods: [POST, GET]}
    auth: [idp]
    rateLimit: {rate: 30, by: consumer}
    backends: {orders: 1}
    timeouts: {backendRequest: 2s}
    cors: {allowOrigins: ["https://app.example.com"], maxAge: 10m}
`

// TestLayers tells for what the three layers write what holds for the route.
func TestLayers(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		defaults, service, route string
		want                     []string // "key value layer line:col of each scalar", in order
	}{
		{"nothing", "", "", "", nil},
		{"defaults", "timeouts: {request: 15s}", "", "", []string{"timeouts {15s 0s} gateway/edge"}},
		{"service adds", "timeouts: {request: 15s}", "timeouts: {backendRequest: 2s}", "", []string{"timeouts {15s 2s} service/s"}},
		{"route wins", "timeouts: {request: 15s}", "timeouts: {request: 10s, backendRequest: 2s}", "timeouts: {request: 5s}", []string{"timeouts {5s 2s} route/r"}},
		{"leaf off", "timeouts: {request: 15s}", "timeouts: {backendRequest: 2s}", "timeouts: {request: off}", []string{"timeouts {0s 2s} route/r"}},
		{"whole off", "timeouts: {request: 15s}", "timeouts: {backendRequest: 2s}", "timeouts: off", nil},
		{"off, then anew", "timeouts: {request: 15s}", "timeouts: off", "timeouts: {backendRequest: 1s}", []string{"timeouts {0s 1s} route/r"}},
		{"off of nothing", "", "", "timeouts: {request: off, backendRequest: 1s}", []string{"timeouts {0s 1s} route/r"}},
		{"a quoted off is a text", "", "", `rateLimit: {rate: 1, by: "off"}`, []string{"rateLimit {1 off 0 0 false} route/r"}},
		{"required from another layer", "cors: {allowOrigins: [a]}", "", "cors: {maxAge: 1m}", []string{"cors {[a] [] 1m false map[]} route/r"}},
		{"lists replace", "cors: {allowOrigins: [a, b]}", "", "cors: {allowOrigins: [c]}", []string{"cors {[c] [] 0s false map[]} route/r"}},
		{
			"maps in maps", "cors: {allowOrigins: [a], expose: {x: true, y: true}}", "", "cors: {expose: {x: off, z: false}}",
			[]string{"cors {[a] [] 0s false map[y:true z:false]} route/r"},
		},
		{"scalars replace", "plan: none", "", "plan: required", []string{"plan required route/r"}},
		{
			"stacked", "rateLimit: {rate: 1}", "rateLimit: {rate: 2}", "rateLimit: {rate: 3}",
			[]string{"rateLimit {1  0 0 false} gateway/edge", "rateLimit {2  0 0 false} service/s", "rateLimit {3  0 0 false} route/r"},
		},
		{
			"stacked, replaced", "rateLimit: {rate: 1}", "rateLimit: {rate: 2, replace: true}", "rateLimit: {rate: 3}",
			[]string{"rateLimit {2  0 0 true} service/s", "rateLimit {3  0 0 false} route/r"},
		},
		{"stacked, off", "rateLimit: {rate: 1}", "rateLimit: {rate: 2}", "rateLimit: off", nil},
		{"stacked, off between", "rateLimit: {rate: 1}", "rateLimit: off", "rateLimit: {rate: 3}", []string{"rateLimit {3  0 0 false} route/r"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := fmt.Sprintf("gateways: {edge: {listeners: {http: {port: 80}}, defaults: {%s}}}\n---\nservices: {s: {dns: 's:80', %s}}\n---\nroutes: {r: {hostnames: ['*'], backends: {s: 1}, %s}}\n",
				tt.defaults, tt.service, tt.route)
			m, problems := testLanguage().Load(files("a.yaml", in))
			if m == nil {
				t.Fatal(problems.Err())
			}
			var got []string
			for _, s := range m.Bound[m.Gateways[0]][0].Settings {
				got = append(got, fmt.Sprintf("%s %v %s", s.Kind.Key, reflect.ValueOf(s.Setting).Elem(), s.Layer))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestMergedLeavesKeepTheirPlaces: explain tells where each effective value was written.
func TestMergedLeavesKeepTheirPlaces(t *testing.T) {
	m, problems := testLanguage().Load(files("edge.yaml", edge, "teams/orders.yaml", orders))
	if m == nil {
		t.Fatal(problems.Err())
	}
	for set := range m.Bound[m.Gateways[0]][0].Settings.All("timeouts") {
		for key, want := range map[string]string{
			"request":        "edge.yaml:6:27 gateways.edge.defaults.timeouts.request",
			"backendRequest": "teams/orders.yaml:17:32 routes.orders.timeouts.backendRequest",
		} {
			n := set.Node.Get(key)
			if got := n.Pos.String() + " " + n.Path(); got != want {
				t.Errorf("%s: got %s, want %s", key, got, want)
			}
		}
		if got := set.Pos().String(); got != "teams/orders.yaml:17:5" {
			t.Errorf("the setting stands at %s", got)
		}
	}
}

// TestLoadDoesNotDependOnFiles: how a policy is cut into files changes positions and the revision, nothing else.
func TestLoadDoesNotDependOnFiles(t *testing.T) {
	one, problems := testLanguage().Load(files("z.yaml", orders+"---\n"+edge))
	two, problems2 := testLanguage().Load(files("edge.yaml", edge, "a/orders.yml", orders))
	if one == nil || two == nil {
		t.Fatal(problems.Err(), problems2.Err())
	}
	line := func(m *policy.Model) string {
		var out []string
		for _, l := range strings.Split(string(dump(m)), "\n") {
			l, _, _ = strings.Cut(l, "  #")
			out = append(out, l)
		}
		return strings.Join(out, "\n")
	}
	if diff := cmp.Diff(line(one), line(two)); diff != "" {
		t.Error(diff)
	}
}

func TestRevision(t *testing.T) {
	revision := func(f policy.Files) string {
		m, problems := testLanguage().Load(f)
		if m == nil {
			t.Fatal(problems.Err())
		}
		return m.Revision
	}
	base := revision(files("p.yaml", platform, "k.yaml", keyed, "keys.json", "{}", "other.json", "{}"))
	if got := revision(files("p.yaml", platform, "k.yaml", keyed, "keys.json", "{}", "other.json", "[]", "README.md", "x")); got != base {
		t.Error("files that nobody refers to change the revision")
	}
	if got := revision(files("p.yaml", platform, "k.yaml", keyed, "keys.json", "{ }", "other.json", "{}")); got == base {
		t.Error("a file that is referred to does not change the revision")
	}
	if got := revision(files("p.yaml", platform+"# x\n", "k.yaml", keyed, "keys.json", "{}")); got == base {
		t.Error("a policy file does not change the revision")
	}
}

func TestLoadRefusesTooMuch(t *testing.T) {
	many := make(policy.Files)
	for i := range policy.MaxFiles + 1 {
		many[fmt.Sprintf("%d.yaml", i)] = nil
	}
	large := policy.Files{}
	chunk := make([]byte, 1<<20)
	for i := range 65 {
		large[fmt.Sprintf("%d.json", i)] = chunk
	}
	large["a.yaml"] = []byte(platform)
	for name, f := range map[string]policy.Files{"files": many, "bytes": large, "none": nil} {
		if m, problems := testLanguage().Load(f); m != nil || len(problems) != 1 {
			t.Errorf("%s: got model %v, problems %v", name, m, problems)
		}
	}
}

// TestWarningsRefuseNothing: however many warnings a file has, it is taken, and its errors are told.
func TestWarningsRefuseNothing(t *testing.T) {
	l := policy.New(policy.Define[worry]("worry", policy.InService, ""))
	text := &strings.Builder{}
	text.WriteString("gateways: {edge: {listeners: {http: {port: 80}}}}\nroutes: {r: {hostnames: ['*'], backends: {s0: 1}}}\nservices:\n")
	for i := range 300 {
		fmt.Fprintf(text, "  s%d: {dns: 's:80', worry: true}\n", i)
	}
	m, problems := l.Load(files("a.yaml", text.String()))
	if m == nil || problems.HasErrors() {
		t.Errorf("300 warnings: got model %v, %v", m, problems.Err())
	}
	last := policy.Problem{Pos: policy.Pos{File: "a.yaml"}, Warning: true, Message: "more than 200 warnings: the rest is not shown"}
	if len(problems) != 201 || problems[0].Error() != last.Error() {
		t.Errorf("got %d problems, of which the first is %v, want 201 and %v", len(problems), problems[0], &last)
	}
	_, problems = l.Load(files("a.yaml", text.String()+"  z: {}\n"))
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), "services.z: a service needs endpoints") {
		t.Errorf("an error behind 300 warnings: got %v", err)
	}
}

// worry always warns.
type worry bool

func (*worry) Check(c *policy.Check) { c.Warnf("", "really?") }

// TestOneKeyInTwoPlaces: kinds may share a key where they can't meet, and are not taken for each other.
func TestOneKeyInTwoPlaces(t *testing.T) {
	l := policy.New(policy.Define[timeouts]("x", policy.InService, ""), policy.Define[plan]("x", policy.InDefaults|policy.InRoute, ""))
	m, problems := l.Load(files("a.yaml", "gateways: {edge: {listeners: {http: {port: 80}}, defaults: {x: none}}}\n"+
		"services: {s: {dns: 's:80', x: {request: 5s}}}\nroutes: {r: {hostnames: ['*'], backends: {s: 1}}}\n"))
	if m == nil {
		t.Fatal(problems.Err())
	}
	if p, ok := policy.Find[*plan](m.Bound[m.Gateways[0]][0].Settings); !ok || *p != "none" {
		t.Errorf("got %v, want the plan of the defaults", m.Bound[m.Gateways[0]][0].Settings)
	}
	defer func() {
		if recover() == nil {
			t.Error("two kinds of one key and place are taken")
		}
	}()
	policy.New(policy.Define[timeouts]("x", policy.InRoute, ""), policy.Define[plan]("x", policy.Layers, ""))
}
