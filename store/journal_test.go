package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// keeping opens a store that keeps its counts in a file; log gets what it tells operators.
func keeping(t *testing.T, path string, log *lines) *embedded {
	t.Helper()
	o := Options{Path: path}
	if log != nil {
		o.Log = logTo(log)
	}
	return open(t, o).(*embedded)
}

// killed is a copy of a store's file as a process that is killed now would leave it.
func killed(t *testing.T, path string) string {
	t.Helper()
	synctest.Wait()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "counts")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func counts(t *testing.T, s Store, hits ...Hit) []int64 {
	t.Helper()
	var all []int64
	for _, h := range hits {
		h.Hits = 0
		all = append(all, count(t, s, h)[0].Count)
	}
	return all
}

func wantCounts(t *testing.T, what string, got []int64, want ...int64) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestCountsOutlastAnOrderlyRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		short := Hit{Key: "short", Limit: 10, Window: 2 * time.Second, Hits: 1}
		hits := append(each("kept", 10, 3), short)
		for _, want := range [][]int64{{3, 3, 3, 3, 1}, {6, 6, 6, 6, 2}, {9, 9, 9, 9, 3}} {
			s := keeping(t, path, nil)
			count(t, s, hits...)
			wantCounts(t, "counted on", counts(t, s, hits...), want...)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		wantCounts(t, "later", counts(t, keeping(t, path, nil), hits...), 9, 9, 9, 9, 0)
		for _, name := range []string{path, path + ".lock"} {
			if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: %v %v", name, info.Mode(), err)
			}
		}
	})
}

func TestAKillLosesHalfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		s := keeping(t, path, nil)
		defer s.Close()
		hits := each("killed", 100, 1)
		for i := range int64(20) {
			count(t, s, hits...)
			time.Sleep(journalEvery)
			after := keeping(t, killed(t, path), nil)
			wantCounts(t, "half a second later", counts(t, after, hits...), i+1, i+1, i+1, i+1)
			after.Close()
		}
		count(t, s, hits...)
		after := keeping(t, killed(t, path), nil)
		defer after.Close()
		wantCounts(t, "at once", counts(t, after, hits...), 20, 20, 20, 20)
	})
}

func TestWhatIsGivenBackIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		s := keeping(t, path, nil)
		defer s.Close()
		for _, h := range each("back", 10, 6) {
			count(t, s, h)
			time.Sleep(journalEvery)
			count(t, s, asking(-4, h)[0])
			time.Sleep(journalEvery)
			after := keeping(t, killed(t, path), nil)
			wantCounts(t, "some given back", counts(t, after, h), 2)
			after.Close()
			count(t, s, asking(-2, h)[0])
			time.Sleep(journalEvery)
			after = keeping(t, killed(t, path), nil)
			wantCounts(t, "all given back", counts(t, after, h), 0)
			after.Close()
		}
	})
}

func TestOnlyWhatChangedIsAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		s := keeping(t, path, nil)
		defer s.Close()
		for i := range 5000 {
			count(t, s, Hit{Key: fmt.Sprint("key", i), Limit: 5, Window: time.Hour, Hits: 1})
		}
		for i := range 5000 {
			count(t, s, Hit{Key: fmt.Sprint("short", i), Limit: 5, Window: 4 * time.Second, Hits: 1})
		}
		time.Sleep(journalEvery)
		synctest.Wait()
		before := fileSize(t, path)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fileSize(t, path); got != before || before > 5000*30 {
			t.Errorf("%d bytes, %d after an idle minute", before, got)
		}
		for range 100 {
			count(t, s, Hit{Key: "key7", Limit: 500, Window: time.Hour, Hits: 1})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fileSize(t, path); got <= before || got > before+40 {
			t.Errorf("%d bytes for a bucket", got-before)
		}
	})
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestFileIsWrittenAnewWhenItHasGrown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		s := keeping(t, path, nil)
		defer s.Close()
		largest := int64(0)
		for range 20 {
			for i := range 10_000 {
				count(t, s, Hit{Key: fmt.Sprint("a key of some length, as they are ", i), Limit: 500, Window: 24 * time.Hour, Hits: 1})
			}
			time.Sleep(journalEvery)
			synctest.Wait()
			largest = max(largest, fileSize(t, path))
		}
		if least, most := int64(journalSlack), int64(2*journalSlack); largest < least || largest > most {
			t.Errorf("the file has grown to %d, want some %d", largest, journalSlack)
		}
		after := keeping(t, killed(t, path), nil)
		defer after.Close()
		if n := size(after); n != 10_000 {
			t.Errorf("%d buckets, want 10,000", n)
		}
		wantCounts(t, "after it", counts(t, after, Hit{Key: "a key of some length, as they are 77", Limit: 500, Window: 24 * time.Hour}), 20)
	})
}

