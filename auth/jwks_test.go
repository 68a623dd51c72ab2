package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func urlRule(url string) Rule {
	r := jwtRule(nil)
	r.Providers[0].JWT.JWKS = JWKS{URL: url}
	return r
}

// idp is an identity provider without a network: it lives in a synctest bubble.
type idp struct {
	mu      sync.Mutex
	body    []byte
	status  int
	control string // Cache-Control
	err     error
	hangs   bool
	takes   time.Duration
	fetches []time.Time
}

func (i *idp) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches = append(i.fetches, time.Now())
	if i.hangs {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if i.err != nil {
		return nil, i.err
	}
	if i.takes > 0 {
		i.mu.Unlock()
		time.Sleep(i.takes)
		i.mu.Lock()
	}
	return &http.Response{
		StatusCode: i.status, Header: http.Header{"Cache-Control": {i.control}},
		Body: io.NopCloser(bytes.NewReader(i.body)), Request: r,
	}, nil
}

func (i *idp) set(change func(*idp)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *idp) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.fetches)
}

// inBubble runs a service over a fake identity provider and a fake clock.
func inBubble(t *testing.T, o Options, f func(t *testing.T, s *Service, i *idp)) {
	rsaPair() // keys are made outside: that takes real time
	rsaOther()
	synctest.Test(t, func(t *testing.T) {
		i := &idp{status: 200, body: jwks(rsaPair().jwk())}
		o.Transport = i
		s := load(t, o, Table{Rules: []Rule{urlRule("https://id.test/keys?key=secret")}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		f(t, s, i)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func status(t testing.TB, s *Service, token string) int {
	t.Helper()
	r, err := s.Check(t.Context(), ask("edge/orders", "Bearer "+token))
	if err != nil {
		t.Fatal(err)
	}
	return flatten(r).status
}

func want(t testing.TB, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

func TestKeysAreFetchedOffTheRequestPath(t *testing.T) {
	gate := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-gate
		w.Write(jwks(rsaPair().jwk()))
	}))
	defer server.Close()
	s := load(t, Options{}, Table{Rules: []Rule{urlRule(server.URL + "/jwks.json")}})
	c := dial(t, s)
	token := "Bearer " + rsaPair().sign(t, goodClaims(nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	want(t, "before the first good set", check(t, c, ask("edge/orders", token)).status, 503)
	want(t, "a hostile token before it", check(t, c, ask("edge/orders", "Bearer a.b.c")).status, 401)
	want(t, "no token before it", check(t, c, ask("edge/orders", "")).status, 401)
	close(gate)
	for !s.Health()[0].Loaded {
		runtime.Gosched()
	}
	want(t, "after it", check(t, c, ask("edge/orders", token)).status, 200)
	server.Close()
	want(t, "provider gone", check(t, c, ask("edge/orders", token)).status, 200)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestUnknownKidRefetchesOncePerTenSeconds(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
		stranger := rsaOther()
		stranger.kid = "nobody"
		token := stranger.sign(t, goodClaims(nil))
		for range 300 { // 30 s of tokens with unknown kids
			want(t, "unknown kid", status(t, s, token), 401)
			time.Sleep(100 * time.Millisecond)
		}
		if n := i.count() - 1; n < 2 || n > 4 {
			t.Errorf("%d fetches in 30 s", n)
		}
		for n := 2; n < i.count(); n++ { // the one of the start is no unknown kid's
			if gap := i.fetches[n].Sub(i.fetches[n-1]); gap < missedEvery {
				t.Errorf("fetched again after %v", gap)
			}
		}
		i.set(func(i *idp) { i.body = jwks(rsaPair().jwk(), rsaOther().jwk()) })
		token = rsaOther().sign(t, goodClaims(nil))
		want(t, "new key, when strangers have had the fetch", status(t, s, token), 401)
		time.Sleep(missedEvery)
		want(t, "new key, fetched", status(t, s, token), 200)
	})
}

// An issuer that signs with a key as soon as it publishes it, and takes another each 10 s, has no token refused.
func TestRequestsWaitForKeysThatComeWithTheirFirstUse(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
		i.set(func(i *idp) { i.takes = 20 * time.Millisecond })
		pairs := []keyPair{rsaPair(), rsaOther()}
		for n := range 12 {
			signs := pairs[n%2]
			signs.kid = fmt.Sprint("key-", n)
			i.set(func(i *idp) { i.body = jwks(signs.jwk()) })
			for range 100 {
				want(t, signs.kid, status(t, s, signs.sign(t, goodClaims(nil))), 200)
				time.Sleep(100 * time.Millisecond)
			}
		}
	})
}

func TestRequestsWaitNoLongerThanEnvoy(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
		i.set(func(i *idp) { i.takes, i.body = time.Second, jwks(rsaPair().jwk(), rsaOther().jwk()) })
		asks := func(what, token string, code int, took time.Duration) {
			t.Helper()
			begin := time.Now()
			want(t, what, status(t, s, token), code)
			if got := time.Since(begin); got != took {
				t.Errorf("%s: took %v, want %v", what, got, took)
			}
		}
		asks("claims that are refused anyway", rsaOther().sign(t, goodClaims(map[string]any{"aud": "other"})), 401, 0)
		good := rsaOther().sign(t, goodClaims(nil))
		asks("the fetch has just begun", good, 401, missedWait)
		asks("the fetch takes long", good, 401, 0)
		time.Sleep(time.Second)
		asks("the fetch has ended", good, 200, 0)
	})
}

