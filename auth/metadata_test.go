package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/expr"
)

func TestURLsOfCallers(t *testing.T) {
	const at = "https://a.test/v1/{consumer}/x?t={claims.tenant}"
	for _, test := range []struct{ consumer, claims, want string }{
		{"idp/alice", `{"tenant": "acme"}`, "https://a.test/v1/idp%2Falice/x?t=acme"},
		{"a b&c=d#e?f%2e", `{"tenant": 7}`, "https://a.test/v1/a%20b%26c%3Dd%23e%3Ff%252e/x?t=7"},
		{"ø", `{"tenant": true}`, "https://a.test/v1/%C3%B8/x?t=true"},
		{"{claims.tenant}", `{"tenant": "{consumer}"}`, "https://a.test/v1/%7Bclaims.tenant%7D/x?t=%7Bconsumer%7D"},
		{"a.b", `{"tenant": "v1.2"}`, "https://a.test/v1/a.b/x?t=v1.2"},
		{"", `{"tenant": "acme"}`, ""},
		{"alice", `{}`, ""},
		{"alice", `{"tenant": ""}`, ""},
		{"alice", `{"tenant": null}`, ""},
		{"alice", `{"tenant": ["acme"]}`, ""},
		{"alice", `{"tenant": {"a": 1}}`, ""},
		{"..", `{"tenant": "acme"}`, ""},
		{".", `{"tenant": "acme"}`, ""},
		{"idp/../admin", `{"tenant": "acme"}`, ""},
		{`idp\..\admin`, `{"tenant": "acme"}`, ""},
		{"idp/..;x/admin", `{"tenant": "acme"}`, ""},
		{"idp/./admin", `{"tenant": "acme"}`, ""},
		{"alice", `{"tenant": "a\r\nhost: b"}`, ""},
		{"alice", `{"tenant": "` + strings.Repeat("x", maxKey+1) + `"}`, ""},
	} {
		parsed, err := parseTemplate(at)
		if err != nil {
			t.Fatal(err)
		}
		f := factsOf(t, test.claims)
		f.Consumer = test.consumer
		got, ok := parsed.fill(f)
		if got != test.want || ok != (test.want != "") {
			t.Errorf("%q %s: %q, want %q", test.consumer, test.claims, got, test.want)
		}
	}
}

// told reads what lookUp says: the value, "missing", or a reason.
func told(t *testing.T, d *demands, f *expr.Facts) any {
	t.Helper()
	missing, v := d.lookUp(f, time.Now())
	switch {
	case v != nil:
		return v.reason
	case len(missing) > 0:
		return "missing"
	}
	return f.Metadata["account"]
}

// fetching has demands with one Metadata; without a transport it goes where key sets come from, too.
func fetching(t *testing.T, m Metadata, transport http.RoundTripper) *demands {
	t.Helper()
	d, err := newDemands([]Authorization{{Name: "route/a", Metadata: []Metadata{m}}}, func(m Metadata) (*metadata, error) {
		return newMetadata(m, newClient(transport, nil), slog.New(slog.DiscardHandler))
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fetchAll(t *testing.T, d *demands, f *expr.Facts) {
	t.Helper()
	missing, _ := d.lookUp(f, time.Now())
	for _, l := range missing {
		l.fetch(t.Context())
	}
}

func TestAnswersOfMetadata(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch body := r.URL.Query().Get("say"); body {
		case "gone":
			w.WriteHeader(404)
		case "broken":
			w.WriteHeader(500)
		case "empty":
			w.WriteHeader(204)
		case "moved":
			http.Redirect(w, r, "/?say={}", http.StatusFound)
		case "large":
			_, _ = fmt.Fprintf(w, `{"a": %q}`, strings.Repeat("x", maxAnswer))
		case "cut":
			w.Header().Set("content-length", "100")
			_, _ = io.WriteString(w, "{}")
		case "late":
			<-r.Context().Done()
		default:
			_, _ = io.WriteString(w, body)
		}
	}))
	t.Cleanup(server.Close)
	const bad = "metadata_unavailable"
	d := fetching(t, Metadata{Name: "account", URL: server.URL + "/?say={claims.say}", Timeout: longestWait}, nil)
	for say, want := range map[string]any{
		`{"tier": "pro"}`: map[string]any{"tier": "pro"},
		"gone":            nil,
		"broken":          bad, "empty": bad, "moved": bad, "large": bad, "cut": bad, "late": bad,
		"[]": bad, "null": bad, `"text"`: bad, `{"a": 1} {}`: bad, `{"a": 1, "a": 2}`: bad, "{": bad,
	} {
		f := factsOf(t, `{}`)
		f.Identity["say"] = say
		if got := told(t, d, f); got != "missing" {
			t.Errorf("%s: %v before anything was fetched", say, got)
		}
		fetchAll(t, d, f)
		if diff := cmp.Diff(want, told(t, d, f)); diff != "" {
			t.Errorf("%s: %s", say, diff)
		}
	}
	if got := told(t, d, factsOf(t, `{}`)); got != "metadata_key" {
		t.Errorf("%v for a caller without the claim", got)
	}
}

