package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// opaqueRule asks an issuer about tokens.
func opaqueRule(url string, change func(*Introspection)) Rule {
	i := &Introspection{
		URL: url, Client: "legation:1", Secret: "idp/introspect", Audiences: []string{"orders"},
		Reading: Reading{Consumer: "username", Headers: map[string]string{"x-scope": "scope"}},
	}
	if change != nil {
		change(i)
	}
	return Rule{Name: "edge/orders", Providers: []Provider{{Name: "opaque", Introspection: i}}}
}

func opaqueTable(r Rule) Table {
	return Table{Rules: []Rule{r}, Secrets: map[string][]byte{"idp/introspect": []byte("s3cret%")}}
}

// oracle is an issuer without a network, that answers each question.
type oracle struct {
	mu     sync.Mutex
	asked  []string // bodies
	answer func(token string) (status int, body string, err error)
	takes  time.Duration
}

func (o *oracle) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form := must(parseForm(string(body)))
	o.mu.Lock()
	o.asked = append(o.asked, string(body))
	takes := o.takes
	o.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	status, text, err := o.answer(form)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (o *oracle) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.asked)
}

func parseForm(body string) (token string, err error) {
	r, err := http.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.PostFormValue("token"), nil
}

func TestIntrospectionAsksAsRFC7662Says(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		got := []string{r.Method, r.Header.Get("Content-Type"), r.Header.Get("Accept"), user, password, r.PostFormValue("token"), r.PostFormValue("token_type_hint")}
		want := []string{"POST", "application/x-www-form-urlencoded", "application/json", "legation%3A1", "s3cret%25", "a+b/c~1=", "access_token"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		fmt.Fprint(w, `{"active":true,"username":"alice","scope":"read write","aud":["orders"]}`)
	}))
	defer server.Close()
	rule := opaqueRule(server.URL+"/introspect", nil)
	c := dial(t, load(t, Options{}, opaqueTable(rule)))
	got := check(t, c, ask(rule.ID(), "Bearer a+b/c~1="))
	if got.status != 200 || got.meta["consumer"] != "opaque/alice" || got.headers["x-scope"] != "read write" {
		t.Errorf("%+v", got)
	}
}

func TestWhatIssuersSayOfTokens(t *testing.T) {
	now := time.Now().Unix()
	said := func(format string, a ...any) string {
		return `{"active":true,"username":"alice","aud":"orders"` + fmt.Sprintf(format, a...) + "}"
	}
	for _, test := range []struct {
		name, body string
		reason     string // "" = good
	}{
		{"good", said(""), ""},
		{"all said", said(`,"iss":%q,"exp":%d,"nbf":%d,"iat":%d,"token_type":"bearer","sub":"a"`, issuer, now+60, now-60, now-60), ""},
		{"not active", `{"active":false}`, "token_inactive"},
		{"not active, yet all else", strings.Replace(said(""), "true", "false", 1), "token_inactive"},
		{"active as text", strings.Replace(said(""), "true", `"true"`, 1), "no_introspection"},
		{"active as number", strings.Replace(said(""), "true", "1", 1), "no_introspection"},
		{"active in capitals", strings.Replace(said(""), "active", "Active", 1), "no_introspection"},
		{"active twice", said(`,"active":false`), "no_introspection"},
		{"nothing", "{}", "no_introspection"},
		{"empty", "", "no_introspection"},
		{"list", "[" + said("") + "]", "no_introspection"},
		{"HTML", "<html>", "no_introspection"},
		{"two objects", said("") + said(""), "no_introspection"},
		{"huge", said(`,"x":%q`, strings.Repeat("x", maxIntrospect)), "no_introspection"},
		{"another audience", strings.Replace(said(""), "orders", "carts", 1), "token_audience"},
		{"no audience", `{"active":true,"username":"alice"}`, "token_audience"},
		{"another issuer", said(`,"iss":"https://evil.test/"`), "token_issuer"},
		{"expired", said(`,"exp":%d`, now-31), "token_expired"},
		{"expires as text", said(`,"exp":"%d"`, now+60), "token_claims"},
		{"not yet", said(`,"nbf":%d`, now+300), "token_early"},
		{"nobody", `{"active":true,"aud":"orders"}`, "token_consumer"},
		{"a subject that is no text", said(`,"sub":7`), "token_claims"},
		{"a DPoP token", said(`,"token_type":"DPoP"`), "token_type"},
	} {
		o := &oracle{answer: func(string) (int, string, error) { return 200, test.body, nil }}
		rule := opaqueRule("https://id.test/introspect", func(i *Introspection) {
			if strings.Contains(test.body, "iss") {
				i.Issuer = issuer
			}
		})
		got := check(t, dial(t, load(t, Options{Transport: o}, opaqueTable(rule))), ask(rule.ID(), "Bearer opaque"))
		want := map[bool]int{true: 200, false: 401}[test.reason == ""]
		if test.reason == "no_introspection" {
			want = 503
		}
		if reason, _ := got.meta["reason"].(string); got.status != want || reason != test.reason {
			t.Errorf("%s: %d %s, want %d %s", test.name, got.status, reason, want, test.reason)
		}
		if challenge := got.headers["www-authenticate"]; want == 401 && !strings.HasPrefix(challenge, `Bearer realm="opaque", error="invalid_token", error_description="`) {
			t.Errorf("%s: %s", test.name, challenge)
		}
	}
}

