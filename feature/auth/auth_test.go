package auth_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	companion "github.com/legation/legation/auth"
	"github.com/legation/legation/feature/auth"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/policy"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata", auth.Kind, passwordKind,
		policy.Define[certificate]("certificate", policy.InAuth, ""),
		policy.Define[guest]("guest", policy.InAuth, ""),
		policy.Define[clients]("clients", policy.InListener, ""))
}

func TestWaysAroundAuthAreWarnedOf(t *testing.T) {
	golden.Run(t, "testdata/around", auth.Kind, passwordKind, policy.Define[paths]("paths", policy.Layers, ""))
}

// password stands for a way to tell who calls.
type password string

var passwordKind = policy.Define[password]("password", policy.InAuth, "")

func (*password) Check(*policy.Check) {}

func (p *password) Provider(name string) companion.Provider {
	return companion.Provider{Name: name, JWT: &companion.JWT{Issuer: string(*p)}}
}

// certificate and guest stand for ways to tell who calls that not every place has, clients for what listeners do.
type (
	certificate string
	guest       string
	clients     string
)

func (*certificate) Check(*policy.Check)     {}
func (*certificate) NeedsCertificates() bool { return true }

func (*guest) Check(*policy.Check) {}
func (*guest) TakesGuests() bool   { return true }

func (*clients) Check(*policy.Check)     {}
func (c *clients) VerifiesClients() bool { return *c == "verified" }

// paths stands for the key that lets paths through which strict refuses.
type paths string

func (paths) Values() []string      { return []string{"strict", "lenient"} }
func (*paths) Check(*policy.Check)  {}
func (p *paths) TakesAnyPath() bool { return *p == "lenient" }

// names stands for what a consumer is known by, and quota for limits.
type (
	names []string
	quota []string
)

func (*names) Check(*policy.Check)    {}
func (n *names) Identities() []string { return *n }

func (*quota) Check(*policy.Check) {}
func (q *quota) LimitIDs(layer policy.Layer) []string {
	var ids []string
	for _, name := range *q {
		ids = append(ids, layer.String()+"/"+name)
	}
	return ids
}

func (*quota) Claims() []string { return []string{"tenant", "team"} }

// uses stands for the key plan of routes, and tariff for that of consumers.
type (
	uses   string
	tariff string
)

func (*uses) Check(*policy.Check)          {}
func (u *uses) PlanUse() companion.PlanUse { return companion.PlanUse(*u) }

func (*tariff) Check(*policy.Check) {}
func (p *tariff) Plan() string      { return string(*p) }

func TestTable(t *testing.T) {
	lang := policy.New(auth.Kind, passwordKind,
		policy.Define[names]("names", policy.InConsumer, ""),
		policy.Define[uses]("uses", policy.Layers, ""),
		policy.Define[tariff]("tariff", policy.InConsumer, ""),
		policy.Define[quota]("quota", policy.Layers, "").Stack())
	m, problems := lang.Load(policy.Files{"policy.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 10000}}, defaults: {quota: [total]}}}
auth: {staff: {password: secret}, guests: {password: welcome}}
consumers: {acme: {tariff: gold, names: [staff/alice, guests/alice]}}
services: {orders: {endpoints: ["10.0.0.1:80"]}}
routes:
  asked: {hostnames: [a.test], match: {path: /asked}, auth: [staff, guests], uses: required, quota: [reads], backends: {orders: 1}}
  open: {hostnames: [a.test], auth: none, backends: {orders: 1}}
`)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	want := companion.Table{
		Rules: []companion.Rule{{
			Name: "edge/asked",
			Providers: []companion.Provider{
				{Name: "staff", JWT: &companion.JWT{Issuer: "secret"}},
				{Name: "guests", JWT: &companion.JWT{Issuer: "welcome"}},
			},
			Limits:   []string{"gateway/edge/total", "route/asked/reads"},
			Plan:     companion.PlanRequired,
			Metadata: []string{"team", "tenant"},
		}},
		Consumers: []companion.Consumer{{Name: "acme", Plan: "gold", Identities: []string{"staff/alice", "guests/alice"}}},
	}
	if diff := cmp.Diff(want, auth.Table(m), cmpopts.IgnoreFields(companion.Rule{}, "Known")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