func TestUnknownKidsCauseNoFetchWhenTheKeyIsKnown(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
		forged := rsaOther()
		forged.kid = "rsa-1"
		want(t, "wrong signature", status(t, s, forged.sign(t, goodClaims(nil))), 401)
		want(t, "other issuer", status(t, s, rsaOther().sign(t, goodClaims(map[string]any{"iss": "x"}))), 401)
		time.Sleep(time.Minute)
		want(t, "fetches", i.count(), 1)
	})
}

func TestWithdrawnKeyIsGoneAfterRefresh(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
		token := rsaPair().sign(t, goodClaims(nil))
		want(t, "before", status(t, s, token), 200) // and in the cache
		i.set(func(i *idp) { i.body = jwks(rsaOther().jwk()) })
		time.Sleep(refreshDefault)
		want(t, "withdrawn", status(t, s, token), 401)
		want(t, "its successor", status(t, s, rsaOther().sign(t, goodClaims(nil))), 200)
	})
}

func TestLastGoodKeysServeForADay(t *testing.T) {
	var out bytes.Buffer
	inBubble(t, Options{Log: slog.New(slog.NewTextHandler(&out, nil))}, func(t *testing.T, s *Service, i *idp) {
		i.set(func(i *idp) { i.err = errors.New("connection refused") })
		fresh := func() string { return rsaPair().sign(t, goodClaims(nil)) } // never from the cache
		time.Sleep(time.Hour)
		want(t, "an hour later", status(t, s, fresh()), 200)
		if h := s.Health()[0]; !h.Loaded || !h.Stale || h.Error == "" || strings.Contains(h.URL+h.Error, "secret") {
			t.Errorf("health %+v", h)
		}
		time.Sleep(22*time.Hour + 50*time.Minute)
		cached := fresh()
		want(t, "almost a day later", status(t, s, cached), 200)
		time.Sleep(15 * time.Minute)
		want(t, "a day later", status(t, s, fresh()), 503)
		want(t, "a day later, cached", status(t, s, cached), 503)
		if h := s.Health()[0]; h.Loaded {
			t.Errorf("health %+v", h)
		}
		i.set(func(i *idp) { i.err = nil })
		time.Sleep(retryMax)
		want(t, "back again", status(t, s, fresh()), 200)
	})
	if n := strings.Count(out.String(), "went wrong"); n != 1 || strings.Contains(out.String(), "secret") {
		t.Errorf("the log tells of one outage %d times: %s", n, out.String())
	}
}

