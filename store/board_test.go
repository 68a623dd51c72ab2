package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// openTogether opens what processes share, with a timeout for machines that are busy.
func openTogether(t testing.TB, o Options) *Shared {
	t.Helper()
	o.Timeout = 2 * time.Second
	s, err := OpenShared(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// openKnown opens it and waits until it answers.
func openKnown(t testing.TB, o Options) (*Shared, Board) {
	t.Helper()
	s := openTogether(t, o)
	b := s.Board("keys")
	until(t, patience, "the board", func() bool { return b.Known() && s.Health().OK })
	return s, b
}

func put(t testing.TB, b Board, name, value string) {
	t.Helper()
	if err := b.Put(t.Context(), Entry{Name: name, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

// says waits until each board has a value under a name; "-" is none.
func says(t testing.TB, name, value string, boards ...Board) {
	t.Helper()
	for i, b := range boards {
		until(t, patience, fmt.Sprintf("board %d to have %.30q", i, name), func() bool {
			e, ok := b.Get(name)
			return ok && string(e.Value) == value || !ok && value == "-"
		})
	}
}

// hostile are names that what carries them could trip over.
var hostile = []string{
	"\x00", "\n", "a\r\nb", "=", "revision", "=revision", "sum", "floor", "{a}", "}{", "é\xff\xfe", "*", "a b",
	strings.Repeat("x", maxName), "%s%d", "-1", "0", "$6\r\nfoobar", " ", "keys:changes",
}

// conformShared are the behaviours with Redis and without.
var conformShared = []struct {
	name string
	test func(t *testing.T, s *Shared)
}{
	{"board keeps what is put", testBoardKeeps},
	{"the later of two counts", testLaterCounts},
	{"entries expire", testEntriesExpire},
	{"hostile names and values", testHostileNames},
	{"bounds", testBounds},
	{"the same board each time", testSameBoard},
	{"records", testRecords},
	{"records are there", testRecordsAreThere},
	{"records end", testRecordsEnd},
	{"many at once", testManyAtOnce},
	{"a full board", testFullBoard},
}

func TestSharedConformance(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) Options{
		"memory":  func(*testing.T) Options { return Options{} },
		"disk":    func(t *testing.T) Options { return Options{Path: filepath.Join(t.TempDir(), "counts")} },
		"redis":   func(t *testing.T) Options { return Options{URL: startRedis(t).url()} },
		"cluster": func(t *testing.T) Options { return Options{URL: startCluster(t)[0].url() + "?cluster=true"} },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := openKnown(t, open(t))
			for _, c := range conformShared {
				t.Run(c.name, func(t *testing.T) { c.test(t, s) })
			}
		})
	}
}

func testBoardKeeps(t *testing.T, s *Shared) {
	b := s.Board("kept")
	before, version := time.Now().Add(-time.Minute), b.Version()
	put(t, b, "a", "1")
	put(t, b, "b", "")
	e, ok := b.Get("a")
	if !ok || string(e.Value) != "1" || !e.Expires.IsZero() || e.Written.Before(before) || e.Written.After(time.Now().Add(time.Minute)) {
		t.Errorf("got %+v, %v", e, ok)
	}
	if e, ok := b.Get("b"); !ok || len(e.Value) != 0 {
		t.Errorf("an empty value: got %+v, %v", e, ok)
	}
	if _, ok := b.Get("c"); ok {
		t.Error("got what was never put")
	}
	if b.Version() == version {
		t.Error("the version is as before")
	}
	var names []string
	for e := range b.Entries() {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"a", "b"}, names); diff != "" {
		t.Error(diff)
	}
	if _, ok := s.Board("other").Get("a"); ok {
		t.Error("another board has it")
	}
}

func testLaterCounts(t *testing.T, s *Shared) {
	b := s.Board("later")
	for i := range 20 {
		put(t, b, "x", fmt.Sprint(i))
		if e, _ := b.Get("x"); string(e.Value) != fmt.Sprint(i) {
			t.Fatalf("got %s after %d was put", e.Value, i)
		}
	}
}

func testEntriesExpire(t *testing.T, s *Shared) {
	b := s.Board("expiring")
	end := time.Now().Add(2 * time.Second)
	if err := b.Put(t.Context(), Entry{Name: "short", Expires: end}); err != nil {
		t.Fatal(err)
	}
	if e, ok := b.Get("short"); time.Now().Before(end.Add(-time.Second)) && (!ok || e.Expires.Unix() != end.Unix()) {
		t.Errorf("got %+v, %v", e, ok)
	}
	says(t, "short", "-", b)
	for e := range b.Entries() {
		t.Errorf("got %+v, want none", e)
	}
	put(t, b, "long", "1")
	if err := b.Put(t.Context(), Entry{Name: "long", Expires: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	says(t, "long", "-", b)
	put(t, b, "long", "2")
	says(t, "long", "2", b)
}

func testHostileNames(t *testing.T, s *Shared) {
	b, r := s.Board("{hostile}\n"), s.Records("hostile")
	for i, name := range hostile {
		value := fmt.Sprint(i, name)
		put(t, b, name, value)
		if err := r.Put(t.Context(), name, []byte(value), time.Minute); err != nil {
			t.Fatalf("%.20q: %v", name, err)
		}
	}
	for i, name := range hostile {
		says(t, name, fmt.Sprint(i, name), b)
		if got, err := r.Get(t.Context(), name); string(got) != fmt.Sprint(i, name) || err != nil {
			t.Errorf("%.20q: got %.20q, %v", name, got, err)
		}
	}
	n := 0
	for range b.Entries() {
		n++
	}
	if n != len(hostile) {
		t.Errorf("%d entries, want %d", n, len(hostile))
	}
	if err := r.Delete(t.Context(), hostile...); err != nil {
		t.Error(err)
	}
	for _, name := range hostile {
		if got, err := r.Get(t.Context(), name); got != nil || err != nil {
			t.Errorf("%.20q deleted: got %.20q, %v", name, got, err)
		}
	}
}

func testBounds(t *testing.T, s *Shared) {
	b, r := s.Board("bounds"), s.Records("bounds")
	long := strings.Repeat("n", maxName+1)
	for _, e := range []Entry{
		{}, {Name: long}, {Name: "v", Value: make([]byte, maxValue+1)}, {Name: "x", Expires: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if err := b.Put(t.Context(), e); !errors.Is(err, ErrEntry) {
			t.Errorf("%.20q: got %v", e.Name, err)
		}
	}
	put(t, b, "largest", string(make([]byte, maxValue)))
	for _, err := range []error{
		r.Put(t.Context(), "", nil, time.Second), r.Put(t.Context(), long, nil, time.Second),
		r.Put(t.Context(), "v", make([]byte, maxRecord+1), time.Second), r.Put(t.Context(), "x", nil, 0),
		r.Delete(t.Context(), "a", ""),
	} {
		if !errors.Is(err, ErrEntry) {
			t.Errorf("got %v, want ErrEntry", err)
		}
	}
	if err := r.Put(t.Context(), "largest", make([]byte, maxRecord), time.Minute); err != nil {
		t.Error(err)
	}
}

func testFullBoard(t *testing.T, s *Shared) {
	b := s.Board("full").(*board)
	b.most = 2
	put(t, b, "a", "1")
	put(t, b, "b", "1")
	if err := b.Put(t.Context(), Entry{Name: "c"}); !errors.Is(err, ErrEntry) {
		t.Errorf("got %v, want ErrEntry", err)
	}
	put(t, b, "a", "2")
	says(t, "a", "2", b)
}

func testSameBoard(t *testing.T, s *Shared) {
	if s.Board("one") != s.Board("one") || s.Board("one") == s.Board("two") {
		t.Error("boards aren't by name")
	}
}

func testManyAtOnce(t *testing.T, s *Shared) {
	b := s.Board("many")
	swarm(400, func(i int) bool {
		put(t, b, fmt.Sprint(i%50), "last")
		_, ok := b.Get(fmt.Sprint(i % 50))
		for range b.Entries() {
			break
		}
		return ok
	})
	for i := range 50 {
		says(t, fmt.Sprint(i), "last", b)
	}
}

func testRecords(t *testing.T, s *Shared) {
	ctx, r := t.Context(), s.Records("session")
	if got, err := r.Get(ctx, "a"); got != nil || err != nil {
		t.Errorf("before: got %q, %v", got, err)
	}
	if err := errors.Join(r.Put(ctx, "a", []byte("1"), time.Minute), r.Put(ctx, "a", []byte("2"), time.Minute), r.Put(ctx, "e", nil, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Get(ctx, "a"); string(got) != "2" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := r.Get(ctx, "e"); got == nil || len(got) != 0 || err != nil {
		t.Errorf("empty: got %v, %v", got, err)
	}
	if got, err := s.Records("other").Get(ctx, "a"); got != nil || err != nil {
		t.Errorf("another kind: got %q, %v", got, err)
	}
	for name, want := range map[string]bool{"a": true, "none": false} {
		if found, err := r.Extend(ctx, name, time.Hour); found != want || err != nil {
			t.Errorf("extend %s: got %v, %v", name, found, err)
		}
	}
	if err := r.Delete(ctx, "a", "none", "e"); err != nil {
		t.Error(err)
	}
	if got, err := r.Get(ctx, "a"); got != nil || err != nil {
		t.Errorf("deleted: got %q, %v", got, err)
	}
}

// testRecordsAreThere: Add writes where there is none, Replace where there is one.
func testRecordsAreThere(t *testing.T, s *Shared) {
	r := s.Records("there")
	for i, step := range []struct {
		write   func(context.Context, string, []byte, time.Duration) (bool, error)
		value   string
		written bool
		want    string
	}{
		{r.Replace, "1", false, ""}, {r.Add, "2", true, "2"}, {r.Add, "3", false, "2"}, {r.Replace, "4", true, "4"},
	} {
		written, err := step.write(t.Context(), "x", []byte(step.value), time.Minute)
		if got, _ := r.Get(t.Context(), "x"); err != nil || written != step.written || string(got) != step.want {
			t.Errorf("step %d: written %t, %v, then %q", i, written, err, got)
		}
	}
	if err := r.Delete(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if written, err := r.Replace(t.Context(), "x", nil, time.Minute); written || err != nil {
		t.Errorf("deleted and replaced: %t, %v", written, err)
	}
}

func testRecordsEnd(t *testing.T, s *Shared) {
	ctx, r := t.Context(), s.Records("ending")
	if err := errors.Join(r.Put(ctx, "short", nil, 30*time.Millisecond), r.Put(ctx, "long", nil, time.Minute), r.Put(ctx, "cut", nil, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Extend(ctx, "cut", 5*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"short", "cut"} {
		until(t, patience, name+" to end", func() bool {
			got, err := r.Get(ctx, name)
			return got == nil && err == nil
		})
		if found, err := r.Extend(ctx, name, time.Minute); found || err != nil {
			t.Errorf("%s extended after its end: %v, %v", name, found, err)
		}
	}
	if got, err := r.Get(ctx, "long"); got == nil || err != nil {
		t.Errorf("long: got %v, %v", got, err)
	}
}

func TestEveryProcessHearsOfAPut(t *testing.T) {
	r := startRedis(t)
	_, a := openKnown(t, Options{URL: r.url()})
	_, b := openKnown(t, Options{URL: r.url()})
	_, c := openKnown(t, Options{URL: r.url()})
	for i := range 20 {
		name := fmt.Sprint(i)
		put(t, []Board{a, b, c}[i%3], name, "new")
		says(t, name, "new", a, b, c)
	}
	start := openTogether(t, Options{URL: r.url()}).Board("keys")
	says(t, "19", "new", start)
}

// TestAChangeIsPushed: processes hear of a change though they don't ask.
func TestAChangeIsPushed(t *testing.T) {
	r := startRedis(t)
	_, a := openKnown(t, Options{URL: r.url()})
	far := openTogether(t, Options{URL: r.url()}).far
	m := newMirror(newBoard("keys", nil), far)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go m.listen(ctx)
	<-m.heard // that it is subscribed
	put(t, a, "x", "1")
	<-m.heard
}

// TestLostMessagesAreMadeUpFor: nobody may subscribe, so only asking tells.
func TestLostMessagesAreMadeUpFor(t *testing.T) {
	r := startRedis(t)
	do(t, r.client(), "ACL SETUSER deaf on >pw ~* +@all -subscribe resetchannels")
	_, a := openKnown(t, Options{URL: r.url()})
	_, b := openKnown(t, Options{URL: "redis://deaf:pw@" + r.addr()})
	for i := range 3 {
		put(t, a, fmt.Sprint(i), "new")
		says(t, fmt.Sprint(i), "new", b)
	}
}

func TestSubscriptionsThatAreCutComeBack(t *testing.T) {
	r := startRedis(t)
	_, a := openKnown(t, Options{URL: r.url()})
	_, b := openKnown(t, Options{URL: r.url()})
	admin := r.client()
	subscribed := func() bool {
		n, err := admin.PubSubNumSub(t.Context(), "legation:{board:keys}").Result()
		return err == nil && n["legation:{board:keys}"] == 2
	}
	for i := range 3 {
		until(t, patience, "both to subscribe", subscribed)
		do(t, admin, "CLIENT KILL TYPE pubsub")
		put(t, a, fmt.Sprint(i), "new")
		says(t, fmt.Sprint(i), "new", a, b)
	}
	until(t, patience, "both to subscribe again", subscribed)
}

// TestWhatRedisLosesComesBack: it is killed and comes back empty, or is emptied.
func TestWhatRedisLosesComesBack(t *testing.T) {
	r := startRedis(t)
	_, a := openKnown(t, Options{URL: r.url()})
	_, b := openKnown(t, Options{URL: r.url()})
	for i := range 300 {
		put(t, []Board{a, b}[i%2], fmt.Sprint(i), "kept")
	}
	says(t, "299", "kept", a, b)
	for name, lose := range map[string]func(){
		"killed":  func() { r.kill(); r.start() },
		"flushed": func() { do(t, r.client(), "FLUSHALL") },
		"half": func() {
			for i := range 150 {
				do(t, r.client(), fmt.Sprintf("HDEL legation:{board:keys} =%d", i))
			}
		},
		"changes": func() { do(t, r.client(), "DEL legation:{board:keys}:changes") },
		"sum":     func() { do(t, r.client(), "HSET legation:{board:keys} sum 5 revision 100000") },
	} {
		t.Run(name, func(t *testing.T) {
			lose()
			until(t, patience, "a put to go well", func() bool {
				return b.Put(t.Context(), Entry{Name: "after " + name, Value: []byte("1")}) == nil
			})
			says(t, "after "+name, "1", a, b)
			var c Board
			until(t, patience, "another process to know all", func() bool {
				s := openTogether(t, Options{URL: r.url()})
				defer s.Close()
				c = s.Board("keys")
				until(t, patience, "the board", c.Known)
				for i := range 300 {
					if e, ok := c.Get(fmt.Sprint(i)); !ok || string(e.Value) != "kept" {
						return false
					}
				}
				return true
			})
			for i := range 300 {
				says(t, fmt.Sprint(i), "kept", a, b)
			}
		})
	}
}

// TestAFailOverThatLostMoments: Redis goes back to what it was before, and others write on.
func TestAFailOverThatLostMoments(t *testing.T) {
	r := startRedis(t)
	_, a := openKnown(t, Options{URL: r.url()})
	admin := r.client()
	key := "legation:{board:keys}"
	put(t, a, "early", "1")
	before := []string{admin.Dump(t.Context(), key).Val(), admin.Dump(t.Context(), key+":changes").Val()}
	for i := range 5 {
		put(t, a, fmt.Sprint("lost", i), "1")
	}
	put(t, a, "early", "2")
	admin.RestoreReplace(t.Context(), key, 0, before[0])
	admin.RestoreReplace(t.Context(), key+":changes", 0, before[1])
	_, b := openKnown(t, Options{URL: r.url()})
	for i := range 7 { // more than were lost
		put(t, b, fmt.Sprint("new", i), "1")
	}
	for i := range 5 {
		says(t, fmt.Sprint("lost", i), "1", a, b)
	}
	for i := range 7 {
		says(t, fmt.Sprint("new", i), "1", a, b)
	}
	says(t, "early", "2", a, b)
}

// TestWhatEndsEarlyStaysAway: a process that didn't hear that an entry was taken away doesn't bring it back.
func TestWhatEndsEarlyStaysAway(t *testing.T) {
	r := startRedis(t)
	path := filepath.Join(t.TempDir(), "b")
	_, a := openKnown(t, Options{URL: r.url()})
	away, b := openKnown(t, Options{URL: r.url(), Path: path})
	put(t, a, "gone", "1")
	put(t, a, "stays", "1")
	says(t, "stays", "1", b)
	away.Close()
	if err := a.Put(t.Context(), Entry{Name: "gone", Expires: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	_, b = openKnown(t, Options{URL: r.url(), Path: path})
	says(t, "gone", "-", a, b)
	says(t, "stays", "1", a, b)
	do(t, r.client(), "FLUSHALL")
	put(t, b, "next", "1")
	says(t, "next", "1", a)
	says(t, "gone", "-", a, b)
	until(t, patience, "Redis to know that it is gone", func() bool {
		_, c := openKnown(t, Options{URL: r.url()})
		_, stays := c.Get("stays")
		_, gone := c.Get("gone")
		return stays && !gone
	})
}

// TestWhatWasTakenAwayLongAgo: a copy from before Redis forgot that an entry was taken away doesn't bring it back.
func TestWhatWasTakenAwayLongAgo(t *testing.T) {
	r := startRedis(t)
	s, a := openKnown(t, Options{URL: r.url()})
	put(t, a, "there", "1")
	late := newBoard("keys", nil)
	late.apply(&row{name: "gone", written: 1})
	for _, away := range []time.Duration{stale * 2, time.Minute} { // in this order: the second writes it back
		want := away < stale
		late.contact.Store(time.Now().Add(-away).UnixMicro())
		m := newMirror(late, s.far)
		if err := m.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := late.Get("gone"); ok != want {
			t.Errorf("away for %s: known %v, want %v", away, ok, want)
		}
		late.apply(&row{name: "gone", written: 1})
	}
}

// TestRedisForgetsWhatIsOver, and the processes with it.
func TestRedisForgetsWhatIsOver(t *testing.T) {
	r := startRedis(t)
	s, a := openKnown(t, Options{URL: r.url()})
	b := a.(*board)
	over := &row{name: "over", written: 5, expires: 1, until: 2}
	entries := map[string]any{"=over": over.pack(), "revision": 1, "sum": over.digest(), "floor": 0}
	r.client().HSet(t.Context(), "legation:{board:keys}", entries)
	put(t, a, "there", "1")
	until(t, patience, "the entry", func() bool { return b.table.get("over") != nil })
	m := newMirror(b, s.far)
	m.swept = time.Time{}
	if err := m.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, patience, "it to be forgotten", func() bool { return b.table.get("over") == nil })
	if n := r.client().HLen(t.Context(), "legation:{board:keys}").Val(); n != 4 {
		t.Errorf("%d fields, want one entry and three of the board's own", n)
	}
}

// TestTooFarBehind: who missed more changes than Redis remembers reads all.
func TestTooFarBehind(t *testing.T) {
	r := startRedis(t)
	s, a := openKnown(t, Options{URL: r.url()})
	m := newMirror(newBoard("keys", nil), s.far)
	if err := m.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	swarm(12_000, func(i int) bool {
		put(t, a, fmt.Sprint(i), "1")
		return true
	})
	until(t, patience, "all to be known", func() bool {
		return m.sync(t.Context()) == nil && m.b.table.n.Load() == 12_000 && m.b.sum() == a.(*board).sum()
	})
	if n := r.client().ZCard(t.Context(), "legation:{board:keys}:changes").Val(); n != 10_000 {
		t.Errorf("%d changes are remembered, want 10,000", n)
	}
}

func TestSharedWhileRedisIsAway(t *testing.T) {
	r := startRedis(t)
	s, b := openKnown(t, Options{URL: r.url()})
	put(t, b, "x", "1")
	r.kill()
	until(t, patience, "it to be told", func() bool { return !s.Health().OK })
	if err := b.Put(t.Context(), Entry{Name: "y"}); !isUnavailable(err) {
		t.Errorf("put: got %v", err)
	}
	if _, err := s.Records("session").Get(t.Context(), "x"); !isUnavailable(err) {
		t.Errorf("get: got %v", err)
	}
	says(t, "x", "1", b)
	r.start()
	until(t, patience, "it to be told", func() bool { return s.Health().OK })
	put(t, b, "y", "1")
}

func TestSharedOverSentinel(t *testing.T) {
	primary := startRedis(t)
	sentinel, _ := startReplicated(t, primary)
	_, b := openKnown(t, Options{URL: "redis://" + sentinel.addr() + "?master_name=main"})
	put(t, b, "x", "1")
	primary.kill()
	until(t, patience, "the new primary", func() bool { return b.Put(t.Context(), Entry{Name: "y"}) == nil })
	_, c := openKnown(t, Options{URL: "redis://" + sentinel.addr() + "?master_name=main"})
	says(t, "x", "1", b, c)
	says(t, "y", "", b, c)
}

func BenchmarkBoardGet(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		for _, expires := range []int64{0, time.Now().Add(time.Hour).Unix()} {
			b.Run(fmt.Sprintf("entries=%d,expire=%v", size, expires > 0), func(b *testing.B) {
				board := newBoard("keys", nil)
				names := make([]string, size)
				for i := range names {
					names[i] = fmt.Sprintf("key-%d", i)
					board.apply(&row{name: names[i], written: 1, expires: expires})
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					if _, ok := board.Get(names[i&(size-1)]); !ok {
						b.Fatal("missing")
					}
				}
			})
		}
	}
}

func TestBoardGetAllocatesNothing(t *testing.T) {
	b := newBoard("keys", nil)
	b.apply(&row{name: "x", written: 1, expires: time.Now().Add(time.Hour).Unix()})
	if n := testing.AllocsPerRun(100, func() { b.Get("x") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAFullRedisStillTells what it has.
func TestAFullRedisStillTells(t *testing.T) {
	r := startRedis(t)
	s, b := openKnown(t, Options{URL: r.url()})
	if err := s.Records("session").Put(t.Context(), "x", []byte("1"), time.Hour); err != nil {
		t.Fatal(err)
	}
	do(t, r.client(), "CONFIG SET maxmemory 1")
	until(t, patience, "it to be told", func() bool { return strings.Contains(s.Health().Reason, "OOM") })
	if err := b.Put(t.Context(), Entry{Name: "y"}); !isUnavailable(err) {
		t.Errorf("put: got %v", err)
	}
	if got, err := s.Records("session").Get(t.Context(), "x"); string(got) != "1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	do(t, r.client(), "CONFIG SET maxmemory 0")
	until(t, patience, "it to be well", func() bool { return s.Health().OK })
	put(t, b, "y", "1")
}

// TestSharedWhileRedisHangs: nobody waits for long, and it heals.
func TestSharedWhileRedisHangs(t *testing.T) {
	r := startRedis(t)
	s, err := OpenShared(Options{URL: r.url()}) // with the timeouts of everyday
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, records := s.Board("keys"), s.Records("session")
	until(t, patience, "the board", func() bool { return b.Known() && b.Put(t.Context(), Entry{Name: "x"}) == nil })
	r.signal(syscall.SIGSTOP)
	until(t, patience, "no trip to be made", func() bool {
		_, err := records.Get(t.Context(), "x")
		if err == nil || !isUnavailable(err) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		return strings.Contains(err.Error(), errDown.Error())
	})
	if err := b.Put(t.Context(), Entry{Name: "y"}); !isUnavailable(err) || !strings.Contains(err.Error(), errDown.Error()) {
		t.Errorf("put: got %v", err)
	}
	says(t, "x", "", b)
	r.signal(syscall.SIGCONT)
	until(t, patience, "it to heal", func() bool {
		_, err := records.Get(t.Context(), "x")
		return err == nil && s.Health().OK && b.Put(t.Context(), Entry{Name: "y"}) == nil
	})
}

// TestAClockSetBack: what is put later counts, though by Redis' clock it is earlier.
func TestAClockSetBack(t *testing.T) {
	r := startRedis(t)
	_, a := openKnown(t, Options{URL: r.url()})
	_, b := openKnown(t, Options{URL: r.url()})
	put(t, a, "x", "1")
	ahead := time.Now().Add(time.Hour).UnixMicro()
	a.(*board).apply(&row{name: "x", value: []byte("ahead"), written: ahead})
	put(t, a, "x", "later")
	says(t, "x", "later", a, b)
	put(t, b, "x", "last")
	says(t, "x", "last", a, b)
	if e, _ := a.Get("x"); e.Written.UnixMicro() <= ahead+1 {
		t.Errorf("written at %s", e.Written)
	}
}

// TestAContextThatEnds ends the wait, and tells nothing of Redis.
func TestAContextThatEnds(t *testing.T) {
	s, b := openKnown(t, Options{URL: startRedis(t).url()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * strikes {
		if _, err := s.Records("session").Get(ctx, "x"); !isUnavailable(err) {
			t.Errorf("get: got %v", err)
		}
		if err := b.Put(ctx, Entry{Name: "x"}); !isUnavailable(err) {
			t.Errorf("put: got %v", err)
		}
	}
	if h := s.Health(); !h.OK {
		t.Errorf("health %+v", h)
	}
	put(t, b, "x", "1")
}