// tripper answers requests in a test's own time.
type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(q *http.Request) (*http.Response, error) { return t(q) }

// slowly answers {"n": how often it was asked} after some time.
func slowly(asked *atomic.Int64, broken *atomic.Bool) tripper {
	return func(q *http.Request) (*http.Response, error) {
		n := asked.Add(1)
		time.Sleep(20 * time.Millisecond)
		if broken.Load() {
			return nil, errors.New("down")
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"n": "%d"}`, n)))}, nil
	}
}

func TestMetadataIsFetchedOnceForAllAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var broken atomic.Bool
		d := fetching(t, Metadata{Name: "account", URL: "https://a.test/{consumer}", Cache: 10 * time.Second}, slowly(&asked, &broken))
		f := factsOf(t, `{}`)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { fetchAll(t, d, factsOf(t, `{}`)) })
		}
		wg.Wait()
		first := map[string]any{"n": "1"}
		if diff := cmp.Diff(any(first), told(t, d, f)); diff != "" || asked.Load() != 1 {
			t.Errorf("asked %d times: %s", asked.Load(), diff)
		}
		other := factsOf(t, `{}`)
		other.Consumer = "idp/bob"
		if got := told(t, d, other); got != "missing" {
			t.Errorf("%v of another caller", got)
		}
		time.Sleep(10 * time.Second)
		if got := told(t, d, f); got != "missing" {
			t.Errorf("%v after its time", got)
		}
		broken.Store(true)
		fetchAll(t, d, f)
		if got := told(t, d, f); got != "metadata_unavailable" || asked.Load() != 2 {
			t.Errorf("%v, asked %d times", got, asked.Load())
		}
		broken.Store(false)
		time.Sleep(brokenFor)
		fetchAll(t, d, f)
		if diff := cmp.Diff(any(map[string]any{"n": "3"}), told(t, d, f)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestWhoGoesAwayLeavesTheFetchToOthers has the one that began a fetch end first.
func TestWhoGoesAwayLeavesTheFetchToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var broken atomic.Bool
		d := fetching(t, Metadata{Name: "account", URL: "https://a.test/{consumer}"}, slowly(&asked, &broken))
		f := factsOf(t, `{}`)
		missing, _ := d.lookUp(f, time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		missing[0].fetch(ctx)
		if got := told(t, d, f); got != "missing" {
			t.Errorf("%v, though nothing was waited for", got)
		}
		fetchAll(t, d, f)
		if diff := cmp.Diff(any(map[string]any{"n": "1"}), told(t, d, f)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAnswersAreForgottenWhereThereAreManyOrLarge(t *testing.T) {
	var g generations
	for i := range 3 * maxAnswers {
		g.put(fmt.Sprint(i), &record{})
		if n := len(g.young) + len(g.old); n > maxAnswers {
			t.Fatalf("%d kept", n)
		}
	}
	if g.get(fmt.Sprint(3*maxAnswers-1)) == nil || g.get(fmt.Sprint(3*maxAnswers-maxAnswers/2)) == nil || g.get("0") != nil {
		t.Error("not the last ones are kept")
	}
	for i := range 1000 {
		g.put(fmt.Sprint("large", i), &record{bytes: maxAnswer})
		if n := len(g.young) + len(g.old); i > 500 && n > maxKept/maxAnswer {
			t.Fatalf("%d large ones kept", n)
		}
	}
}