func TestBadAnswersNeverReplaceGoodKeys(t *testing.T) {
	for name, change := range map[string]func(*idp){
		"garbage":     func(i *idp) { i.body = []byte("<html>") },
		"nothing":     func(i *idp) { i.body = nil },
		"no keys":     func(i *idp) { i.body = []byte(`{"keys":[]}`) },
		"too large":   func(i *idp) { i.body = append(jwks(rsaOther().jwk()), bytes.Repeat([]byte(" "), maxKeySet)...) },
		"private key": func(i *idp) { i.body = jwks(rsaOther().jwk(), rsaPair().with("d", "AA")) },
		"secret":      func(i *idp) { i.body = jwks(rsaOther().jwk(), map[string]any{"kty": "oct", "k": "AA"}) },
		"status 500":  func(i *idp) { i.status, i.body = 500, jwks(rsaOther().jwk()) },
		"status 404":  func(i *idp) { i.status, i.body = 404, jwks(rsaOther().jwk()) },
		"hangs":       func(i *idp) { i.hangs = true },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
				i.set(change)
				time.Sleep(refreshDefault + fetchTimeout)
				want(t, "good key", status(t, s, rsaPair().sign(t, goodClaims(nil))), 200)
				want(t, "key of the bad answer", status(t, s, rsaOther().sign(t, goodClaims(nil))), 401)
				if h := s.Health()[0]; !h.Stale {
					t.Errorf("health %+v", h)
				}
			})
		})
	}
}

func TestFetchesBackOffUntilTheFirstSet(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	inBubble(t, Options{Metrics: reg}, func(t *testing.T, s *Service, i *idp) {
		i.set(func(i *idp) { i.err = errors.New("no route") })
		if err := s.Load(Table{Rules: []Rule{urlRule("https://other.test/")}}); err != nil {
			t.Fatal(err)
		}
		before := i.count()
		time.Sleep(10 * time.Minute)
		if n := i.count() - before; n < 110 || n > 150 { // one in 4.5 to 5 s
			t.Errorf("%d tries in 10 minutes", n)
		}
		want(t, "no keys yet", status(t, s, rsaPair().sign(t, goodClaims(nil))), 503)
		i.set(func(i *idp) { i.err = nil })
		time.Sleep(retryFirst)
		want(t, "loaded", status(t, s, rsaPair().sign(t, goodClaims(nil))), 200)
	})
	problems, err := promlint.NewWithMetricFamilies(must(reg.Gather())).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
	if n := len(must(reg.Gather())); n != 6 {
		t.Errorf("%d metrics, want 6", n)
	}
}

func TestFetchesBackOffFurtherWithASet(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *Service, i *idp) {
		i.set(func(i *idp) { i.err = errors.New("no route") })
		before := i.count()
		time.Sleep(time.Hour)
		if n := i.count() - before; n < 55 || n > 75 {
			t.Errorf("%d tries in an hour", n)
		}
	})
}

func TestErrorsOfFetchesTellNoPortsAndNoSecrets(t *testing.T) {
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 54321}
	op := func(err error) error {
		return &url.Error{Op: "Get", URL: "https://id.test/?key=secret", Err: &net.OpError{Op: "read", Net: "tcp", Source: local, Addr: local, Err: err}}
	}
	for want, err := range map[string]error{
		"connection reset by peer":                        op(os.NewSyscallError("read", syscall.ECONNRESET)),
		"no answer within 5s":                             op(os.ErrDeadlineExceeded),
		"no HTTP answer that can be understood":           op(errors.New("malformed HTTP response \"secret\"")),
		"the host name is not found":                      op(&net.DNSError{Err: "no such host", Server: "127.0.0.1:54321", Name: "secret.test", IsNotFound: true}),
		"unexpected EOF":                                  op(io.ErrUnexpectedEOF),
		"redirected too often":                            op(fetchError("redirected too often")),
		"tls: failed to verify certificate: why":          op(&tls.CertificateVerificationError{Err: errors.New("why")}),
		"http: server gave HTTP response to HTTPS client": op(http.ErrSchemeMismatch),
	} {
		if got := plain(err).Error(); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

func TestRefreshFollowsCacheControl(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": refreshDefault, "max-age=120": 2 * time.Minute, "public, Max-Age=600, immutable": 10 * time.Minute,
		"max-age=0": refreshMin, "max-age=1": refreshMin, "max-age=999999": refreshMax, "no-store": refreshMin, "no-cache": refreshMin,
		"max-age=x": refreshDefault, "max-age=-1": refreshDefault, "max-age=99999999999999999999": refreshDefault,
		`max-age="300"`: 5 * time.Minute, "s-maxage=3600": refreshDefault,
	} {
		if got := maxAge(header); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
	inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
		i.set(func(i *idp) { i.control = "max-age=60" })
		time.Sleep(refreshDefault)
		before := i.count()
		time.Sleep(10 * time.Minute)
		if n := i.count() - before; n < 9 || n > 12 {
			t.Errorf("%d fetches in 10 minutes", n)
		}
	})
}

