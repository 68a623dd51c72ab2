package app

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ask sends a request to an echo and reads its answer.
func ask(t testing.TB, r *http.Request) (echoed, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	Echo{Name: "orders-v1"}.ServeHTTP(w, r)
	var e echoed
	must(t, json.Unmarshal(w.Body.Bytes(), &e))
	return e, w.Header()
}

func TestEchoTellsWhatItReceived(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "http://localhost/orders?a=<b>&c", strings.NewReader("hello"))
	r.Header.Add("X-Tenant", "one")
	r.Header.Add("X-Tenant", "two")
	e, header := ask(t, r)
	if e.Service != "orders-v1" || e.Method != "POST" || e.Host != "localhost" || e.Path != "/orders?a=<b>&c" || e.Body != "hello" ||
		e.Headers["x-tenant"] != "one, two" {
		t.Errorf("got %+v", e)
	}
	if header.Get("X-Service") != "orders-v1" || header.Get("Content-Type") != "application/json" {
		t.Errorf("got %v", header)
	}
}

func TestEchoHidesCredentials(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/", nil)
	for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key"} {
		r.Header.Set(name, "hunter2")
	}
	r.Header.Add("Authorization", "Bearer hunter2")
	e, _ := ask(t, r)
	if len(e.Headers) != 4 {
		t.Errorf("got %v, want all four named", e.Headers)
	}
	for name, value := range e.Headers {
		if strings.Contains(value, "hunter2") {
			t.Errorf("%s is shown: %s", name, value)
		}
	}
}

func TestEchoBoundsTheBody(t *testing.T) {
	t.Parallel()
	e, _ := ask(t, httptest.NewRequest("PUT", "/", io.LimitReader(zeros{}, 1<<30)))
	if len(e.Body) != 64<<10 {
		t.Errorf("got %d bytes back, want 64 KiB", len(e.Body))
	}
	if e, _ = ask(t, httptest.NewRequest("PUT", "/", strings.NewReader("\xff\x00"))); len(e.Body) == 0 {
		t.Error("a body that is no text gets no answer")
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestEchoRuns(t *testing.T) {
	t.Parallel()
	l, err := listen("", "", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	if err := (Echo{Name: "two", Address: l.Addr().String()}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "sample upstream two") {
		t.Errorf("on a port that is taken: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (Echo{Address: "127.0.0.1:0"}).Run(ctx); err != nil {
		t.Errorf("told to end: got %v", err)
	}
}

// What is being answered when the process is told to stop is answered.
func TestHTTPStopsGracefully(t *testing.T) {
	t.Parallel()
	l, err := listen("", "", "127.0.0.1:0")
	must(t, err)
	inside, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-release
		_, _ = io.WriteString(w, "answered")
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended, answered := make(chan error, 1), make(chan string, 1)
	go func() { ended <- serveHTTP(ctx, l, h) }()
	go func() {
		a, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answered <- err.Error()
			return
		}
		defer a.Body.Close()
		body, _ := io.ReadAll(a.Body)
		answered <- string(body)
	}()
	await(t, "the request", inside)
	cancel()
	until(t, "the port to close", func() bool { return free(l.Addr().String()) })
	select {
	case err := <-ended:
		t.Fatalf("ended with a request in flight: %v", err)
	default:
	}
	close(release)
	if got := await(t, "the answer", answered); got != "answered" {
		t.Errorf("got %q", got)
	}
	if err := await(t, "the end", ended); err != nil {
		t.Errorf("got %v", err)
	}
}
