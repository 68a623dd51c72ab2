package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/app"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/ratelimit"
)

// adminAPI answers each path, with its query, with the JSON of a value; requests tells what was asked, with bodies.
func adminAPI(t testing.TB, answers map[string]any) (url string, requests func() []string) {
	t.Helper()
	all := make(chan string, 100)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		all <- strings.TrimSpace(fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Header.Get("Content-Type"), " ", string(body)))
		answer, ok := answers[r.RequestURI]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]string{"error": "there is no such thing"}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(h.Close)
	return h.URL, func() (list []string) {
		for len(all) > 0 {
			list = append(list, <-all)
		}
		return list
	}
}

// usageOf is what acme has used.
func usageOf() app.ConsumerUsage {
	return app.ConsumerUsage{Consumer: "acme", Identity: "idp/a b", Plan: "gold", Limits: []ratelimit.Usage{
		{Limit: "plan/rate", Plan: "gold", Rate: "10/second burst 40", Used: 0, Size: 40, Remaining: 40},
		{Limit: "plan/quota", Plan: "gold", Rate: "500/month (UTC)", Used: 499, Size: 500, Remaining: 1, Reset: 9*86400 + 3*3600 + 59},
		{Limit: "route/api/0", Rate: "5/day", Shadow: true, Used: 7, Size: 5, Reset: 3725},
		{Limit: "route/api/1", Rate: "unlimited", Exempt: true},
	}}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	one := usageOf()
	one.Limits = one.Limits[1:2]
	url, requests := adminAPI(t, map[string]any{
		"/usage/idp%2Fa%20b": usageOf(), "/usage/acme?plan=gold": usageOf(), "/usage/acme": one,
		"/usage/none": app.ConsumerUsage{Consumer: "none", Limits: []ratelimit.Usage{}},
	})
	for _, row := range []struct {
		args   []string
		status int
		asks   string
		says   []string
	}{
		{[]string{"idp/a b"}, 0, "GET /usage/idp%2Fa%20b", []string{
			"acme (idp/a b), plan gold\n",
			"LIMIT        RATE                USED         OF   LEFT  RESETS\n",
			"plan/rate    10/second burst 40  0            40   40    -\n",
			"plan/quota   500/month (UTC)     499          500  1     in 9d3h, on 20",
			"route/api/0  5/day, in shadow    7            5    0     in 1h2m5s, at ",
			"route/api/1  unlimited           not counted",
		}},
		{[]string{"acme", "--plan", "gold", "--limit", "plan/rate"}, 0, "GET /usage/acme?plan=gold", []string{"plan/rate"}},
		{[]string{"acme", "--limit", "other"}, 1, "GET /usage/acme", []string{`there is no limit "other"`}},
		{[]string{"none"}, 0, "GET /usage/none", []string{"none, no plan that the policy gives it\nnothing is counted"}},
		{[]string{"nobody"}, 1, "GET /usage/nobody", []string{"/usage/nobody: 404 Not Found: there is no such thing\n"}},
		{[]string{"acme", "--limit", "plan/quota", "--add", "5"}, 0, `POST /usage/acme application/json {"limit":"plan/quota","hits":5}`, []string{"499"}},
		{[]string{"acme", "--limit", "plan/quota", "--give-back", "5"}, 0, `POST /usage/acme application/json {"limit":"plan/quota","hits":-5}`, []string{"499"}},
		{[]string{"acme", "--plan", "gold", "--limit", "a/0", "--add", "1"}, 0, `POST /usage/acme?plan=gold application/json {"limit":"a/0","hits":1}`, nil},
	} {
		status, out, errs := legation(append([]string{"usage", "--server", url}, row.args...)...)
		if status != row.status || (status == 0) != (errs == "") {
			t.Errorf("%v: got %d %q, want %d", row.args, status, errs, row.status)
		}
		if diff := cmp.Diff([]string{row.asks}, requests()); diff != "" {
			t.Errorf("%v asks (-want +got):\n%s", row.args, diff)
		}
		for _, part := range row.says {
			if !strings.Contains(out+errs, part) {
				t.Errorf("%v: got\n%s%s\nwant %q in it", row.args, out, errs, part)
			}
		}
	}
	var got app.ConsumerUsage
	asked(t, 0, &got, "usage", "idp/a b", "--server", url, "-o", "json")
	if diff := cmp.Diff(usageOf(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBars(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		used, size int64
		want       string
	}{
		{0, 10, "[----------]"},
		{1, 1_000_000, "[#---------]"},
		{19, 20, "[#########-]"},
		{20, 20, "[##########]"},
		{90, 20, "[##########]"},
		{1 << 53, 1 << 53, "[##########]"},
		{0, 0, "[----------]"},
	} {
		if got := bar(row.used, row.size); got != row.want {
			t.Errorf("%d of %d: got %s, want %s", row.used, row.size, got, row.want)
		}
	}
}

// Bars are for terminals.
func TestNoBarsInFiles(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	defer f.Close()
	must(t, showUsage(f, usageOf(), time.Now()))
	text, err := os.ReadFile(f.Name())
	must(t, err)
	if strings.Contains(string(text), "#") {
		t.Errorf("got %s", text)
	}
}

func TestLimitsTop(t *testing.T) {
	t.Parallel()
	answer := func(rates ...float64) map[string]any {
		top := app.Top{}
		for i, rate := range rates {
			top.Busiest = append(top.Busiest, ratelimit.Busy{Limit: "route/api/0", Value: string(rune('a' + i)), Rate: rate, Over: float64(i) / 2})
		}
		return map[string]any{"/limits/top?n=256": top}
	}
	first, _ := adminAPI(t, answer(30, 20, 10))
	second, _ := adminAPI(t, answer(1, 2, 25.26))
	silent, _ := adminAPI(t, map[string]any{"/limits/top?n=256": app.Top{Busiest: []ratelimit.Busy{}}})
	for _, row := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--server", first, "-n", "2"}, 0, "LIMIT        VALUE  REQUESTS/S  OVER\nroute/api/0  a      30.0        -\nroute/api/0  b      20.0        50 %\n"},
		{
			[]string{"--server", first, "--server", second, "-n", "1"},
			0,
			"LIMIT        VALUE  REQUESTS/S  OVER\nroute/api/0  c      35.3        100 %\n",
		},
		{[]string{"--server", first + "," + second, "-n", "1"}, 0, "LIMIT        VALUE  REQUESTS/S  OVER\nroute/api/0  c      35.3        100 %\n"},
		{[]string{"--server", silent}, 0, "nobody asked for a limit in the last minute\n"},
		{[]string{"--server", first, "--server", "127.0.0.1:1", "-n", "1"}, 1, "LIMIT        VALUE  REQUESTS/S  OVER\nroute/api/0  a      30.0        -\n"},
	} {
		status, out, errs := legation(append([]string{"limits", "top"}, row.args...)...)
		if diff := cmp.Diff(row.want, out); diff != "" || status != row.status {
			t.Errorf("%v: got %d %s (-want +got):\n%s", row.args, status, errs, diff)
		}
		if status == 1 && (!strings.Contains(errs, "this is not all") || !strings.Contains(errs, "127.0.0.1:1")) {
			t.Errorf("%v: got %q, want it to say who did not answer", row.args, errs)
		}
	}
	var got app.Top
	asked(t, 0, &got, "limits", "top", "--server", first, "--server", second, "-n", "1", "-o", "json")
	if len(got.Busiest) != 1 || got.Busiest[0].Value != "c" {
		t.Errorf("as JSON: %+v", got)
	}
}

func TestLimitsReport(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	shadow := ratelimit.Report{
		Limit: "route/search/0", Rate: "30/minute", Shadow: true, Since: at, Requests: 1204, Over: 56, Values: 37, ValuesOver: 1, Peak: 84, Fits99: 42,
		Worst: []ratelimit.ValueReport{{Value: "idp/alice", Over: 56, Least: 50, First: at, Last: at.Add(time.Hour), Peak: 84}},
	}
	strict := ratelimit.Report{Limit: "plan/quota", Since: at, Requests: 1, Over: 100, ValuesOver: 25}
	for i := range 25 {
		strict.Worst = append(strict.Worst, ratelimit.ValueReport{Value: fmt.Sprintf("v%02d", i), Over: 4, Least: 4, First: at, Last: at})
	}
	url, requests := adminAPI(t, map[string]any{
		"/limits/report":                          app.Report{Limits: []ratelimit.Report{strict, shadow}},
		"/limits/report?limit=route%2Fquiet%2F0":  app.Report{Limits: []ratelimit.Report{}},
		"/limits/report?limit=route%2Fsearch%2F0": app.Report{Limits: []ratelimit.Report{shadow}},
	})
	_, out, errs := legation("limits", "report", "--server", url)
	for _, part := range []string{
		"plan/quota, since 2026-03-04 05:06:07 (",
		"  1 request; 100 were refused, of 25 values\n  VALUE  OVER  FIRST                LAST\n  v00    4     2026-03-04 05:06:07  2026-03-04 05:06:07\n",
		"  v19 ", "  and 5 more: -o json\n\nroute/search/0, 30/minute, in shadow, since",
		"  1204 requests of 37 values; 56 would have been refused, of 1 value\n",
		"  rate: 84/minute would have refused nobody; with rate: 42/minute, 99 of 100 windows are within it\n",
		"  VALUE      OVER   FIRST                LAST                 WOULD FIT\n  idp/alice  50-56  2026-03-04 05:06:07  2026-03-04 06:06:07  84\n",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("got %s%s\nwant %q in it", out, errs, part)
		}
	}
	if strings.Contains(out, "v20") {
		t.Errorf("all values are shown: %s", out)
	}
	_, out, _ = legation("limits", "report", "--server", url, "--server", url, "--limit", "route/search/0")
	if !strings.Contains(out, "2408 requests of 37 values; 112 would") || !strings.Contains(out, "100-112") {
		t.Errorf("of two processes: got %s", out)
	}
	if _, out, _ = legation("limits", "report", "--server", url, "--limit", "route/quiet/0"); !strings.HasPrefix(out, "nothing to report of route/quiet/0: ") {
		t.Errorf("got %s", out)
	}
	requests()
	if status, _, errs := legation("limits", "report", "--server", url, "--limit", "a&b=c is/?"); status != 1 || !strings.Contains(errs, "no such thing") {
		t.Errorf("got %d %s", status, errs)
	}
	if diff := cmp.Diff([]string{"GET /limits/report?limit=a%26b%3Dc+is%2F%3F"}, requests()); diff != "" {
		t.Errorf("asks (-want +got):\n%s", diff)
	}
	quiet, _ := adminAPI(t, map[string]any{"/limits/report": app.Report{}})
	if _, out, _ = legation("limits", "report", "--server", quiet); !strings.HasPrefix(out, "nothing to report: ") {
		t.Errorf("got %s", out)
	}
}