// readyFile is a file with three frames, and the counts after each.
func readyFile(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counts")
	s := keeping(t, path, nil)
	for range 3 {
		count(t, s, each("torn", 10, 1)...)
		time.Sleep(journalEvery)
	}
	b, err := os.ReadFile(killed(t, path))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return b
}

func TestTornFilesGiveWhatTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := readyFile(t)
		last := int64(0)
		for n := range len(whole) + 1 {
			path := filepath.Join(t.TempDir(), "counts")
			if err := os.WriteFile(path, append(whole[:n:n], make([]byte, n%3*20)...), 0o600); err != nil { // zeros after a power failure
				t.Fatal(err)
			}
			var log lines
			s := keeping(t, path, &log)
			got := counts(t, s, each("torn", 10, 0)...)
			if d := cmp.Diff([]int64{got[0], got[0], got[0], got[0]}, got); d != "" || got[0] < last {
				t.Fatalf("%d of %d bytes give %d, %d before", n, len(whole), got, last)
			}
			last = got[0]
			s.Close()
			if n%3 == 0 && strings.Contains(log.String(), "WARN") {
				t.Errorf("%d bytes: %s", n, log.String())
			}
		}
		if last != 3 {
			t.Errorf("the whole file gives %d, want 3", last)
		}
	})
}

func TestCorruptFilesArePutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := readyFile(t)
		foreign := append([]byte("legation counts 2\n"), whole[len(journalHead):]...)
		files := map[string][]byte{"another version": foreign, "text": []byte("hello, I am no file of counts at all")}
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 0x10
			files[fmt.Sprint("byte ", i)] = bad
		}
		for name, content := range files {
			path := filepath.Join(t.TempDir(), "counts")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			var log lines
			s := keeping(t, path, &log)
			for i, n := range counts(t, s, each("torn", 10, 0)...) {
				if n < 0 || n > 3 {
					t.Errorf("%s: count %d of algorithm %d", name, n, i)
				}
			}
			if h := s.Health(); !h.OK || h.Warning != "" {
				t.Errorf("%s: %+v", name, h)
			}
			aside, err := os.ReadFile(path + ".bad")
			told := strings.Contains(log.String(), "counts on disk not all read")
			if err == nil && !bytes.Equal(aside, content) || (err == nil) != told {
				t.Errorf("%s: put aside: %v, told: %t", name, err, told)
			}
			if err != nil && !strings.HasPrefix(name, "byte") {
				t.Errorf("%s: %v", name, err)
			}
			count(t, s, daily("anew", 10, 1))
			s.Close()
			wantCounts(t, name, counts(t, keeping(t, path, nil), daily("anew", 10, 0)), 1)
		}
	})
}

func TestTroubleOnDiskStopsNoCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		var log lines
		s := keeping(t, path, &log)
		h := daily("full", 100, 1)
		count(t, s, h)
		time.Sleep(journalEvery)
		synctest.Wait()

		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip(err)
		}
		s.journal.file.File = full // the loop sleeps
		block := filepath.Join(path+".new", "x")
		if err := os.MkdirAll(block, 0o700); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			count(t, s, h)
			time.Sleep(journalEvery)
		}
		synctest.Wait()
		if got := s.Health(); !got.OK || !strings.Contains(got.Warning, "counts are not kept on disk") {
			t.Errorf("while nothing can be written: %+v", got)
		}
		if n := strings.Count(log.String(), "counts not kept on disk"); n != 1 {
			t.Errorf("told %d times: %s", n, log.String())
		}
		if err := os.RemoveAll(path + ".new"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(journalRetry)
		synctest.Wait()
		if got := s.Health(); got.Warning != "" || !strings.Contains(log.String(), "counts kept on disk again") {
			t.Errorf("when it can again: %+v\n%s", got, log.String())
		}
		after := keeping(t, killed(t, path), nil)
		defer after.Close()
		wantCounts(t, "all that was counted meanwhile", counts(t, after, h), 21)
	})
}

func TestFolderThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "later")
		path := filepath.Join(folder, "counts")
		s := keeping(t, path, nil)
		h := daily("folder", 100, 1)
		count(t, s, h)
		if got := s.Health(); !got.OK || !strings.Contains(got.Warning, "no such file") {
			t.Errorf("no folder: %+v", got)
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(journalRetry + journalEvery)
		wantCounts(t, "once it is there", counts(t, keeping(t, killed(t, path), nil), h), 1)
		if got := s.Health(); got.Warning != "" {
			t.Errorf("once it is there: %+v", got)
		}
	})
}

func TestOneProcessKeepsItsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		h := daily("claimed", 100, 1)
		first := keeping(t, path, nil)
		count(t, first, h)
		var log lines
		second := keeping(t, path, &log)
		wantCounts(t, "the second's own", counts(t, second, h), 0)
		for range 5 {
			count(t, second, h)
		}
		if got := second.Health(); !got.OK || !strings.Contains(got.Warning, "another process") || !strings.Contains(log.String(), "another process") {
			t.Errorf("the second: %+v", got)
		}
		time.Sleep(time.Minute)
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		wantCounts(t, "the first's", counts(t, keeping(t, path, nil), h), 1)
	})
}

// TestClockSetBack restarts with a clock that was an hour ahead.
func TestClockSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counts")
	now := start
	clock := clock{func() int64 { return now.UnixMicro() }}
	reopen := func() *embedded {
		e := newEmbedded(Options{}, clock)
		e.journal = openJournal(e, path, logTo(io.Discard))
		e.start()
		return e
	}
	gcra := bucketGCRA("ahead", 60, time.Hour, 30, 30)
	slide := perMinute("ahead", 30, 30)
	fixed := daily("ahead", 30, 30)
	s := reopen()
	count(t, s, gcra, slide, fixed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now = start.Add(-time.Hour)
	s = reopen()
	defer s.Close()
	wantCounts(t, "the bucket is as full as it was, the window of an hour later is not of now, the day is", counts(t, s, gcra, slide, fixed), 30, 0, 30)
	now = now.Add(10 * time.Minute)
	wantCounts(t, "ten minutes later", counts(t, s, gcra), 20)
}

func TestCountsGoOnWhileTheFileIsWrittenAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counts")
	e := newEmbedded(Options{}, newClock())
	e.journal = openJournal(e, path, logTo(io.Discard))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				hits := each(fmt.Sprint("busy", i%1000), 100, 1)
				if _, err := e.Count(t.Context(), hits[w:w+1]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		e.journal.flush()
		if err := e.journal.rewrite(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	e.start()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	s := keeping(t, path, nil)
	for i := range 1000 {
		for _, got := range counts(t, s, each(fmt.Sprint("busy", i), 100, 0)...) {
			if got != 20 {
				t.Fatalf("key %d has counted %d, want 20", i, got)
			}
		}
	}
}

// TestLongLogsAreKept has logs of many entries, more of them than a frame takes.
func TestLongLogsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "counts")
		s := keeping(t, path, nil)
		defer s.Close()
		hits := make([]Hit, 100)
		for i := range hits {
			hits[i] = Hit{Key: fmt.Sprint(i), Algorithm: SlidingWindow, Limit: 5000, Window: time.Hour, Hits: 1}
		}
		for range 2000 {
			count(t, s, hits...)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(journalEvery)
		for range 2 {
			after := keeping(t, killed(t, path), nil)
			defer after.Close()
			for i, n := range counts(t, after, hits...) {
				if n != 2000 {
					t.Fatalf("%d hits of key %d, want 2000", n, i)
				}
			}
			time.Sleep(30 * time.Minute)
		}
		time.Sleep(time.Minute)
		after := keeping(t, killed(t, path), nil)
		defer after.Close()
		wantCounts(t, "an hour later", counts(t, after, hits[0]), 0)
	})
}

