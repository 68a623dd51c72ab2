package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// copied gives what a kill would leave of a folder's file.
func copied(t *testing.T, path string) Options {
	t.Helper()
	b, err := os.ReadFile(path + ".shared")
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "counts")
	if err := os.WriteFile(at+".shared", b, 0o600); err != nil {
		t.Fatal(err)
	}
	return Options{Path: at}
}

// TestAPutOutlastsAKill: whatever Put has returned from is on disk, without a word to the process.
func TestAPutOutlastsAKill(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "counts")}
	_, b := openKnown(t, o)
	for i := range 50 {
		put(t, b, fmt.Sprint(i), "kept")
	}
	if err := b.Put(t.Context(), Entry{Name: "0", Expires: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	_, c := openKnown(t, copied(t, o.Path))
	says(t, "49", "kept", c)
	says(t, "0", "-", c)
	if info, err := os.Stat(o.Path + ".shared"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want mode 0600", info.Mode(), err)
	}
}

func TestSessionsOutlastARestart(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "counts")}
	s, _ := openKnown(t, o)
	r := s.Records("session")
	for i := range 10 {
		if err := r.Put(t.Context(), fmt.Sprint(i), []byte("kept"), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Delete(t.Context(), "0"); err != nil {
		t.Fatal(err)
	}
	until(t, patience, "a kill to lose nothing", func() bool { // with no orderly end
		k, _ := openKnown(t, copied(t, o.Path))
		defer k.Close()
		got, err := k.Records("session").Get(t.Context(), "9")
		return err == nil && string(got) == "kept"
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = openKnown(t, o)
	for i := range 10 {
		if got, err := s.Records("session").Get(t.Context(), fmt.Sprint(i)); err != nil || (got == nil) != (i == 0) {
			t.Errorf("%d: got %q, %v", i, got, err)
		}
	}
}

// TestARevokedTokenStaysRevoked though Redis is away when a process starts: by its copy. Without one nothing is known.
func TestARevokedTokenStaysRevoked(t *testing.T) {
	r := startRedis(t)
	o := Options{URL: r.url(), Path: filepath.Join(t.TempDir(), "counts")}
	s, b := openKnown(t, o)
	put(t, b, "revoked", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r.kill()
	s = openTogether(t, o)
	b = s.Board("keys")
	if !b.Known() || s.Health().OK {
		t.Errorf("known %v, health %+v", b.Known(), s.Health())
	}
	says(t, "revoked", "1", b)
	if fresh := s.Board("new"); fresh.Known() {
		t.Error("a board that was never read is known")
	}
	other := openTogether(t, Options{URL: r.url()}).Board("keys")
	if other.Known() {
		t.Error("known without Redis and without a copy")
	}
	r.start() // empty
	until(t, patience, "the other process to know", other.Known)
	says(t, "revoked", "1", other)
}

func TestDamagedCopies(t *testing.T) {
	good := Options{Path: filepath.Join(t.TempDir(), "counts")}
	s, b := openKnown(t, good)
	put(t, b, "first", "1")
	s.Close()
	whole, err := os.ReadFile(good.Path + ".shared")
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-1] ^= 1
	for name, test := range map[string]struct {
		content []byte
		bad     bool
	}{
		"torn":       {whole[:len(whole)-1], false},
		"flipped":    {flipped, true},
		"empty":      {nil, true},
		"other":      {[]byte("something else entirely"), true},
		"huge frame": {append([]byte(ledgerHead), 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5), true},
		"odd note":   {append([]byte(ledgerHead), sealed([]byte{3, 'e', 200, 1})...), true},
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			o := Options{Path: filepath.Join(t.TempDir(), "counts"), Log: logTo(&log)}
			if err := os.WriteFile(o.Path+".shared", test.content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, b := openKnown(t, o)
			_, err := os.Stat(o.Path + ".shared.bad")
			if bad := err == nil; bad != test.bad || bad != (s.Health().Warning != "") || bad != bytes.Contains([]byte(log.String()), []byte("not all read")) {
				t.Errorf("put aside %v, health %+v, log %s", bad, s.Health(), log.String())
			}
			put(t, b, "next", "1")
			s.Close()
			_, b = openKnown(t, o)
			says(t, "next", "1", b)
		})
	}
}

// TestADamagedCopyIsNotKnown: with Redis away, what a damaged copy has counts, but isn't all.
func TestADamagedCopyIsNotKnown(t *testing.T) {
	r := startRedis(t)
	o := Options{URL: r.url(), Path: filepath.Join(t.TempDir(), "counts")}
	s, b := openKnown(t, o)
	put(t, b, "revoked", "1")
	s.Close()
	r.kill()
	file, err := os.OpenFile(o.Path+".shared", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(file, "what can't be a frame of ours")
	file.Close()
	b = openTogether(t, o).Board("keys")
	if b.Known() {
		t.Error("known though its copy is damaged")
	}
	says(t, "revoked", "1", b)
}

func TestNoDiskNoPut(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "none", "counts")}
	s := openTogether(t, o)
	b := s.Board("keys")
	if err := b.Put(t.Context(), Entry{Name: "x"}); !isUnavailable(err) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if s.Health().Warning == "" {
		t.Error("no warning")
	}
}

func TestOneProcessKeepsItsBoards(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "counts")}
	first, a := openKnown(t, o)
	second, b := openKnown(t, o)
	put(t, a, "x", "1")
	if err := b.Put(t.Context(), Entry{Name: "y"}); !isUnavailable(err) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	first.Close()
	until(t, patience, "the second to take over", func() bool { return second.Health().Warning == "" })
	says(t, "x", "1", b)
	put(t, b, "y", "2")
}

// TestTheFileIsWrittenAnew once it has grown, with all that is there.
func TestTheFileIsWrittenAnew(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "counts")}
	s, b := openKnown(t, o)
	r := s.Records("session")
	value := make([]byte, maxValue)
	put(t, b, "first", "1")
	for range 3 * journalSlack / maxValue {
		if err := r.Put(t.Context(), "same", value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	put(t, b, "last", "1")
	until(t, patience, "a small file", func() bool {
		info, err := os.Stat(o.Path + ".shared")
		return err == nil && info.Size() < journalSlack
	})
	s.Close()
	s, b = openKnown(t, o)
	says(t, "first", "1", b)
	says(t, "last", "1", b)
	if got, err := s.Records("session").Get(t.Context(), "same"); len(got) != maxValue || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
