package auth

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

type vectors struct {
	TestGroups []struct {
		Comment string
		Public  json.RawMessage
		Private json.RawMessage
		Tests   []struct {
			TcID    int
			Comment string
			JWS     json.RawMessage
			Result  string
		}
	}
}

func wycheproof(t *testing.T, file string) vectors {
	t.Helper()
	dir := os.Getenv("LEGATION_TESTDATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "testdata")
	}
	b, err := os.ReadFile(filepath.Join(dir, "wycheproof", file))
	if os.IsNotExist(err) {
		t.Skipf("the Wycheproof vectors are neither in LEGATION_TESTDATA nor in ../shared/testdata")
	}
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// accepts tells whether a token passes the gate and the keys; the vectors' payloads are no claims.
func accepts(keys []byte, raw json.RawMessage) bool {
	set, err := parseKeySet(keys)
	if err != nil {
		return false
	}
	var compact string
	if json.Unmarshal(raw, &compact) != nil {
		return false
	}
	token, err := parseToken(compact)
	return err == nil && set.verify(token) == nil
}

func TestWycheproofSignatures(t *testing.T) {
	wrong := []int{346, 347, 350, 351, 367, 370, 372, 373} // themselves, says the README beside them
	accepted, refused := 0, 0
	for _, g := range wycheproof(t, "json_web_signature_test.json").TestGroups {
		key, symmetric := g.Public, g.Public == nil
		if symmetric {
			key = g.Private
		}
		set := slices.Concat([]byte(`{"keys":[`), key, []byte(`]}`))
		for _, v := range g.Tests {
			if slices.Contains(wrong, v.TcID) {
				continue
			}
			want := v.Result == "valid" && !symmetric // a shared secret is never accepted
			if got := accepts(set, v.JWS); got != want {
				t.Errorf("%s %d %s: accepted %v", g.Comment, v.TcID, v.Comment, got)
			} else if got {
				accepted++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d accepted, %d refused, as they should", accepted, refused)
}

func TestWycheproofKeys(t *testing.T) {
	for _, g := range wycheproof(t, "json_web_key_test.json").TestGroups {
		set, symmetric := g.Public, g.Public == nil
		if symmetric {
			set = g.Private
		}
		for _, v := range g.Tests {
			want := v.Result == "valid" && !symmetric
			if got := accepts(set, v.JWS); got != want {
				t.Errorf("%s %d %s: accepted %v", g.Comment, v.TcID, v.Comment, got)
			}
		}
	}
}