func TestLimitsList(t *testing.T) {
	t.Parallel()
	dir := "../../examples/plans"
	status, out, errs := legation("limits", "list", dir)
	if status != 0 || errs != "" {
		t.Fatalf("got %d %s", status, errs)
	}
	for _, want := range []string{
		"NAME RATE BY ALGORITHM MODE ONERROR AT",
		"gateway/edge/0 200/second burst 400 ip gcra perEnvoy - policy.yaml:",
		"route/login/0 5/minute sliding ip slidingWindow exact deny policy.yaml:",
		"route/search/0 30/minute cookie session fixedWindow exact, shadow local policy.yaml:",
		"plan/quota of free 20/month (Europe/Berlin) consumer calendar exact local policy.yaml:",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("got %s\nwant %q in it", out, want)
		}
	}
	var got struct{ Limits []feature.Limit }
	asked(t, 0, &got, "limits", "list", dir, "-o", "json")
	if len(got.Limits) != 8 || got.Limits[7].Plan != "gold" || got.Limits[0].By[0] != "ip" || got.Limits[0].Pos.File != "policy.yaml" {
		t.Errorf("as JSON: %+v", got)
	}
}

// What may stand in a command line is asked of the process.
func TestNamesAreCompletedByTheProcess(t *testing.T) {
	t.Parallel()
	url, _ := adminAPI(t, map[string]any{
		"/usage":  app.Consumers{Consumers: []app.Consumer{{Name: "acme", Plan: "gold"}, {Name: "other"}}, Plans: []string{"free", "gold"}},
		"/limits": app.Limits{Limits: []string{"plan/quota", "route/api/0"}},
	})
	for _, row := range []struct{ typed, want string }{
		{"usage --server URL |", "acme other :4"},
		{"usage --server URL acme |", ":4"},
		{"usage acme --server URL --plan |", "free gold :4"},
		{"usage acme --server URL --limit |", "plan/quota route/api/0 :4"},
		{"limits report --server URL --limit |", "plan/quota route/api/0 :4"},
	} {
		args := strings.Fields(strings.NewReplacer("URL", url, "|", "").Replace(row.typed))
		status, out, errs := legation(append(append([]string{"__complete"}, args...), "")...)
		if got := strings.Join(strings.Fields(out), " "); status != 0 || got != row.want {
			t.Errorf("%s: got %d %q %s, want %q", row.typed, status, got, errs, row.want)
		}
	}
}

// Several processes may stand in the environment too; a verb that asks one says so.
func TestServersSettings(t *testing.T) {
	first, requests := adminAPI(t, map[string]any{"/limits/report": app.Report{}, "/usage/a": app.ConsumerUsage{}})
	t.Chdir(t.TempDir())
	for _, way := range []string{first + "," + first, first + " " + strings.TrimPrefix(first, "http://") + "/"} {
		t.Setenv("LEGATION_SERVER", way)
		if status, _, errs := legation("limits", "report"); status != 0 || len(requests()) != 2 {
			t.Errorf("%s: got %d %s, want both asked", way, status, errs)
		}
		if status, _, errs := legation("usage", "a"); status != 2 || !strings.Contains(errs, "asks one process") {
			t.Errorf("%s: got %d %s", way, status, errs)
		}
	}
	must(t, os.Unsetenv("LEGATION_SERVER"))
	must(t, os.WriteFile(settingsFile, []byte("server: ["+first+", "+first+"]\n"), 0o600))
	if status, _, errs := legation("limits", "report"); status != 0 || len(requests()) != 2 {
		t.Errorf("in %s: got %d %s, want both asked", settingsFile, status, errs)
	}
}
