package control

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/legation/legation/store"
)

// words is a board that holds what other processes said.
type words struct {
	store.Board
	all map[string]store.Entry
}

func (w *words) Entries() iter.Seq[store.Entry] {
	return func(yield func(store.Entry) bool) {
		for _, e := range w.all {
			if !yield(e) {
				return
			}
		}
	}
}

// say has a process tell how many Envoys it has, in two groups.
func (w *words) say(t *testing.T, name string, now time.Time, envoys int) {
	t.Helper()
	value, err := json.Marshal(map[string]tally{"edge": {Connected: envoys / 2}, "side": {Connected: envoys - envoys/2}})
	must(t, err)
	w.all[name] = store.Entry{Name: mustered + name, Value: value, Written: now}
}

func newShare() (*share, *words, time.Time) {
	w, now := &words{all: map[string]store.Entry{}}, time.Unix(1_000_000, 0)
	return &share{board: w, name: "own", away: map[string][]time.Time{}}, w, now
}

// One of two processes comes back: the other one sends away half of what it has, and rests.
func TestEnvoysAreShared(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		own, back int // of each so many that are sent away, one comes back
		most      time.Duration
	}{
		{"few", 6, 2, 15 * time.Second}, {"all leave", 1000, 0, 15 * time.Second}, {"half come back", 200, 2, 20 * time.Second}, {"many", 3000, 3, 45 * time.Second},
	} {
		s, w, begin := newShare()
		s.surplus(begin, row.own)
		own, other, sent := row.own, 0, 0
		took := time.Duration(0)
		for at := time.Duration(0); at < 2*time.Minute; at += sendEvery {
			now := begin.Add(at)
			if at%tellEvery == 0 {
				w.say(t, "own", now, own) // its own word is none of another
				w.say(t, "other", now, other)
			}
			n, _ := s.surplus(now, own)
			if n == 0 {
				continue
			}
			took = at
			s.sent = now
			for range n {
				if sent++; row.back == 0 || sent%row.back > 0 {
					own, other = own-1, other+1
				}
			}
		}
		if fair := row.own / 2; own-fair > max(1, fair/10) || fair-own > max(1, fair/10) {
			t.Errorf("%s: %d and %d in the end", row.name, own, other)
		}
		if took < calm || took > row.most {
			t.Errorf("%s: it was over after %s, want from %s to %s", row.name, took, calm, row.most)
		}
	}
}

// Nobody is sent to a process that may be gone, nor away from one to which Envoys still come.
func TestEnvoysStay(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		act  func(s *share, w *words, begin time.Time) (now time.Time, own int)
	}{
		{"alone", func(_ *share, _ *words, begin time.Time) (time.Time, int) { return begin.Add(time.Hour), 100 }},
		{"fair", func(_ *share, w *words, begin time.Time) (time.Time, int) {
			w.say(t, "other", begin, 91)
			return begin.Add(calm), 100
		}},
		{"one more of few", func(_ *share, w *words, begin time.Time) (time.Time, int) {
			w.say(t, "other", begin, 2)
			return begin.Add(calm), 4
		}},
		{"the other has ended", func(s *share, w *words, begin time.Time) (time.Time, int) {
			w.say(t, "other", begin, 0)
			s.surplus(begin, 100)
			return begin.Add(alive), 100
		}},
		{"they have just come", func(s *share, w *words, begin time.Time) (time.Time, int) {
			now := begin.Add(calm)
			s.surplus(now.Add(-time.Second), 50)
			w.say(t, "other", now, 0)
			return now, 100
		}},
		{"a word below zero", func(_ *share, w *words, begin time.Time) (time.Time, int) {
			w.say(t, "other", begin.Add(calm), -200)
			w.say(t, "third", begin.Add(calm), 100)
			w.say(t, "fourth", begin.Add(calm), 100)
			w.say(t, "fifth", begin.Add(calm), 100)
			return begin.Add(calm), 80
		}},
		{"a word that is none", func(_ *share, w *words, begin time.Time) (time.Time, int) {
			w.all["other"] = store.Entry{Name: mustered + "other", Value: []byte("[")}
			return begin.Add(calm), 100
		}},
	} {
		s, w, begin := newShare()
		s.since = begin
		s.most = 100
		now, own := row.act(s, w, begin)
		if n, fair := s.surplus(now, own); n != 0 {
			t.Errorf("%s: %d are sent away for a share of %d", row.name, n, fair)
		}
	}
}

// An Envoy that always comes back is left in peace after some times.
func TestEnvoyIsNotSentAwayForEver(t *testing.T) {
	t.Parallel()
	s, _, now := newShare()
	sent := 0
	for at := time.Duration(0); at < sendFor; at += time.Second {
		if s.may(now.Add(at), "edge\x00a") {
			sent++
		}
	}
	if sent != sendAgain {
		t.Errorf("sent away %d times within %s, want %d", sent, sendFor, sendAgain)
	}
	if !s.may(now.Add(sendFor), "edge\x00b") || !s.may(now.Add(sendFor), "edge\x00a") {
		t.Error("another one, or the same after a while, may not be sent away")
	}
	s.forget(now.Add(3 * sendFor))
	if len(s.away) > 0 {
		t.Errorf("not forgotten: %v", fmt.Sprint(s.away))
	}
}

// Envoys of a group that is not served are nobody's surplus: what others tell does not count them either.
func TestEnvoysWithoutPolicyAreNoSurplus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		var all []*plane
		for _, name := range []string{"a", "b"} {
			p := judging(t, Options{Parked: board, Replica: name})
			p.push(whole(1))
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); _ = p.level(ctx) }()
			t.Cleanup(func() { cancel(); <-ended })
			p.start(4)
			for i := range 8 {
				p.envoyOf("stray", fmt.Sprintf("stray-%d", i))
			}
			all = append(all, p)
		}
		pass(time.Minute)
		for _, p := range all {
			if n := len(p.o.XDS.Status()); n != 12 {
				t.Errorf("%d Envoys are left at one of two processes that have 12 each", n)
			}
		}
	})
}