func TestIssuersInTrouble(t *testing.T) {
	for name, answer := range map[string]func(string) (int, string, error){
		"refuses us":        func(string) (int, string, error) { return 401, `{"active":true}`, nil },
		"is broken":         func(string) (int, string, error) { return 500, "", nil },
		"is not there":      func(string) (int, string, error) { return 0, "", errors.New("connection refused") },
		"sends us away":     func(string) (int, string, error) { return 302, "", nil },
		"answers something": func(string) (int, string, error) { return 204, "", nil },
	} {
		var out bytes.Buffer
		good := false
		o := &oracle{answer: func(token string) (int, string, error) {
			if good {
				return 200, `{"active":true,"username":"alice","aud":"orders"}`, nil
			}
			return answer(token)
		}}
		rule := opaqueRule("https://id.test/introspect?key=planted", nil)
		s := load(t, Options{Transport: o, Log: slog.New(slog.NewTextHandler(&out, nil))}, opaqueTable(rule))
		want(t, name, status(t, s, "planted"), 503)
		want(t, name, status(t, s, "planted"), 503)
		want(t, "no token, while the issuer "+name, status(t, s, ""), 401)
		good = true
		want(t, "no more: "+name, status(t, s, "planted"), 200)
		if n := strings.Count(out.String(), "went wrong"); n != 1 || strings.Contains(out.String(), "planted") || strings.Contains(out.String(), "s3cret") {
			t.Errorf("%s: the log tells it %d times: %s", name, n, out.String())
		}
	}
}

func TestRedirectsOfIssuersAreNotFollowed(t *testing.T) {
	var elsewhere bool
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.HandleFunc("/introspect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/other", func(http.ResponseWriter, *http.Request) { elsewhere = true })
	s := load(t, Options{}, opaqueTable(opaqueRule(server.URL+"/introspect", nil)))
	want(t, "redirected", status(t, s, "opaque"), 503)
	if elsewhere {
		t.Error("the token was sent elsewhere")
	}
}

func TestMalformedTokensNeverLeave(t *testing.T) {
	o := &oracle{answer: func(string) (int, string, error) {
		return 200, `{"active":true,"username":"alice","aud":"orders"}`, nil
	}}
	s := load(t, Options{Transport: o}, opaqueTable(opaqueRule("https://id.test/introspect", nil)))
	for _, token := range []string{"", "a b", "a\x00", "a\nb", "ä", "a=b", "===", "a%20b", `"a"`, "a&token=b", strings.Repeat("a", maxToken+1)} {
		want(t, fmt.Sprintf("%.10q", token), status(t, s, token), 401)
	}
	if o.count() != 0 {
		t.Errorf("asked about %q", o.asked)
	}
}

// inOracle runs a service over a fake issuer and a fake clock.
func inOracle(t *testing.T, o *oracle, change func(*Introspection), f func(t *testing.T, s *Service)) {
	synctest.Test(t, func(t *testing.T) {
		f(t, load(t, Options{Transport: o}, opaqueTable(opaqueRule("https://id.test/introspect", change))))
		synctest.Wait()
	})
}

