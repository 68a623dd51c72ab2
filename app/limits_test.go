package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/legation/legation/ratelimit"
)

// plansPolicy has consumers with a plan of the policy, by a claim and with none, and a limit in shadow.
const plansPolicy = `gateways: {edge: {listeners: {http: {port: 10000, address: 127.0.0.1}}}}
auth: {idp: {jwt: {issuer: "https://quickstart.legation.test/", audiences: [quickstart], jwks: {file: keys.json}, plan: plan}}}
plans:
  free: {quota: 20/month}
  gold: {rate: 10/second, burst: 40, quota: 500/month}
consumers:
  acme: {plan: gold, jwt: {idp: [acme-web, "a/b c%?#ü"]}}
  other: {jwt: {idp: other}}
services: {api: {endpoints: ["127.0.0.1:9001"]}}
routes:
  api:
    hostnames: [localhost]
    auth: [idp]
    plan: optional
    rateLimit: [{rate: 5/day, by: consumer, exempt: [idp/probe]}, {rate: 2/day, by: consumer, shadow: true}, {rate: 100/day}]
    backends: {api: 1}
`

// counting is a process with that policy, which does not run, and its admin API.
func counting(t testing.TB, o Options) (*process, http.Handler) {
	t.Helper()
	o.Dir = policyDir(t, plansPolicy)
	p := assemble(t, o)
	p.control.Load()
	must(t, p.control.Outcome().Problems.Err())
	return p, adminOf(t, p)
}

// count has the consumer ask n times on the route.
func count(t testing.TB, p *process, consumer, plan string, n int) {
	t.Helper()
	for range n {
		p.limits.Count(t.Context(), []string{"route/api/0", "route/api/1", "route/api/2"},
			ratelimit.Attributes{Consumer: consumer, Plan: plan, Plans: ratelimit.PlanOptional}, 1)
	}
}

// answered is the JSON of a 200.
func answered[T any](t testing.TB, h http.Handler, path string) (v T) {
	t.Helper()
	status, header, body := call(h, "GET", path)
	if status != http.StatusOK || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s: got %d %s", path, status, body)
	}
	must(t, json.Unmarshal([]byte(body), &v))
	if strings.Contains(body, "null") {
		t.Errorf("%s: a list is null: %s", path, body)
	}
	return v
}

