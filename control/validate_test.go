package control

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// judgeOf stands for an Envoy that refuses every policy that has a word in it.
type judgeOf struct {
	t     *testing.T
	word  string
	asked int
	err   error // it can't be asked
}

func (j *judgeOf) ask(_ context.Context, b *bootstrapv3.Bootstrap) error {
	j.asked++
	if j.err != nil {
		return j.err
	}
	text, err := envoy.JSON(b)
	must(j.t, err)
	if strings.Contains(string(text), j.word) {
		return &envoy.Refused{Words: "no " + j.word}
	}
	return nil
}

// judged is a controller that shows policies to a judge who has no refused.test.
func judged(t *testing.T, o Options) (*Controller, *judgeOf) {
	t.Helper()
	j := &judgeOf{t: t, word: "refused.test"}
	o.Validation = &Validation{Ask: j.ask}
	c, _ := byHand(t, o)
	return c, j
}

// onlyProblem is the one problem of an outcome.
func onlyProblem(t *testing.T, o Outcome) *policy.Problem {
	t.Helper()
	if len(o.Problems) != 1 {
		t.Fatalf("got %v, want one problem", o.Problems)
	}
	return o.Problems[0]
}

func TestWhatEnvoyRefusesIsKeptBackAndTheRestServed(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"gateway.yaml": gateway(1), "a.yaml": team("a", 1), "refused.yaml": team("calm", 1)})
	c, j := judged(t, Options{Dir: dir})
	c.Load()
	first := c.Outcome()
	if first.Revision == "" || j.asked != 1 {
		t.Fatalf("serves %q after %d questions, want one question", first.Revision, j.asked)
	}
	write(t, filepath.Join(dir, "a.yaml"), team("a", 2))
	write(t, filepath.Join(dir, "refused.yaml"), "\n"+team("refused", 1))
	c.Load()
	o := c.Outcome()
	p := onlyProblem(t, o)
	if p.Pos.File != "refused.yaml" || p.Pos.Line != 3 || !strings.Contains(p.Message, "Envoy refuses this: no refused.test") {
		t.Errorf("told %v", p)
	}
	if !o.Changed || o.Error != "" || o.Model.Services[0].Endpoints[0].Port != 2 || len(o.Model.Routes) != 2 || o.Model.Routes[1].Name != "calm" {
		t.Errorf("serves %+v, %q", o.Model.Routes, o.Error)
	}

	asked := j.asked
	for range 3 {
		c.Load()
	}
	if j.asked != asked || len(c.Outcome().Problems) != 1 {
		t.Errorf("asked %d times about a directory that rests, and told %v", j.asked-asked, c.Outcome().Problems)
	}
	write(t, filepath.Join(dir, "refused.yaml"), team("mended", 1))
	c.Load()
	if o := c.Outcome(); len(o.Problems) != 0 || !o.Changed || j.asked != asked+1 {
		t.Errorf("mended: told %v, changed %t, asked %d times, want once", o.Problems, o.Changed, j.asked-asked)
	}
}

// What is wrong with other files is told beside what Envoy refuses, once.
func TestWhatEnvoyRefusesHidesNoOtherProblem(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"gateway.yaml": gateway(1), "a.yaml": team("a", 1), "b.yaml": team("calm", 1)})
	c, _ := judged(t, Options{Dir: dir})
	c.Load()
	write(t, filepath.Join(dir, "a.yaml"), strings.Replace(team("a", 1), "backends", "backend", 1))
	write(t, filepath.Join(dir, "b.yaml"), team("refused", 1))
	c.Load()
	var got []string
	for _, p := range c.Outcome().Problems {
		got = append(got, p.Pos.File+": "+p.Path)
	}
	want := []string{"a.yaml: routes.a.backend", "b.yaml: routes.refused"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCommentsAreNoNewQuestion(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	c, j := judged(t, Options{Dir: dir})
	c.Load()
	before := c.Outcome().Revision
	write(t, filepath.Join(dir, "policy.yaml"), whole(1)+"# a comment\n")
	c.Load()
	if c.Outcome().Revision == before || j.asked != 1 {
		t.Errorf("asked %d times about the same resources, at %s", j.asked, c.Outcome().Revision)
	}
}

func TestNothingNewIsServedWhereEnvoyCantBeAsked(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"gone":                errors.New("no such file"),
		"refusing everything": &envoy.Refused{Words: "no room left"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, map[string]string{"policy.yaml": whole(1)})
			c, j := judged(t, Options{Dir: dir})
			c.Load()
			before := c.Outcome().Revision
			j.err = err
			write(t, filepath.Join(dir, "policy.yaml"), whole(2))
			c.Load()
			o := c.Outcome()
			if o.Revision != before || len(o.Problems) != 0 || !strings.Contains(o.Error, "can't be asked") || !strings.Contains(o.Error, err.Error()) {
				t.Errorf("serves %s (before %s), told %v, %q", o.Revision, before, o.Problems, o.Error)
			}
			j.err = nil
			c.Load()
			if o := c.Outcome(); o.Revision == before || o.Error != "" {
				t.Errorf("once it can be asked again: serves %s, %q", o.Revision, o.Error)
			}
		})
	}
}

// A restart does not hang on an Envoy: what was served goes on being served.
func TestWhatWasServedIsNotAskedAboutAgain(t *testing.T) {
	t.Parallel()
	dir, data := tree(t, map[string]string{"policy.yaml": whole(1)}), t.TempDir()
	c, _ := judged(t, Options{Dir: dir, DataDir: data})
	c.Load()
	again, j := judged(t, Options{Dir: dir, DataDir: data})
	j.err = errors.New("gone")
	again.Load()
	if o := again.Outcome(); o.Revision != c.Outcome().Revision || j.asked != 0 {
		t.Errorf("serves %q, asked %d times, %q", o.Revision, j.asked, o.Error)
	}
}

// hanging never answers.
func hanging(ctx context.Context, _ *bootstrapv3.Bootstrap) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestEnvoyThatHangsIsLeft(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	c, _ := byHand(t, Options{Dir: dir, Validation: &Validation{Ask: hanging, Patience: time.Millisecond}})
	c.Load()
	if o := c.Outcome(); o.Revision != "" || !strings.Contains(o.Error, "no answer within 1ms") {
		t.Errorf("serves %q, %q", o.Revision, o.Error)
	}
}

func TestQuestionEndsWithTheController(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	c := controller(Options{Dir: tree(t, map[string]string{"policy.yaml": whole(1)}), Validation: &Validation{
		Ask: func(ctx context.Context, b *bootstrapv3.Bootstrap) error {
			asked <- struct{}{}
			return hanging(ctx, b)
		},
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	<-asked
	cancel()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("still asking")
	}
}
