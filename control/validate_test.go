package control

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/store"
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

// While Envoy is asked about a load a group goes back, and what is served can be seen; what was asked about is served then.
func TestGroupGoesBackWhileEnvoyIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang, answer := false, make(chan struct{})
		p := judging(t, Options{Validation: &Validation{Ask: func(context.Context, *bootstrapv3.Bootstrap) error {
			if hang {
				<-answer
			}
			return nil
		}}})
		first := p.push(protected(1, 10))
		e := p.envoy()
		refuses := make(chan struct{})
		e.set(func() { e.refuse, e.seen = true, func() { <-refuses } })
		second := p.push(protected(2, 20))

		hang = true
		write(t, filepath.Join(p.dir, "policy.yaml"), protected(3, 30))
		loaded := make(chan struct{})
		go func() { p.Load(); close(loaded) }()
		synctest.Wait() // it asks
		close(refuses)
		pass(5 * time.Second)
		if o := p.Outcome(); o.Revision != second.Model.Revision || len(o.Parked) != 1 || o.Parked[0].To != first.Model.Revision {
			t.Errorf("while Envoy is asked: serves %s, parked %+v; want the second policy parked", o.Revision, o.Parked)
		}
		if served, _ := p.Served(); served.Model.Revision != second.Model.Revision {
			t.Errorf("while Envoy is asked: %s is served, want the second policy", served.Model.Revision)
		}
		if nodes := p.o.XDS.Status(); len(nodes) != 1 || nodes[0].Revision != first.Model.Revision {
			t.Errorf("while Envoy is asked: the Envoy runs %+v, want the first policy", nodes)
		}

		refusing(false, e)
		close(answer)
		<-loaded
		pass(5 * time.Second)
		third := compile(t, protected(3, 30)).Model.Revision
		if o := p.Outcome(); o.Revision != third || len(o.Parked) != 0 {
			t.Errorf("once Envoy has answered: serves %s, parked %+v; want the third policy, %s", o.Revision, o.Parked, third)
		}
		if nodes := p.o.XDS.Status(); nodes[0].Revision != third {
			t.Errorf("once Envoy has answered: the Envoy runs %s, want the third policy", nodes[0].Revision)
		}
	})
}

// A push about which Envoy does not answer is refused some time, and nobody but other loads and pushes waits for it.
func TestPushWaitsAloneForEnvoy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		hang := false
		p := judging(t, Options{Parked: board, Validation: &Validation{Ask: func(ctx context.Context, b *bootstrapv3.Bootstrap) error {
			if hang {
				return hanging(ctx, b)
			}
			return nil
		}}})
		p.push(protected(1, 10))
		p.envoy()
		second := p.push(protected(2, 20))

		hang = true
		ended := make(chan error, 1)
		go func() {
			_, err := p.Push(t.Context(), policy.Files{"policy.yaml": []byte(protected(3, 30)), "keys.json": publicKeys(t)}, Change{Parent: NoParent})
			ended <- err
		}()
		synctest.Wait() // it asks
		value, err := json.Marshal(Parked{Group: "edge"})
		must(t, err)
		must(t, board.Put(t.Context(), store.Entry{
			Name: parkedName("edge", p.fleet["edge"].now.digest), Value: value, Expires: time.Now().Add(time.Hour),
		}))
		pass(5 * time.Second)
		if o := p.Outcome(); o.Revision != second.Model.Revision || len(o.Parked) != 1 {
			t.Errorf("serves %s, parked %+v; want the second policy, which another process has parked", o.Revision, o.Parked)
		}
		if len(ended) > 0 {
			t.Fatal("the push ended before Envoy could answer")
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "no answer within 1m0s") {
			t.Errorf("got %v, want that Envoy can't be asked", err)
		}
	})
}

// A secret that changes is shown to Envoy: one that it refuses is not served, and one that it takes is.
func TestRotatedSecretIsValidated(t *testing.T) {
	t.Parallel()
	secrets := t.TempDir()
	dir := tree(t, map[string]string{"gateway.yaml": strings.Replace(gateway(10000), "port", "certificates: [{secret: tls/a}], protocol: HTTPS, port", 1), "app.yaml": team("app", 1)})
	crt, key := pair(t, "a.test", far())
	putPair(t, secrets, "tls/a", crt, key)
	asked, refused := 0, ""
	c, _ := byHand(t, Options{Dir: dir, Secrets: &Secrets{Dir: secrets}, Validation: &Validation{
		Secrets: secrets,
		Ask: func(context.Context, *bootstrapv3.Bootstrap) error {
			asked++
			if now, err := os.ReadFile(filepath.Join(secrets, "tls/a.crt")); err != nil || string(now) == refused {
				return &envoy.Refused{Words: "no such pair"}
			}
			return nil
		},
	}})
	c.Load()
	revision := c.Outcome().Revision
	bad, badKey := pair(t, "a.test", far())
	refused = bad
	putPair(t, secrets, "tls/a", bad, badKey)
	c.Load()
	if s, o := served(t, c, "certificate/tls/a"), c.Outcome(); string(s.Value) != crt || o.Revision != revision || !o.Problems.HasErrors() && o.Error == "" {
		t.Errorf("a pair that Envoy refuses: told %v, %q; served: %t", o.Problems, o.Error, string(s.Value) == bad)
	}
	good, goodKey := pair(t, "a.test", far())
	putPair(t, secrets, "tls/a", good, goodKey)
	asked = 0
	for range 3 {
		c.Load()
	}
	if s, o := served(t, c, "certificate/tls/a"), c.Outcome(); string(s.Value) != good || o.Problems.HasErrors() || o.Error != "" || asked != 1 {
		t.Errorf("a pair that Envoy takes: told %v, %q after %d questions; served: %t", o.Problems, o.Error, asked, string(s.Value) == good)
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