func TestLoadKeepsKeysAndDropsFetchers(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Service, i *idp) {
		token := rsaPair().sign(t, goodClaims(nil))
		want(t, "first", status(t, s, token), 200)
		same := urlRule("https://id.test/keys?key=secret")
		same.Providers[0].JWT.Audiences = []string{"orders", "more"}
		other := same
		other.Name = "edge/other"
		if err := s.Load(Table{Rules: []Rule{same, other}}); err != nil {
			t.Fatal(err)
		}
		want(t, "after another Load", status(t, s, token), 200)
		want(t, "fetches", i.count(), 1)
		if len(s.Health()) != 1 {
			t.Errorf("health %+v", s.Health())
		}
		if err := s.Load(Table{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		want(t, "fetches when no rule asks", i.count(), 1)
		if err := s.Load(Table{Rules: []Rule{same}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want(t, "asked for again", status(t, s, rsaPair().sign(t, goodClaims(nil))), 200)
		want(t, "fetches", i.count(), 2)
	})
}

func TestCachedTokenStillExpires(t *testing.T) {
	rsaPair()
	synctest.Test(t, func(t *testing.T) {
		s := load(t, Options{}, Table{Rules: []Rule{staticRule()}})
		token := rsaPair().sign(t, goodClaims(map[string]any{"exp": time.Now().Add(time.Minute).Unix()}))
		want(t, "fresh", status(t, s, token), 200)
		time.Sleep(time.Minute + 29*time.Second)
		want(t, "within the skew", status(t, s, token), 200)
		time.Sleep(time.Second)
		want(t, "expired", status(t, s, token), 401)
	})
}

func TestCacheIsBoundedAndPerProvider(t *testing.T) {
	c := newCache()
	keys := &keySet{}
	for n := range 4 * cacheSets * cacheWays {
		g := &verified{keys: keys}
		g.sum[0], g.sum[1], g.sum[2], g.sum[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
		c.put(g)
		if c.get(&g.sum) != g {
			t.Fatal("what was put last is gone")
		}
	}
	a, b := staticRule(), staticRule()
	b.Name, b.Providers[0].JWT.Audiences = "edge/b", []string{"b"}
	s := load(t, Options{}, Table{Rules: []Rule{a, b}})
	token := rsaPair().sign(t, goodClaims(nil))
	want(t, "first rule", status(t, s, token), 200)
	r, _ := s.Check(t.Context(), ask("edge/b", "Bearer "+token))
	want(t, "a rule with another audience", flatten(r).status, 401)
}

func TestConcurrentLoadAndCheck(t *testing.T) {
	rule := staticRule()
	s := load(t, Options{}, Table{Rules: []Rule{rule}})
	token := rsaPair().sign(t, goodClaims(nil))
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				if got := status(t, s, token); got != 200 {
					t.Errorf("%d during a Load", got)
					return
				}
			}
		})
	}
	for n := range 50 {
		other := staticRule()
		other.Name = "edge/other"
		other.Providers[0].JWT.Skew = time.Duration(n) * time.Second
		if err := s.Load(Table{Rules: []Rule{rule, other}}); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
}
