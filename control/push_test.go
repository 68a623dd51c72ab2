package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
)

// oneFile is a policy of one file.
func oneFile(text string) policy.Files { return policy.Files{"policy.yaml": []byte(text)} }

// teams is a policy of these teams, each with a service at this port.
func teams(port int, names ...string) policy.Files {
	files := policy.Files{"gateway.yaml": []byte(gateway(10000))}
	for _, name := range names {
		files[name+".yaml"] = []byte(team(name, port))
	}
	return files
}

// shared is a history that several controllers can have, as if it were in Redis.
func shared(t testing.TB) *revision.History {
	t.Helper()
	a, err := store.OpenArchive("", nil)
	must(t, err)
	return revision.New(a, nil)
}

// unreachable is an archive that can't be asked while it is down.
type unreachable struct {
	*store.NearArchive
	down atomic.Bool
}

func (u *unreachable) err() error {
	if u.down.Load() {
		return store.ErrUnavailable
	}
	return nil
}

func (u *unreachable) Head(ctx context.Context) (int64, error) {
	if err := u.err(); err != nil {
		return 0, err
	}
	return u.NearArchive.Head(ctx)
}

func (u *unreachable) Entries(ctx context.Context) ([]store.Archived, error) {
	if err := u.err(); err != nil {
		return nil, err
	}
	return u.NearArchive.Entries(ctx)
}

func (u *unreachable) Append(ctx context.Context, a store.Addition) error {
	if err := u.err(); err != nil {
		return err
	}
	return u.NearArchive.Append(ctx, a)
}

func push(t testing.TB, c *Controller, files policy.Files, parent string) Accepted {
	t.Helper()
	a, err := c.Push(t.Context(), files, Change{Parent: parent, By: "me", Message: "why"})
	must(t, err)
	return a
}

func TestPush(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	c, reports := byHand(t, Options{DataDir: data})
	c.Load()
	if o := c.Outcome(); o.Revision != "" || !strings.Contains(o.Error, "legation push") || o.Source != FromRevisions {
		t.Errorf("before the first push: got %+v", o)
	}
	first := push(t, c, oneFile(whole(1)), NoParent)
	if first.Number != 1 || !first.Served || first.By != "me" || first.Message != "why" || first.Source != revision.Pushed || first.Time.IsZero() {
		t.Errorf("got %+v", first)
	}
	if o := c.Outcome(); o.Revision != first.Hash || o.Error != "" || *o.Accepted != first.Revision || len(*reports) != 2 {
		t.Errorf("got %+v, %d reports", o, len(*reports))
	}
	if again := push(t, c, oneFile(whole(1)), "1"); !again.Unchanged || again.Number != 1 {
		t.Errorf("the same again: got %+v", again)
	}
	second := push(t, c, oneFile(whole(2)), first.Hash[:8])
	if second.Number != 2 || second.Parent != 1 || ports(c.Outcome().Model) != "app=2" {
		t.Errorf("got %+v, %s", second, ports(c.Outcome().Model))
	}

	// A restart serves the head.
	must(t, c.Close())
	c, _ = byHand(t, Options{DataDir: data})
	c.Load()
	if o := c.Outcome(); o.Revision != second.Hash || o.Accepted == nil || o.Accepted.Number != 2 || o.Error != "" {
		t.Errorf("after a restart: got %+v", o)
	}
}

