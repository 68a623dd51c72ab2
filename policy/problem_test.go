package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/policy"
)

func TestProblemsWrite(t *testing.T) {
	in := policy.Files{"a.yaml": []byte("\tkay: 漢字: x\r\nbell: \x07\x1b[31m\n" + strings.Repeat("x", 500) + "\n")}
	at := func(line, col int) policy.Pos { return policy.Pos{File: "a.yaml", Line: line, Col: col} }
	problems := policy.Problems{
		{Pos: at(1, 9), Message: "after wide runes"},
		{Pos: at(1, 1), Message: "at a tab", Hint: "use spaces", Also: []policy.Pos{at(2, 1)}},
		{Pos: at(2, 7), Path: "a.b", Message: "control \x1b[0m bytes", Warning: true},
		{Pos: at(3, 400), Message: "far out"},
		{Pos: at(3, 501), Message: "at the end"},
		{Pos: at(9, 9), Message: "no such line"},
		{Pos: policy.Pos{File: "b.yaml"}, Message: "a whole file"},
	}
	var out bytes.Buffer
	if err := problems.Write(&out, in, false); err != nil {
		t.Fatal(err)
	}
	want := `a.yaml:1:9: after wide runes
  1 |     kay: 漢字: x
    |              ^

a.yaml:1:1: at a tab
  1 |     kay: 漢字: x
    | ^
  hint: use spaces
  also: a.yaml:2:1

a.yaml:2:7: warning: a.b: control <1B>[0m bytes
  2 | bell: <07><1B>[31m
    |       ^

a.yaml:3:400: far out
  3 | …` + strings.Repeat("x", 120) + `…
    | ` + strings.Repeat(" ", 61) + `^

a.yaml:3:501: at the end
  3 | …` + strings.Repeat("x", 60) + `
    | ` + strings.Repeat(" ", 61) + `^

a.yaml:9:9: no such line

b.yaml: a whole file
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	if err := problems.Write(&out, nil, true); err != nil || !strings.Contains(out.String(), "\x1b[1ma.yaml:1:9:\x1b[0m \x1b[31mafter") {
		t.Errorf("in colour: %v %q", err, out.String()[:80])
	}
}

func TestProblemsErr(t *testing.T) {
	warning := &policy.Problem{Pos: policy.Pos{File: "a.yaml"}, Message: "odd", Warning: true}
	if ps := (policy.Problems{warning}); ps.HasErrors() || ps.Err() != nil {
		t.Error("a warning counts as an error")
	}
	bad := &policy.Problem{Pos: policy.Pos{File: "a.yaml", Line: 8, Col: 5}, Path: "routes.r", Message: "bad"}
	err := policy.Problems{warning, bad}.Err()
	got, ok := errors.AsType[*policy.Problem](err)
	if !ok || got != bad || err.Error() != "a.yaml:8:5: routes.r: bad" {
		t.Errorf("got %v", err)
	}
	data, err := json.Marshal(bad)
	if want := `{"pos":{"file":"a.yaml","line":8,"col":5},"path":"routes.r","message":"bad"}`; err != nil || string(data) != want {
		t.Errorf("got %s, %v; want %s", data, err, want)
	}
}
