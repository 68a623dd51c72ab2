package explain

import "testing"

// The forms are Envoy's: TestAgreesWithEnvoy asks it about paths like these.
func TestNormalPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/":              "/",
		"/a/b?x=/../y":   "/a/b?x=/../y",
		"/a/./b":         "/a/b",
		"/a/../b":        "/b",
		"/../../b":       "/b",
		"/a/..":          "/",
		"/a/.":           "/a/",
		"/a/b/..":        "/a/",
		"/a/..b":         "/a/..b",
		"/a/...":         "/a/...",
		"/a/%2e%2E/b":    "/b",
		"/a/.%2e/b":      "/b",
		"/a/..;x=1/b":    "/b",
		"/a/.;/b":        "/a/b",
		"/a;x/b":         "/a;x/b",
		`/a\b\..\c`:      "/a/c",
		"/%61%7e%2D":     "/a~-",
		"/%7C|{}":        "/%7C%7C%7B%7D",
		"/%c3%a4":        "/%c3%a4",
		"/%25%zz%2":      "/%25%zz%2",
		"//a///b//":      "/a/b/",
		"//":             "//",
		"/a//../b":       "/a/b",
		"/a%2Fb":         "",
		"/a%5cb":         "",
		"/a%00b":         "",
		"/ä":             "",
		"/a?%2F%00":      "/a?%2F%00",
		"/a?x#y":         "/a?x#y",
		"/a'()*!$&+,=:@": "/a'()*!$&+,=:@",
	} {
		got, ok := normalPath(path)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestNormalHost(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"a.test":          "a.test",
		"a.test:80":       "a.test",
		"a.test.":         "a.test",
		"a.test.:80":      "a.test",
		"a.test..":        "a.test.",
		"a.test:80:80":    "a.test:80",
		"a.test:":         "a.test:",
		"a.test:x":        "a.test:x",
		"[::1]":           "[::1]",
		"[::1]:80":        "[::1]",
		"a.test:99999999": "a.test",
	} {
		if got := withoutPort(withoutLastDot(host)); got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
}