// TestSlidingWindowsOfFormerVersionsAreLeftOut reads what was written before there were logs.
func TestSlidingWindowsOfFormerVersionsAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f journalFrame
		now := time.Now().UnixMicro()
		f.begin(now)
		former := []byte{2, 6} // sliding, length of the key
		former = append(former, "former"...)
		former = binary.AppendVarint(former, now+time.Hour.Microseconds())
		former = append(binary.AppendUvarint(former, 10), "28571426a1"...)
		f.b = append(f.b, former...)
		f.b = append(f.b, "\x02\x05empty\x00"...)
		h := daily("window", 10, 4)
		b, _ := h.take(bucket{}, now)
		f.add(bucketKey{key: "window"}, &b)
		path := filepath.Join(t.TempDir(), "counts")
		if err := os.WriteFile(path, append([]byte(journalHead), f.seal()...), 0o600); err != nil {
			t.Fatal(err)
		}
		var log lines
		s := keeping(t, path, &log)
		defer s.Close()
		wantCounts(t, "read", counts(t, s, perMinute("former", 10, 1), h), 0, 4)
		if log.String() != "" {
			t.Errorf("it tells: %s", log.String())
		}
	})
}

// FuzzReadJournal reads files that anyone may have written; those that can be read say the same when written again.
func FuzzReadJournal(f *testing.F) {
	var fr journalFrame
	fr.begin(start.UnixMicro())
	for _, h := range each("seed", 10, 3) {
		b, _ := h.take(bucket{}, start.UnixMicro())
		fr.add(bucketKey{h.Key, h.Algorithm}, &b)
	}
	fr.add(bucketKey{"gone", GCRA}, &bucket{})
	f.Add(fr.seal()[frameHead:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		sealed := journalFrame{b: append(make([]byte, frameHead), content...)}
		files := [][]byte{content, append([]byte(journalHead), content...), append([]byte(journalHead), sealed.seal()...)}
		for _, file := range files {
			type record struct {
				k bucketKey
				b bucket
			}
			var got []record
			at, err := readJournal(bytes.NewReader(file), func(k bucketKey, b bucket) { got = append(got, record{k, b}) })
			var again journalFrame
			again.begin(at)
			for _, r := range got {
				again.add(r.k, &r.b)
				h := Hit{Key: r.k.key, Algorithm: r.k.algorithm, Limit: 10, Burst: 10, Window: time.Minute, Hits: 1}
				if _, o := h.take(r.b, start.UnixMicro()); o.Count < 0 || o.Remaining < 0 || o.Reset < 0 || o.RetryAfter < 0 {
					t.Errorf("%+v gives %+v", r, o)
				}
			}
			if err != nil {
				continue
			}
			i := 0
			_, err = readJournal(bytes.NewReader(append([]byte(journalHead), again.seal()...)), func(k bucketKey, b bucket) {
				if d := cmp.Diff(got[i], record{k, b}, cmp.AllowUnexported(record{}, bucketKey{}, bucket{}, slidingLog{}, entry{})); d != "" {
					t.Errorf("written again it differs (-first +again):\n%s", d)
				}
				i++
			})
			if err != nil || i != len(got) {
				t.Errorf("%d of %d records, %v", i, len(got), err)
			}
		}
	})
}

func TestPipeInThePlaceOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counts")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := keeping(t, path, nil) // doesn't wait for somebody who writes
	count(t, s, each("kept", 10, 3)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, "kept in a file", counts(t, keeping(t, path, nil), each("kept", 10, 3)...), 3, 3, 3, 3)
}