func TestUsageByHTTP(t *testing.T) {
	t.Parallel()
	p, h := counting(t, Options{})
	count(t, p, "acme", "gold", 3)
	count(t, p, "idp/bob", "", 4)
	quota := func(plan string, used, size int64) ratelimit.Usage {
		return ratelimit.Usage{Limit: "plan/quota", Plan: plan, Rate: fmt.Sprintf("%d/month (UTC)", size), Used: used, Size: size, Remaining: size - used}
	}
	byConsumer := func(used int64) []ratelimit.Usage {
		return []ratelimit.Usage{
			{Limit: "route/api/0", Rate: "5/day", Used: used, Size: 5, Remaining: 5 - used},
			{Limit: "route/api/1", Rate: "2/day", Shadow: true, Used: used, Size: 2, Remaining: max(0, 2-used)},
		}
	}
	gold := append([]ratelimit.Usage{{Limit: "plan/rate", Plan: "gold", Rate: "10/second burst 40", Size: 40}, quota("gold", 3, 500)}, byConsumer(0)...)
	for _, row := range []struct {
		path string
		want ConsumerUsage
	}{
		{"/usage/acme", ConsumerUsage{Consumer: "acme", Plan: "gold", Limits: gold}},
		{"/usage/idp/acme-web", ConsumerUsage{Consumer: "acme", Identity: "idp/acme-web", Plan: "gold", Limits: gold}},
		{"/usage/idp%2Facme-web", ConsumerUsage{Consumer: "acme", Identity: "idp/acme-web", Plan: "gold", Limits: gold}},
		{"/usage/" + url.PathEscape("idp/a/b c%?#ü"), ConsumerUsage{Consumer: "acme", Identity: "idp/a/b c%?#ü", Plan: "gold", Limits: gold}},
		{"/usage/acme?plan=free", ConsumerUsage{Consumer: "acme", Plan: "free", Limits: append([]ratelimit.Usage{quota("free", 3, 20)}, byConsumer(0)...)}},
		{"/usage/other", ConsumerUsage{Consumer: "other", Limits: byConsumer(0)}},
		{"/usage/idp%2Fbob", ConsumerUsage{Consumer: "idp/bob", Limits: byConsumer(4)}},
		{"/usage/idp/bob?plan=free", ConsumerUsage{Consumer: "idp/bob", Plan: "free", Limits: append([]ratelimit.Usage{quota("free", 0, 20)}, byConsumer(4)...)}},
		{"/usage/idp%2F%2E%2E%2F%2Fx", ConsumerUsage{Consumer: "idp/..//x", Limits: byConsumer(0)}},
	} {
		got := answered[ConsumerUsage](t, h, row.path)
		for i := range got.Limits {
			if u := &got.Limits[i]; u.Limit == "plan/rate" { // which fills meanwhile
				u.Used, u.Remaining = 0, 0
			}
		}
		if diff := cmp.Diff(row.want, got, cmpopts.IgnoreFields(ratelimit.Usage{}, "Reset")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.path, diff)
		}
	}
	if got := answered[ConsumerUsage](t, h, "/usage/idp/probe").Limits[0]; !got.Exempt {
		t.Errorf("an exempt consumer: %+v", got)
	}
	want := Consumers{Consumers: []Consumer{{"acme", "gold"}, {"other", ""}}, Plans: []string{"free", "gold"}}
	if diff := cmp.Diff(want, answered[Consumers](t, h, "/usage")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAdjustByHTTP(t *testing.T) {
	t.Parallel()
	_, h := counting(t, Options{})
	for i, row := range []struct {
		path, body      string
		used, remaining int64
	}{
		{"/usage/acme", `{"limit": "plan/quota", "hits": 7}`, 7, 493},
		{"/usage/idp%2Facme-web", `{"limit": "plan/quota", "hits": -2}`, 5, 495},
		{"/usage/idp%2Fbob?plan=free", `{"limit": "plan/quota", "hits": 25}`, 25, 0},
		{"/usage/idp%2Fbob?plan=free", `{"hits": -100, "limit": "plan/quota"}`, 0, 20},
		{"/usage/idp/bob", ` {"limit": "route/api/0", "hits": 1} `, 1, 4},
	} {
		status, _, body := call(h, "POST", row.path, "Content-Type", "application/json; charset=utf-8", bodyOf, row.body)
		var u ConsumerUsage
		if err := json.Unmarshal([]byte(body), &u); status != 200 || err != nil || len(u.Limits) != 1 || u.Limits[0].Used != row.used || u.Limits[0].Remaining != row.remaining {
			t.Errorf("%d: got %d %s, want %d used and %d left", i, status, body, row.used, row.remaining)
		}
	}
	if got := answered[ConsumerUsage](t, h, "/usage/acme").Limits[1].Used; got != 5 {
		t.Errorf("asked again: %d used, want 5", got)
	}
}

// Whatever is asked wrongly is told as JSON, and changes nothing.
func TestLimitsByHTTPRefuse(t *testing.T) {
	t.Parallel()
	p, h := counting(t, Options{})
	asJSON := []string{"Content-Type", "application/json"}
	good := `{"limit": "route/api/0", "hits": 1}`
	for _, row := range []struct {
		method, path, body string
		headers            []string
		status             int
		says               string
	}{
		{"GET", "/usage/", "", nil, 400, "name a consumer"},
		{"GET", "/usage/" + strings.Repeat("x", 5000), "", nil, 400, "at most 4096 bytes"},
		{"GET", "/usage/%ff", "", nil, 400, "UTF-8"},
		{"GET", "/usage/acme?plan=silver", "", nil, 404, `there is no plan \"silver\"`},
		{"GET", "/usage/acme?plna=free", "", nil, 400, `there is no parameter \"plna\"`},
		{"GET", "/usage/acme?plan=free&plan=gold", "", nil, 400, "stands here twice"},
		{"GET", "/usage/acme?plan=%zz", "", nil, 400, "the query can't be read"},
		{"GET", "/usage?n=1", "", nil, 400, "there is no parameter"},
		{"GET", "/limits?n=1", "", nil, 400, "there is no parameter"},
		{"GET", "/limits/top?n=0", "", nil, 400, "want a number from 1 to 256"},
		{"GET", "/limits/top?n=257", "", nil, 400, "want a number from 1 to 256"},
		{"GET", "/limits/top?n=x", "", nil, 400, "want a number"},
		{"GET", "/limits/top?limit=x", "", nil, 400, "there is no parameter"},
		{"GET", "/limits/report?limit=x", "", nil, 404, `there is no limit \"x\"`},
		{"GET", "/limits/report?n=1", "", nil, 400, "there is no parameter"},

		{"POST", "/usage/acme", good, nil, 415, "application/json"},
		{"POST", "/usage/acme", good, []string{"Content-Type", "text/plain"}, 415, "application/json"},
		{"POST", "/usage/acme", good, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "application/json"},
		{"POST", "/usage/acme", good, append([]string{"Origin", "https://evil.example"}, asJSON...), 403, "another site"},
		{"POST", "/usage/acme", good, append([]string{"Host", "evil.example"}, asJSON...), 403, "loopback"},
		{"POST", "/usage/acme", "", asJSON, 400, "want {"},
		{"POST", "/usage/acme", "[]", asJSON, 400, "want {"},
		{"POST", "/usage/acme", good + good, asJSON, 400, "something comes after"},
		{"POST", "/usage/acme", `{"limit": "route/api/0", "hits": 1, "plan": "free"}`, asJSON, 400, "unknown field"},
		{"POST", "/usage/acme", `{"limit": "route/api/0", "hits": 1.5}`, asJSON, 400, "want {"},
		{"POST", "/usage/acme", `{"limit": "route/api/0", "hits": "1"}`, asJSON, 400, "want {"},
		{"POST", "/usage/acme", `{"limit": "route/api/0"}`, asJSON, 400, "hits: want"},
		{"POST", "/usage/acme", `{"hits": 1}`, asJSON, 400, "limit: name one"},
		{"POST", "/usage/acme", `{"limit": "route/api/0", "hits": 9007199254740993}`, asJSON, 400, "2^53"},
		{"POST", "/usage/acme", `{"limit": "route/api/0", "hits": -9223372036854775808}`, asJSON, 400, "2^53"},
		{"POST", "/usage/acme", `{"limit": "` + strings.Repeat("x", 9000) + `", "hits": 1}`, asJSON, 413, "at most 8192 bytes"},
		{"POST", "/usage/acme", `{"limit": "route/api/2", "hits": 1}`, asJSON, 404, `there is no limit \"route/api/2\" that counts by consumer alone`},
		{"POST", "/usage/other", `{"limit": "plan/quota", "hits": 1}`, asJSON, 404, "there is no limit"},
		{"POST", "/usage/acme?plan=silver", good, asJSON, 404, "there is no plan"},
		{"POST", "/usage/idp/probe", good, asJSON, 400, "exempt"},
		{"POST", "/usage", good, asJSON, 405, "GET, HEAD"},
		{"PUT", "/usage/acme", good, asJSON, 405, "POST"},
		{"DELETE", "/usage/acme", "", nil, 405, "POST"},
		{"POST", "/limits/report", good, asJSON, 405, "GET, HEAD"},
	} {
		status, header, body := call(h, row.method, row.path, append(slices.Clone(row.headers), bodyOf, row.body)...)
		var told struct{ Error string }
		err := json.Unmarshal([]byte(body), &told)
		if status != row.status || !strings.Contains(body, row.says) || err != nil || told.Error == "" {
			t.Errorf("%s %.60s %.60s: got %d %s, want %d and %q", row.method, row.path, row.body, status, body, row.status, row.says)
		}
		if status == 405 && !strings.Contains(header.Get("Allow"), "GET") {
			t.Errorf("%s %s: Allow is %q", row.method, row.path, header.Get("Allow"))
		}
	}
	for _, consumer := range []string{"acme", "other"} {
		for _, u := range answered[ConsumerUsage](t, h, "/usage/"+consumer).Limits {
			if u.Used != 0 {
				t.Errorf("%s: %+v, though nothing was counted", consumer, u)
			}
		}
	}
	if status, _, body := call(h, "HEAD", "/usage/acme"); status != 200 {
		t.Errorf("HEAD: got %d %s", status, body)
	}
	p.limits = nil
	if status, _, body := call(h, "GET", "/usage/acme"); status != 404 || !strings.Contains(body, "role") {
		t.Errorf("a process that counts nothing: got %d %s", status, body)
	}
	p = assemble(t, Options{Dir: policyDir(t, "routes: [\n")})
	if status, _, body := call(adminOf(t, p), "GET", "/usage/acme"); status != 503 || !strings.Contains(body, "no whole policy") {
		t.Errorf("before the first load: got %d %s", status, body)
	}
}

func TestLimitsByHTTPNeedTheToken(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "token"), adminToken)
	_, h := counting(t, Options{AdminTokenFile: file})
	for _, path := range []string{"/limits", "/limits/top", "/limits/report", "/usage", "/usage/acme"} {
		if status, _, _ := call(h, "GET", path); status != 401 {
			t.Errorf("%s without the token: got %d, want 401", path, status)
		}
		if status, _, body := call(h, "GET", path, "Authorization", "Bearer "+adminToken); status != 200 {
			t.Errorf("%s with the token: got %d %s", path, status, body)
		}
	}
	change := []string{"Content-Type", "application/json", bodyOf, `{"limit": "plan/quota", "hits": 7}`}
	if status, _, _ := call(h, "POST", "/usage/acme", change...); status != 401 {
		t.Errorf("POST without the token: got %d, want 401", status)
	}
	if status, _, body := call(h, "POST", "/usage/acme", append([]string{"Authorization", "Bearer " + adminToken}, change...)...); status != 200 || !strings.Contains(body, `"used": 7`) {
		t.Errorf("POST with the token: got %d %s", status, body)
	}
}