func TestAnswersOfIssuersAreKept(t *testing.T) {
	active, ends := true, time.Hour
	o := &oracle{answer: func(string) (int, string, error) {
		return 200, fmt.Sprintf(`{"active":%v,"username":"alice","aud":"orders","exp":%d}`, active, time.Now().Add(ends).Unix()), nil
	}}
	asks := func(t *testing.T, what string, n int) {
		t.Helper()
		if got := o.count(); got != n {
			t.Errorf("%s: asked %d times, want %d", what, got, n)
		}
	}
	inOracle(t, o, func(i *Introspection) { i.Cache = 20 * time.Second }, func(t *testing.T, s *Service) {
		want(t, "good", status(t, s, "a"), 200)
		time.Sleep(19 * time.Second)
		active = false
		want(t, "still good", status(t, s, "a"), 200)
		asks(t, "within the time", 1)
		time.Sleep(time.Second)
		want(t, "revoked", status(t, s, "a"), 401)
		asks(t, "after the time", 2)
		time.Sleep(9 * time.Second)
		active, ends = true, 5*time.Second
		want(t, "still refused", status(t, s, "a"), 401)
		time.Sleep(time.Second)
		want(t, "good again", status(t, s, "a"), 200)
		asks(t, "after a refusal", 3)
		time.Sleep(34*time.Second + 999*time.Millisecond - 20*time.Second)
		want(t, "not yet expired", status(t, s, "a"), 200)
		want(t, "another token", status(t, s, "b"), 200)
		asks(t, "of two tokens", 4)
	})
	// Nothing holds longer than the token itself, less its skew.
	o.asked, active, ends = nil, true, 10*time.Second
	inOracle(t, o, func(i *Introspection) { i.Cache, i.Skew = time.Hour, time.Second }, func(t *testing.T, s *Service) {
		want(t, "good", status(t, s, "a"), 200)
		time.Sleep(10 * time.Second)
		want(t, "good", status(t, s, "a"), 200)
		asks(t, "before its end", 1)
		time.Sleep(time.Second)
		active = false
		want(t, "ended", status(t, s, "a"), 401)
		asks(t, "at its end", 2)
	})
}

func TestIssuersAreAskedOnceAtATime(t *testing.T) {
	o := &oracle{takes: 100 * time.Millisecond, answer: func(string) (int, string, error) {
		return 200, `{"active":true,"username":"alice","aud":"orders"}`, nil
	}}
	inOracle(t, o, nil, func(t *testing.T, s *Service) {
		began := time.Now()
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() { want(t, "one of many", status(t, s, "same"), 200) })
		}
		all.Wait()
		if took := time.Since(began); took != 100*time.Millisecond || o.count() != 1 {
			t.Errorf("asked %d times, took %v", o.count(), took)
		}
	})
}

func TestSlowIssuers(t *testing.T) {
	o := &oracle{takes: 300 * time.Millisecond, answer: func(string) (int, string, error) {
		return 200, `{"active":true,"username":"alice","aud":"orders"}`, nil
	}}
	inOracle(t, o, nil, func(t *testing.T, s *Service) {
		began := time.Now()
		want(t, "slow", status(t, s, "a"), 503)
		if took := time.Since(began); took != introspectWait {
			t.Errorf("took %v", took)
		}
		time.Sleep(200 * time.Millisecond)
		want(t, "what came late", status(t, s, "a"), 200)
		want(t, "questions", o.count(), 1)

		o.mu.Lock()
		o.takes = time.Hour
		o.mu.Unlock()
		var all sync.WaitGroup
		for i := range introspectMost + 10 {
			all.Go(func() { want(t, "hung", status(t, s, fmt.Sprint("t", i)), 503) })
		}
		all.Wait()
		want(t, "questions", o.count(), 1+introspectMost)
		want(t, "what was learnt before", status(t, s, "a"), 200)
		time.Sleep(introspectEnd)
		o.mu.Lock()
		o.takes = 0
		o.mu.Unlock()
		want(t, "answers again", status(t, s, "t0"), 200)
	})
}

// A signed token that is no good where it is looked at first may be an opaque one's issuer's all the same.
func TestIntrospectionBesideSignedTokens(t *testing.T) {
	o := &oracle{answer: func(token string) (int, string, error) {
		return 200, fmt.Sprintf(`{"active":%v,"username":"alice","aud":"orders"}`, token == "opaque"), nil
	}}
	rule := opaqueRule("https://id.test/introspect", nil)
	rule.Providers = append(staticRule().Providers, rule.Providers...)
	c := dial(t, load(t, Options{Transport: o}, opaqueTable(rule)))
	for token, want := range map[string]string{"opaque": "opaque/alice", rsaPair().sign(t, goodClaims(nil)): "idp/alice", "other": "", "": ""} {
		got := check(t, c, ask(rule.ID(), "Bearer "+token))
		consumer, _ := got.meta["consumer"].(string)
		if consumer != want || (got.status == 200) != (want != "") {
			t.Errorf("%.10s: %d %s, want %s", token, got.status, consumer, want)
		}
	}
	if got := check(t, c, ask(rule.ID(), "")); got.headers["www-authenticate"] != `Bearer realm="idp", Bearer realm="opaque"` {
		t.Errorf("%s", got.headers["www-authenticate"])
	}
}