func TestPushRefuses(t *testing.T) {
	t.Parallel()
	c, _ := byHand(t, Options{})
	push(t, c, teams(1, "a", "b", "c"), NoParent)
	push(t, c, teams(2, "a", "b", "c"), "head")
	before := c.Outcome()
	for _, row := range []struct {
		name   string
		files  policy.Files
		parent string
		want   error
		says   string
	}{
		{"another parent", teams(3, "a", "b", "c"), "1", revision.ErrMoved, "revision 2 is the last one, and this one builds on 1"},
		{"no parent", teams(3, "a", "b", "c"), NoParent, revision.ErrMoved, "revision 2 is there"},
		{"a parent that nobody knows", teams(3, "a", "b", "c"), "99", revision.ErrMoved, `"99"`},
		{"a problem", teams(3, "a", "b", "c\n?"), "2", new(Refused), "problems"},
		{"nothing", policy.Files{}, "2", new(Refused), "no policy file"},
		{"two of three gone", teams(2, "a"), "2", new(Shrink), "takes away 2 of 3 clusters (edge/b, edge/c), more than half: what was served before stays; if it is meant, say --force"},
		{"no gateway", oneFile("services: {app: {endpoints: [\"127.0.0.1:1\"]}}\n"), "2", new(Shrink), "no gateway left"},
	} {
		_, err := c.Push(t.Context(), row.files, Change{Parent: row.parent})
		refused, isRefused := errors.AsType[*Refused](err)
		_, wantRefused := row.want.(*Refused)
		_, wantShrink := row.want.(*Shrink)
		if err == nil || !strings.Contains(err.Error(), row.says) || wantRefused != isRefused || wantShrink != (shrinkOf(err) != nil) {
			t.Errorf("%s: got %v, want %T that says %q", row.name, err, row.want, row.says)
			continue
		}
		if !isRefused && !wantShrink && !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if isRefused && !refused.Problems.HasErrors() {
			t.Errorf("%s: no problem is told", row.name)
		}
	}
	if _, err := c.Push(t.Context(), teams(3, "a"), Change{Parent: "2", Message: "\x1b"}); !errors.Is(err, revision.ErrInvalid) && shrinkOf(err) == nil {
		t.Errorf("a message that moves the cursor: got %v", err)
	}
	if o := c.Outcome(); o.Revision != before.Revision || o.Accepted.Number != 2 {
		t.Errorf("something was served: %+v", o)
	}
	if a, err := c.Push(t.Context(), teams(2, "a"), Change{Parent: "2", Force: true}); err != nil || !a.Forced || !a.Served {
		t.Errorf("with force: got %+v, %v", a, err)
	}
}

