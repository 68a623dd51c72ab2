package policy_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

func TestSecretsAreNowhereInProblems(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/secrets.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := split(archive)
	_, problems := testLanguage().Load(files)
	var out bytes.Buffer
	if err := problems.Write(&out, files, false); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(problems)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String() + string(asJSON)) {
		if at := strings.Index(line, "INLINE"); at >= 0 && !strings.Contains(line, "unknown key") {
			t.Errorf("shown: %s", line)
		}
	}
	if !strings.Contains(string(asJSON), `"secret":true`) || len(problems) < 12 {
		t.Errorf("%d problems: %s", len(problems), asJSON)
	}
}

// TestSecretLinesOfProblemsFromElsewhere holds for problems that Load has not seen, such as those of an Envoy.
func TestSecretLinesOfProblemsFromElsewhere(t *testing.T) {
	files := policy.Files{"a.yaml": []byte("a:\n  password: INLINE\n  other: shown\n")}
	at := func(line int) *policy.Problem {
		return &policy.Problem{Pos: policy.Pos{File: "a.yaml", Line: line, Col: 1}, Message: "refused"}
	}
	var out bytes.Buffer
	if err := (policy.Problems{at(2), at(3)}).Write(&out, files, false); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "INLINE") || !strings.Contains(out.String(), "other: shown") {
		t.Error(out.String())
	}
}

// TestWhereKeysAreLookedForIsShown tells the apiKey of auth from one that is a key.
func TestWhereKeysAreLookedForIsShown(t *testing.T) {
	for text, shown := range map[string]bool{
		"a: {apiKey: {header: x-api-key}}":                             true,
		"a: {apiKey: {header: [x-api-key, 'x-key'], forward: true}}":   true,
		"apiKey:\n  header: x-api-key":                                 true,
		"apiKey:\n  query: [key, api_key]":                             true,
		"a: {apiKey: {heder: x-api-key, qery: [a]}}":                   true,
		"apiKey: {hash: INLINE}":                                       false,
		"apiKey: {key: INLINE}":                                        false,
		"apiKey: {}":                                                   false,
		"apiKey: INLINE":                                               false,
		"apiKey: {value: INLINE}":                                      false,
		"apiKey: {header: x-api-key, value: INLINE}":                   false,
		"apiKey: {header: x-api-key}, token: INLINE":                   false,
		"apiKey: {header: lk_7d3f0a6b}":                                false,
		"apiKey: {header: {x: INLINE}}":                                false,
		"apiKey: {header: x-api-key,\n  value: INLINE}":                false,
		"apiKey:\n  INLINE":                                            false,
		"apiKey:\n  header: x-api-key\n  id: INLINE":                   false,
		"apiKey:\n  header: x-api-key INLINE":                          false,
		"apiKey:\n- header\n- INLINE":                                  false,
		"consumers: {c: {apiKey: {id: INLINE, hash: INLINE}}}":         false,
		"api_key:\n  header: x-api-key":                                false, // no key of the language
		"apiKey: |\n  header: shown\n  INLINE":                         false,
		"apiKey:\n  header: x-api-key\n\n  password:\n    header: one": false,
	} {
		files := policy.Files{"a.yaml": []byte(text)}
		last := strings.Count(text, "\n") + 1
		problems := policy.Problems{{Pos: policy.Pos{File: "a.yaml", Line: last, Col: 1}, Message: "refused"}}
		var out bytes.Buffer
		if err := problems.Write(&out, files, false); err != nil {
			t.Fatal(err)
		}
		if got := !strings.Contains(out.String(), "not shown"); got != shown {
			t.Errorf("%q: shown: %t, want %t", text, got, shown)
		}
	}
}
