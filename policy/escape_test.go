package policy

import "testing"

// A path that no request can have after Envoy normalised it would protect nothing.
func TestPathsThatNeverMatch(t *testing.T) {
	t.Parallel()
	for path, hint := range map[string]string{
		"/%61dmin": "write a", "/a%2fb": "leave it out", "/a%5Cb": "leave it out", "/a%00": "leave it out", "/a%2e": "write .",
		"/a%zz": "write %25 for the character itself", "/a%": "write %25 for the character itself", "/a%4": "write %25 for the character itself",
	} {
		if why, got := badPath(path); why == "" || got != hint {
			t.Errorf("%s: got %q, %q; want a problem and %q", path, why, got, hint)
		}
	}
	for _, path := range []string{"/a%20b", "/%C3%A9", "/a%3Ab", "/a;b", "/a%25b"} {
		if why, _ := badPath(path); why != "" {
			t.Errorf("%s: got %q, want none", path, why)
		}
	}
}
