package login

import (
	"strings"
	"testing"
	"time"
)

// FuzzCookies looks for a header that gives a session without its cookie, or lets ours through to the backend.
func FuzzCookies(f *testing.F) {
	c := Config{Name: "staff", Issuer: "https://id.example", ClientID: "shop", Secret: []byte("0123456789abcdef")}
	if err := c.complete(); err != nil {
		f.Fatal(err)
	}
	keys, err := newKeys(c.Secret, "")
	if err != nil {
		f.Fatal(err)
	}
	flow := &Flow{config: c, base: c.Cookie, keys: keys}
	token := keys.newToken()
	for _, header := range []string{
		"", "a=b; c=d", "__Host-legation-staff=x", "__Host-legation-staff=TOKEN", "a=b; __Host-legation-staff=TOKEN; c=d",
		"legation-staff=TOKEN", "__Host-legation-staff.login.abc=x;;=", "a=b,__Host-legation-staff=TOKEN", " __Host-legation-staff=TOKEN ",
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		header = strings.ReplaceAll(header, "TOKEN", token)
		b := flow.browser(Request{Method: "GET", Scheme: "https", Host: "shop.example", Path: "/", Header: func(string) string { return header }})
		if b.session != "" && (b.session != token || strings.Count(header, "__Host-legation-staff=") < 1) {
			t.Errorf("%q gives the session %q", header, b.session)
		}
		if strings.Contains(b.rest, "legation-staff=") || strings.Contains(b.rest, "legation-staff.login.") {
			t.Errorf("%q leaves %q", header, b.rest)
		}
	})
}

// FuzzAttempt looks for a cookie that opens and wasn't sealed here.
func FuzzAttempt(f *testing.F) {
	keys, err := newKeys([]byte("0123456789abcdef"), "")
	if err != nil {
		f.Fatal(err)
	}
	flow := &Flow{keys: keys}
	state := randomText()
	want := attempt{Nonce: "n", Verifier: "v", Origin: "https://shop.example", Return: "/", Began: time.Now().Unix()}
	sealed, err := flow.sealAttempt(state, want)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("STATE", "SEALED")
	f.Add("STATE", "")
	f.Add("", "SEALED")
	f.Add("STATE", "SEALED=")
	f.Add("STATE", "AASEALED")
	f.Fuzz(func(t *testing.T, s, value string) {
		s, value = strings.ReplaceAll(s, "STATE", state), strings.ReplaceAll(value, "SEALED", sealed)
		got, err := flow.openAttempt(s, value)
		if right := s == state && value == sealed; (err == nil) != right || right && got != want {
			t.Errorf("%q, %q: got %+v, %v", s, value, got, err)
		}
	})
}
