package auth

import (
	"encoding/base64"
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

// acceptsSecret tells whether a token passes the gate and the one secret, of a JWK or a set of them, that it names.
func acceptsSecret(private, raw json.RawMessage) bool {
	type jwk struct{ Kty, Alg, K, Kid string }
	var one jwk
	var set struct{ Keys []jwk }
	var compact string
	if json.Unmarshal(private, &one) != nil || json.Unmarshal(private, &set) != nil || json.Unmarshal(raw, &compact) != nil {
		return false
	}
	if set.Keys == nil {
		set.Keys = []jwk{one}
	}
	token, err := parseToken(compact)
	if err != nil || slices.ContainsFunc(set.Keys, func(k jwk) bool { return k.Kty != "oct" }) { // Load refuses a mixture
		return false
	}
	named := slices.DeleteFunc(set.Keys, func(k jwk) bool { return token.kid != "" && k.Kid != token.kid })
	if len(named) != 1 {
		return false
	}
	secret, err := base64.RawURLEncoding.DecodeString(named[0].K)
	need, known := secretAlgorithms[named[0].Alg]
	return err == nil && known && len(secret) >= need && secretKeys(secret, []string{named[0].Alg}).verify(token) == nil
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
			got := accepts(set, v.JWS)
			if symmetric && got {
				t.Errorf("%s %d %s: a secret was taken for a public key", g.Comment, v.TcID, v.Comment)
			}
			if symmetric {
				got = acceptsSecret(g.Private, v.JWS)
			}
			if want := v.Result == "valid"; got != want {
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
	total := 0
	for _, g := range wycheproof(t, "json_web_key_test.json").TestGroups {
		set, symmetric := g.Public, g.Public == nil
		if symmetric {
			set = g.Private
		}
		for _, v := range g.Tests {
			got := accepts(set, v.JWS)
			if symmetric && got {
				t.Errorf("%s %d %s: a secret was taken for a public key", g.Comment, v.TcID, v.Comment)
			}
			if symmetric {
				got = acceptsSecret(g.Private, v.JWS)
			}
			if want := v.Result == "valid"; got != want {
				t.Errorf("%s %d %s: accepted %v", g.Comment, v.TcID, v.Comment, got)
			}
			total++
		}
	}
	t.Logf("%d judged as they should", total)
}
