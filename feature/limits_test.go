package feature_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

const manyLimits = `gateways:
  edge:
    listeners: {http: {port: 10000}}
    defaults: {rateLimit: {rate: 200/second, by: ip, mode: perEnvoy, shadow: false}}
auth: {idp: {jwt: {issuer: "https://id.example.com/", audiences: [a], jwks: "https://id.example.com/keys.json"}}}
services: {a: {endpoints: ["10.0.0.1:80"], rateLimit: {rate: 10/second, burst: 20, onError: deny}}}
routes:
  a:
    hostnames: [a.test]
    auth: [idp]
    rateLimit:
      - {rate: 5000/30s, mode: leased, by: [consumer, {ip: /56}]}
      - {quota: 10/day, by: {header: X-Team}, shadow: true, mode: leased}
      - {rate: 5/minute, algorithm: slidingWindow, by: {cel: request.method}}
    backends: {a: 1}
  b: {hostnames: [b.test], backends: {a: 1}}
plans: {free: {rate: 5/second, mode: leased, quota: 20/month, timeZone: Europe/Berlin}}
rateLimits:
  other:
    domain: messages
    descriptors:
      - {entry: remote_address, rate: 10/second}
      - {entry: remote_address, range: 10.0.0.0/8, unlimited: true}
      - entry: kind
        value: sales
        rate: 9/minute
        descriptors: [{entry: to, rate: 5/day, shadow: true}, {entry: to, value: me*, shared: true, quota: 1/week}]
`

func TestLimitsAreListed(t *testing.T) {
	m, problems := feature.Language().Load(policy.Files{"a.yaml": []byte(manyLimits)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	at := func(line, col int) policy.Pos { return policy.Pos{File: "a.yaml", Line: line, Col: col} }
	want := []feature.Limit{
		{Name: "gateway/edge/0", Rate: "200/second burst 200", By: []string{"ip"}, Algorithm: "gcra", Mode: "perEnvoy", Pos: at(4, 16)},
		{Name: "rateLimits/messages/kind=sales", Rate: "9/minute", By: []string{}, Algorithm: "fixedWindow", Mode: "exact", OnError: "local", Pos: at(24, 9)},
		{Name: "rateLimits/messages/kind=sales/to", Rate: "5/day", By: []string{}, Algorithm: "fixedWindow", Mode: "exact", OnError: "local", Shadow: true, Pos: at(27, 23)},
		{Name: "rateLimits/messages/kind=sales/to=me*", Rate: "1/week (UTC)", By: []string{}, Algorithm: "calendar", Mode: "exact", OnError: "local", Pos: at(27, 63)},
		{Name: "rateLimits/messages/remote_address", Rate: "10/second", By: []string{}, Algorithm: "fixedWindow", Mode: "exact", OnError: "local", Pos: at(22, 9)},
		{Name: "route/a/0", Rate: "5000/30s", By: []string{"consumer", "ip /56"}, Algorithm: "fixedWindow", Mode: "leased", Lease: 50, OnError: "local", Pos: at(12, 9)},
		{Name: "route/a/1", Rate: "10/day (UTC)", By: []string{"header x-team"}, Algorithm: "calendar", Mode: "exact", OnError: "local", Shadow: true, Pos: at(13, 9)},
		{Name: "route/a/2", Rate: "5/minute sliding", By: []string{"cel request.method"}, Algorithm: "slidingWindow", Mode: "exact", OnError: "local", Pos: at(14, 9)},
		{Name: "service/a/0", Rate: "10/second burst 20", By: []string{}, Algorithm: "gcra", Mode: "exact", OnError: "deny", Pos: at(6, 44)},
		{Name: "plan/rate", Plan: "free", Rate: "5/second", By: []string{"consumer"}, Algorithm: "fixedWindow", Mode: "leased", Lease: 1, OnError: "local"},
		{Name: "plan/quota", Plan: "free", Rate: "20/month (Europe/Berlin)", By: []string{"consumer"}, Algorithm: "calendar", Mode: "leased", Lease: 1, OnError: "local"},
	}
	got := feature.Limits(m)
	for i := range got {
		if got[i].Pos.File != "a.yaml" || got[i].Pos.Line == 0 {
			t.Errorf("%s stands nowhere: %v", got[i].Name, got[i].Pos)
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(feature.Limit{}, "Pos")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i := range want {
		if i < len(got) && want[i].Pos.Line > 0 && got[i].Pos.Line != want[i].Pos.Line {
			t.Errorf("%s: at %v, want %v", got[i].Name, got[i].Pos, want[i].Pos)
		}
	}
}

// The names are those by which the companion tells of the limits.
func TestListedNamesAreTheCompanions(t *testing.T) {
	m, problems := feature.Language().Load(policy.Files{"a.yaml": []byte(manyLimits)})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	_, table := feature.Companions(m)
	s := ratelimit.New(ratelimit.Options{})
	defer s.Close()
	s.Load(table)
	var names []string
	for _, l := range feature.Limits(m) {
		if l.Mode != "perEnvoy" {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	counted := slices.DeleteFunc(s.Limits(), func(name string) bool { return name == "rateLimits/messages/remote_address=10.0.0.0/8" }) // unlimited
	if diff := cmp.Diff(counted, names); diff != "" {
		t.Errorf("(-counted +listed):\n%s", diff)
	}
}