func TestAllowShrink(t *testing.T) {
	t.Parallel()
	c, _ := byHand(t, Options{AllowShrink: true})
	push(t, c, teams(1, "a", "b", "c"), NoParent)
	if a := push(t, c, teams(1, "a"), "head"); !a.Served {
		t.Errorf("got %+v", a)
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	c, _ := byHand(t, Options{})
	for i := range 3 {
		push(t, c, oneFile(whole(i+1)), []string{NoParent, "head", "head"}[i])
	}
	back := func(to, parent string) (Accepted, error) {
		return c.Rollback(t.Context(), to, Change{Parent: parent, By: "me"})
	}
	a, err := back("1", "3")
	if err != nil || a.Number != 4 || a.Of != 1 || a.Source != revision.Rollback || !a.Served || ports(c.Outcome().Model) != "app=1" {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err = back("previous", "head"); err != nil || a.Number != 5 || a.Of != 3 || ports(c.Outcome().Model) != "app=3" {
		t.Errorf("one back: got %+v, %v", a, err)
	}
	if a, err = back("3", "head"); err != nil || !a.Unchanged || a.Number != 5 {
		t.Errorf("to what is served: got %+v, %v", a, err)
	}
	if _, err = back("2", "4"); !errors.Is(err, revision.ErrMoved) {
		t.Errorf("on another parent: got %v", err)
	}
	if _, err = back("99", "head"); !errors.Is(err, revision.ErrNone) {
		t.Errorf("to none: got %v", err)
	}
}

// Over a directory nothing can be pushed, and what it holds is in the history.
func TestDirectoryRules(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	c, _ := byHand(t, Options{Dir: dir})
	c.Load()
	for _, force := range []bool{false, true} {
		if _, err := c.Push(t.Context(), oneFile(whole(2)), Change{Parent: "head", Force: force}); !errors.Is(err, ErrDirectory) {
			t.Errorf("a push: got %v", err)
		}
	}
	write(t, filepath.Join(dir, "policy.yaml"), whole(2))
	c.Load()
	c.Load()
	all, err := c.History().List(t.Context())
	must(t, err)
	if len(all) != 2 || all[0].Number != 2 || all[0].Source != revision.Directory || all[0].Hash != c.Outcome().Revision || c.Outcome().Accepted.Number != 2 {
		t.Errorf("got %+v", all)
	}
}

// A rollback over a directory holds until that changes, also after a restart.
func TestRollbackPins(t *testing.T) {
	t.Parallel()
	dir, data := tree(t, map[string]string{"policy.yaml": whole(1)}), t.TempDir()
	c, _ := byHand(t, Options{Dir: dir, DataDir: data})
	c.Load()
	write(t, filepath.Join(dir, "policy.yaml"), whole(2))
	c.Load()
	a, err := c.Rollback(t.Context(), "1", Change{Parent: "head"})
	if err != nil || !a.Served || a.Pin == "" {
		t.Fatalf("got %+v, %v", a, err)
	}
	pinned := func(when string) {
		t.Helper()
		c.Load()
		if o := c.Outcome(); !o.Pinned || ports(o.Model) != "app=1" || o.Accepted == nil || o.Accepted.Number != 3 {
			t.Errorf("%s: got %+v", when, o)
		}
	}
	pinned("at once")
	write(t, filepath.Join(dir, "policy.yaml"), whole(2))
	pinned("the same written again")
	must(t, c.Close())
	c, _ = byHand(t, Options{Dir: dir, DataDir: data})
	pinned("after a restart")
	must(t, os.Rename(dir, dir+".away"))
	pinned("while the directory is away")
	must(t, os.Rename(dir+".away", dir))
	pinned("when it is back")

	write(t, filepath.Join(dir, "policy.yaml"), whole(3))
	c.Load()
	if o := c.Outcome(); o.Pinned || ports(o.Model) != "app=3" || o.Accepted.Number != 4 {
		t.Errorf("after a change: got %+v", o)
	}
	write(t, filepath.Join(dir, "policy.yaml"), whole(2))
	c.Load()
	if o := c.Outcome(); o.Pinned || ports(o.Model) != "app=2" {
		t.Errorf("what was there when it was rolled back: got %+v", o)
	}
}

// A directory that loses more than half is not followed, until it is approved, or is whole again; also over a restart.
func TestShrunkenDirectory(t *testing.T) {
	t.Parallel()
	files := map[string]string{"gateway.yaml": gateway(1), "a.yaml": team("a", 1), "b.yaml": team("b", 1), "c.yaml": team("c", 1)}
	dir, data := tree(t, files), t.TempDir()
	c, _ := byHand(t, Options{Dir: dir, DataDir: data})
	c.Load()
	before := c.Outcome().Revision
	for _, name := range []string{"b.yaml", "c.yaml"} {
		must(t, os.Remove(filepath.Join(dir, name)))
	}
	held := func(when string) {
		t.Helper()
		c.Load()
		o := c.Outcome()
		if o.Revision != before || o.Shrink == nil || o.Shrink.Clusters.Gone != 2 || o.Shrink.Clusters.Of != 3 || !strings.Contains(o.Error, "--force") {
			t.Errorf("%s: got %+v", when, o)
		}
		if want := []string{"edge/b", "edge/c"}; o.Shrink != nil && !slices.Equal(o.Shrink.Clusters.Names, want) {
			t.Errorf("%s: names %v, want %v", when, o.Shrink.Clusters.Names, want)
		}
	}
	held("at once")
	must(t, c.Close())
	c, _ = byHand(t, Options{Dir: dir, DataDir: data})
	held("after a restart")

	same, _, err := ReadDir(dir)
	must(t, err)
	for _, row := range []struct {
		name  string
		files policy.Files
		force bool
		ok    bool
	}{{"without force", same, false, false}, {"other files", teams(1, "a"), true, false}, {"the very files, with force", same, true, true}} {
		if a, err := c.Push(t.Context(), row.files, Change{Parent: "head", Force: row.force}); (err == nil) != row.ok || err != nil && !errors.Is(err, ErrDirectory) {
			t.Errorf("%s: got %+v, %v", row.name, a, err)
		}
	}
	if o := c.Outcome(); ports(o.Model) != "a=1" || o.Shrink != nil || o.Error != "" {
		t.Errorf("approved: got %+v", o)
	}
}

func TestShrinks(t *testing.T) {
	t.Parallel()
	listeners := func(n int) string {
		text := "gateways: {edge: {listeners: {"
		for i := range n {
			text += fmt.Sprintf("l%d: {port: %d},", i, 10000+i)
		}
		return text + "}}}\nroutes: {r: {hostnames: [a.test], directResponse: {status: 200}}}\n"
	}
	compiled := func(text string) *Compiled {
		c, problems, err := New(Options{}).Try(oneFile(text))
		must(t, errors.Join(err, problems.Err()))
		return c
	}
	services := func(names ...string) string {
		text := gateway(1)
		for _, name := range names {
			text += "---\n" + team(name, 1)
		}
		return text
	}
	for _, row := range []struct {
		name          string
		before, after string
		want          int // listeners or clusters that are told to be gone
	}{
		{"half of the listeners", listeners(4), listeners(2), 0},
		{"more than half of the listeners", listeners(5), listeners(2), 3},
		{"one of two listeners", listeners(2), listeners(1), 0},
		{"all but one of three", listeners(3), listeners(1), 2},
		{"the only listener renamed", listeners(1), strings.Replace(listeners(1), "l0", "other", 1), 0},
		{"both listeners renamed", listeners(2), strings.NewReplacer("l0", "x", "l1", "y").Replace(listeners(2)), 2},
		{"the only service", services("a"), services(), 0},
		{"the only service renamed", services("a"), services("b"), 0},
		{"two of two", services("a", "b"), services("c", "d"), 2},
		{"one of two", services("a", "b"), services("a"), 0},
		{"more", services("a"), services("a", "b", "c"), 0},
		{"the same", services("a", "b"), services("a", "b"), 0},
	} {
		got := 0
		if s := shrinks(compiled(row.before), compiled(row.after)); s != nil {
			got = s.Listeners.Gone + s.Clusters.Gone
		}
		if got != row.want {
			t.Errorf("%s: %d are told to be gone, want %d", row.name, got, row.want)
		}
	}
}

// What one pushes all serve; of two who push at once one wins.
func TestReplicas(t *testing.T) {
	t.Parallel()
	h := shared(t)
	var all []*Controller
	for range 2 {
		c, _ := byHand(t, Options{History: h, DataDir: t.TempDir()})
		all = append(all, c)
	}
	push(t, all[0], oneFile(whole(1)), NoParent)
	all[1].Load()
	if a, b := all[0].Outcome(), all[1].Outcome(); a.Revision != b.Revision || *a.Accepted != *b.Accepted {
		t.Errorf("got %+v and %+v", a, b)
	}
	for round := range 5 {
		var won atomic.Int64
		var done sync.WaitGroup
		for i, c := range all {
			done.Go(func() {
				_, err := c.Push(t.Context(), oneFile(whole(100*round+i+2)), Change{Parent: fmt.Sprint(round + 1)})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, revision.ErrMoved) {
					t.Error(err)
				}
			})
		}
		if done.Wait(); won.Load() != 1 {
			t.Errorf("round %d: %d have won, want one", round, won.Load())
		}
	}
	for _, c := range all {
		c.Load()
	}
	if a, b := all[0].Outcome(), all[1].Outcome(); a.Revision != b.Revision || a.Accepted.Number != 6 || *a.Accepted != *b.Accepted {
		t.Errorf("got %+v and %+v", a, b)
	}
}

// A store that is away changes nothing: what was served stays, also over a restart; nothing can be pushed.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	near, err := store.OpenArchive("", nil)
	must(t, err)
	u := &unreachable{NearArchive: near}
	o := Options{History: revision.New(u, nil), DataDir: t.TempDir()}
	c, _ := byHand(t, o)
	want := push(t, c, oneFile(whole(1)), NoParent)
	u.down.Store(true)
	for _, when := range []string{"while it runs", "after a restart"} {
		c.Load()
		if out := c.Outcome(); out.Revision != want.Hash || out.Error == "" || out.Accepted == nil || out.Accepted.Number != 1 {
			t.Errorf("%s: got %+v", when, out)
		}
		if _, err := c.Push(t.Context(), oneFile(whole(2)), Change{Parent: "1"}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: a push: got %v", when, err)
		}
		must(t, c.Close())
		c, _ = byHand(t, o)
	}
	u.down.Store(false)
	c.Load()
	if out := c.Outcome(); out.Error != "" || out.Revision != want.Hash {
		t.Errorf("when it is back: got %+v", out)
	}
}