func TestStoreThatCannotTell(t *testing.T) {
	t.Parallel()
	_, h := counting(t, Options{Redis: "redis://user:hunter2@127.0.0.1:1"})
	status, _, body := call(h, "GET", "/usage/acme")
	if status != 503 || !strings.Contains(body, `"error"`) || strings.Contains(body, "hunter2") {
		t.Errorf("got %d %s", status, body)
	}
}

func TestReportAndTopByHTTP(t *testing.T) {
	t.Parallel()
	p, h := counting(t, Options{})
	count(t, p, "idp/bob", "", 6)
	report := answered[Report](t, h, "/limits/report")
	names := func() (all []string) {
		for _, l := range report.Limits {
			all = append(all, l.Limit)
		}
		return all
	}
	if diff := cmp.Diff([]string{"route/api/0", "route/api/1"}, names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	shadow := report.Limits[1]
	if !shadow.Shadow || shadow.Over != 4 || shadow.Peak != 6 || shadow.Worst[0].Value != "idp/bob" {
		t.Errorf("in shadow: %+v", shadow)
	}
	report = answered[Report](t, h, "/limits/report?limit="+url.QueryEscape("route/api/1"))
	if diff := cmp.Diff([]string{"route/api/1"}, names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if report = answered[Report](t, h, "/limits/report?limit=plan/quota"); len(report.Limits) > 0 {
		t.Errorf("of a limit that has nothing to tell: %+v", report)
	}
	top := answered[Top](t, h, "/limits/top?n=1")
	if len(top.Busiest) != 1 || top.Busiest[0].Rate <= 0 {
		t.Errorf("got %+v", top)
	}
	sum := top
	sum.Add(top)
	if sum.Busiest[0].Rate != 2*top.Busiest[0].Rate {
		t.Errorf("twice %+v is %+v", top, sum)
	}
	both := answered[Report](t, h, "/limits/report")
	both.Add(both)
	if len(both.Limits) != 2 || both.Limits[1].Over != 8 {
		t.Errorf("twice the report is %+v", both)
	}
	want := []string{"plan/quota", "plan/rate", "route/api/0", "route/api/1", "route/api/2"}
	if diff := cmp.Diff(want, answered[Limits](t, h, "/limits").Limits); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
