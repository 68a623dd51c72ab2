package expr

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestValues(t *testing.T) {
	f := &Facts{
		IP: netip.MustParseAddr("::ffff:192.0.2.1"), Consumer: "acme", Method: "POST", Host: "a.test", Path: "/a/b?x=1&y=2", Scheme: "https", Route: "edge/a",
		Header: func(name string) string { return map[string]string{"x-t": "blue"}[name] },
		Claim:  func(name string) string { return map[string]string{"tenant": "t1", "address.country": "NO"}[name] },
	}
	for expression, want := range map[string]string{
		"request.path":     "/a/b?x=1&y=2",
		"request.url_path": "/a/b",
		"request.query":    "x=1&y=2",
		"request.host + ' ' + request.method + ' ' + request.scheme + ' ' + route + ' ' + consumer": "a.test POST https edge/a acme",
		"source.address":                            "192.0.2.1",
		"request.headers['X-T']":                    "blue",
		"request.headers['x-none']":                 "", // no value
		"'x-none' in request.headers ? 'a' : 'b'":   "b",
		"'x-t' in request.headers":                  "true",
		"claims.tenant + claims['address.country']": "t1NO",
		"size(request.path)":                        "12",
		"2.5":                                       "2.5",
		"7u":                                        "7",
		"request.url_path.startsWith('/a') ? 'a' : 'b'": "a",
		"request.path.matches('^/a/[a-z]')":             "true",
		"[1, 2, 3].map(x, x * 2).exists(x, x == 4)":     "true",
		"1 / 0": "",
		"'a'.matches(request.headers['x-t']) ? '' : 'n'": "n",
	} {
		v, err := CompileValue(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got := v.Text(f); got != want {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
		if got := v.Text(&Facts{}); strings.Contains(got, "%") {
			t.Errorf("%s: %q of nothing", expression, got)
		}
	}
}

func TestValuesThatCantBe(t *testing.T) {
	costly := "[" + strings.Repeat("1,", 60) + "1]"
	for expression, want := range map[string]Error{
		"":                        {1, 1, ""},
		"request.hots":            {1, 8, ""},
		"request.host +\n 1":      {1, 14, ""},
		"'a'\n + b":               {2, 4, ""},
		"request.headers":         {1, 1, ""},
		"[1]":                     {1, 1, ""},
		"request.host == ":        {1, 17, ""},
		strings.Repeat("!", 5000): {1, 1, ""},
		strings.Repeat("(", 500):  {1, 1, ""},
		"'a'.matches('(')":        {1, 1, ""},
	} {
		_, err := CompileValue(expression)
		got, ok := errors.AsType[*Error](err)
		if !ok || got.Text == "" || got.Line != want.Line || len(expression) < 100 && got.Column != want.Column {
			t.Errorf("%.40q: %v, want %d:%d", expression, got, want.Line, want.Column)
		}
	}
	v, err := CompileValue(costly + ".map(x, " + costly + ".map(y, " + costly + ".map(z, x * y * z).size())).size()")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if got := v.Text(&Facts{}); got != "" {
		t.Errorf("%q for more than the cost allows, after %s", got, time.Since(start))
	}
}