// What a store has lost is given back to it; what was pushed since is not undone.
func TestLostRevisionsAreWrittenBack(t *testing.T) {
	t.Parallel()
	o := Options{History: shared(t), DataDir: t.TempDir()}
	c, _ := byHand(t, o)
	push(t, c, oneFile(whole(1)), NoParent)
	want := push(t, c, oneFile(whole(2)), "1")
	must(t, c.Close())

	o.History = shared(t) // an empty one
	c, _ = byHand(t, o)
	c.Load()
	if out := c.Outcome(); out.Revision != want.Hash || out.Error != "" {
		t.Errorf("got %+v", out)
	}
	head, err := o.History.Head(t.Context())
	if err != nil || head.Number != 2 || head.Hash != want.Hash || head.By != "me" {
		t.Errorf("written back: %+v, %v", head, err)
	}
	must(t, c.Close())

	other, _ := byHand(t, Options{History: shared(t)})
	newer := push(t, other, oneFile(whole(9)), NoParent)
	o.History = other.o.History
	c, _ = byHand(t, o)
	c.Load()
	if out := c.Outcome(); out.Revision != newer.Hash || out.Accepted.Number != 1 {
		t.Errorf("after a later first push: got %+v, want it", out)
	}
}

// A revision that this process can't serve leaves what it serves as it is.
func TestRevisionThatCantBeServedHere(t *testing.T) {
	t.Parallel()
	h := shared(t)
	o := Options{History: h, DataDir: t.TempDir()}
	c, _ := byHand(t, o)
	want := push(t, c, oneFile(whole(1)), NoParent)
	_, err := h.Append(t.Context(), revision.Revision{Parent: 1, Hash: "abc"}, oneFile("routes: [\n"))
	must(t, err)
	for _, when := range []string{"while it runs", "after a restart"} {
		c.Load()
		if out := c.Outcome(); out.Revision != want.Hash || !out.Problems.HasErrors() {
			t.Errorf("%s: got %+v", when, out)
		}
		must(t, c.Close())
		c, _ = byHand(t, o)
	}
}

// Without Envoys there is nothing parked that force could try again.
func TestForcedAgainWithoutEnvoys(t *testing.T) {
	t.Parallel()
	c, _ := byHand(t, Options{})
	push(t, c, oneFile(whole(1)), NoParent)
	a, err := c.Push(t.Context(), oneFile(whole(1)), Change{Parent: "head", Force: true})
	if err != nil || !a.Unchanged || !a.Served {
		t.Errorf("got %+v, %v, want it to be served already", a, err)
	}
}
