package plan_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/plan"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

// login stands for auth: the entries that a route asks for.
type login []string

func (*login) Check(*policy.Check) {}
func (l *login) Entries() []string { return *l }

// token stands for a way to tell who calls: the claim that names the plan.
type token string

func (*token) Check(*policy.Check) {}
func (c *token) PlanClaim() string { return string(*c) }

// names stands for what a consumer is known by.
type names []string

func (*names) Check(*policy.Check)    {}
func (n *names) Identities() []string { return *n }

func kinds() []*policy.Kind {
	return []*policy.Kind{
		plan.Kind, plan.ConsumerKind,
		plan.BurstKind, plan.HeadersKind, plan.ModeKind, plan.QuotaKind, plan.RateKind, plan.RefundKind, plan.TimeZoneKind,
		policy.Define[login]("auth", policy.Layers, ""),
		policy.Define[token]("token", policy.InAuth, ""),
		policy.Define[names]("names", policy.InConsumer, ""),
	}
}

func TestGolden(t *testing.T) { golden.Run(t, "testdata", kinds()...) }

func TestPlans(t *testing.T) {
	m, problems := policy.New(kinds()...).Load(policy.Files{"policy.yaml": []byte(`
gateways: {edge: {listeners: {http: {port: 10000}}}}
plans:
  gold: {rate: 200/second, burst: 400, quota: 5000000/month, timeZone: Europe/Berlin, mode: leased, headers: [structured, legacy]}
  free: {quota: 100/week, timeZone: UTC}
  trial: {rate: 10/minute, headers: none}
`)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	by := []ratelimit.By{{Kind: ratelimit.Consumer}}
	want := []ratelimit.Plan{
		{Name: "free", Limits: []ratelimit.Limit{
			{Name: "plan/quota", By: by, Rate: ratelimit.Rate{Requests: 100, Algorithm: store.Calendar, Period: store.Week}},
		}},
		{Name: "gold", Limits: []ratelimit.Limit{
			{
				Name: "plan/rate", By: by, Rate: ratelimit.Rate{Requests: 200, Window: time.Second, Burst: 400, Algorithm: store.GCRA},
				Lease: 2, Headers: ratelimit.Structured | ratelimit.Legacy,
			},
			{
				Name: "plan/quota", By: by,
				Rate:  ratelimit.Rate{Requests: 5000000, Algorithm: store.Calendar, Period: store.Month, Zone: "Europe/Berlin"},
				Lease: 1000, Headers: ratelimit.Structured | ratelimit.Legacy,
			},
		}},
		{Name: "trial", Limits: []ratelimit.Limit{
			{Name: "plan/rate", By: by, Rate: ratelimit.Rate{Requests: 10, Window: time.Minute}, Headers: ratelimit.NoHeaders},
		}},
	}
	got := plan.Plans(m)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, p := range got {
		for _, l := range p.Limits {
			if err := l.Validate(); err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
		}
	}
}
