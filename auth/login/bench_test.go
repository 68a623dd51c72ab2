package login

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// BenchmarkLook is a request with a session that is known from a moment ago.
func BenchmarkLook(b *testing.B) {
	f := newFlow(b, func(*http.Request) (*http.Response, error) { return nil, errDown })
	token, now := f.keys.newToken(), time.Now()
	s := &session{Claims: map[string]any{"sub": "ada"}, Began: now}
	f.cache.put(&live{sum: sumOf(token), id: idOf(token), session: s, read: now}).extended.Store(now.UnixNano())
	header := "theme=dark; __Host-legation-staff=" + token + "; tracking=" + strings.Repeat("x", 100)
	q := Request{Method: "GET", Scheme: "https", Host: "shop.example", Path: "/", Header: func(string) string { return header }}
	b.ReportAllocs()
	for b.Loop() {
		if o, waits := f.Look(q, now); waits || o.ID == "" {
			b.Fatal("no session")
		}
	}
}

// BenchmarkChallenge is an anonymous request, which anybody can send.
func BenchmarkChallenge(b *testing.B) {
	f := newFlow(b, func(*http.Request) (*http.Response, error) { return nil, errDown })
	now := time.Now()
	f.provider.Store(&provider{Authorization: "https://id.example/authorize", fetched: now})
	header := map[string]string{"accept": "text/html"}
	q := Request{Method: "GET", Scheme: "https", Host: "shop.example", Path: "/", Header: func(name string) string { return header[name] }}
	b.ReportAllocs()
	for b.Loop() {
		if a := f.Challenge(q, now); a.Status != 302 {
			b.Fatal("no redirect")
		}
	}
}
