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
