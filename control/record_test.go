package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/legation/legation/store"
)

// frail is a board that can't be written for a while.
type frail struct {
	store.Board
	gone atomic.Bool
}

func (f *frail) Put(ctx context.Context, e store.Entry) error {
	if f.gone.Load() {
		return errors.New("gone")
	}
	return f.Board.Put(ctx, e)
}

// Several processes have the same canaries, and end a stage together: when all of them have held it.
func TestReplicasStageTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := &frail{Board: boardOf(t)}
		var planes []*plane
		for i, name := range []string{"a", "b", "c"} {
			p := judging(t, Options{Parked: board, Replica: name})
			p.push(delivered(protected(1, 10), "delivery: {canary: 2}, "))
			for n := range 2 {
				p.envoyCalled(fmt.Sprintf("%s-%d", name, n))
			}
			planes = append(planes, p)
			pass(time.Duration(i) * time.Second)
		}
		pass(10 * time.Second)
		count := func(c *Compiled) (n int) {
			for _, p := range planes {
				n += p.count(c)
			}
			return n
		}
		second := planes[0].push(delivered(protected(2, 20), "delivery: {canary: 2}, "))
		pass(5 * time.Second) // the others are slower
		planes[1].push(delivered(protected(2, 20), "delivery: {canary: 2}, "))
		planes[2].push(delivered(protected(2, 20), "delivery: {canary: 2}, "))
		pass(10 * time.Second)
		var told []string
		for _, p := range planes {
			s := p.Outcome().Staged
			if len(s) != 1 || s[0].Of != 6 {
				t.Fatalf("got %+v", s)
			}
			text := ""
			for _, k := range s[0].Canaries {
				text += fmt.Sprintf("%s %t ", k.Node, !k.Since.IsZero())
			}
			told = append(told, text)
		}
		if told[0] != told[1] || told[1] != told[2] || strings.Count(told[0], "true") != 2 || count(second) != 2 {
			t.Errorf("got %q, %d have it, want the same two", told, count(second))
		}
		board.gone.Store(true)
		if pass(40 * time.Second); count(second) != 2 {
			t.Errorf("without the board: %d have it, want the others to wait", count(second))
		}
		board.gone.Store(false)
		if pass(10 * time.Second); count(second) != 6 {
			t.Errorf("%d have it, want all", count(second))
		}

		// What one canary refuses is parked by all.
		for _, p := range planes {
			p.push(delivered(protected(3, 30), "delivery: {canary: 6}, "))
		}
		pass(5 * time.Second)
		must(t, board.Put(t.Context(), store.Entry{Name: staged + "edge", Value: []byte("[")})) // nonsense is passed over
		one := planes[1].envoyCalled("b-1")
		one.set(func() { one.refuse = true })
		pass(5 * time.Second)
		fourth := planes[1].push(delivered(protected(4, 40), "delivery: {canary: 6}, "))
		planes[0].push(delivered(protected(4, 40), "delivery: {canary: 6}, "))
		planes[2].push(delivered(protected(4, 40), "delivery: {canary: 6}, "))
		pass(5 * time.Second)
		for i, p := range planes {
			if got := p.Outcome().Parked; len(got) != 1 || got[0].Revision != fourth.Model.Revision || !got[0].Canaries {
				t.Errorf("replica %d: got %+v", i, got)
			}
		}
	})
}

// slow is a board of which nothing is known for a while.
type slow struct {
	store.Board
	known atomic.Bool
}

func (s *slow) Known() bool { return s.known.Load() }

func (s *slow) Get(name string) (store.Entry, bool) {
	if !s.known.Load() {
		return store.Entry{}, false
	}
	return s.Board.Get(name)
}

// A start waits a moment for what other processes know.
func TestStartAwaitsTheBoard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := &slow{Board: boardOf(t)}
		c := newPlane(t, Options{Parked: board}, true)
		began := time.Now()
		time.AfterFunc(time.Second, func() { board.known.Store(true) })
		if c.awaitBoard(t.Context()); time.Since(began) < time.Second || time.Since(began) > 1100*time.Millisecond {
			t.Errorf("it waited %s", time.Since(began))
		}
		board.known.Store(false)
		began = time.Now()
		if c.awaitBoard(t.Context()); time.Since(began) != boardTime {
			t.Errorf("it waited %s, want %s", time.Since(began), boardTime)
		}
	})
}

// What a process has parked while the board was away others hear of later.
func TestParkedIsToldLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := &frail{Board: boardOf(t)}
		a, b := judging(t, Options{Parked: board, Replica: "a"}), judging(t, Options{Parked: board, Replica: "b"})
		both := func(port int) *Compiled {
			a.push(delivered(protected(port, port), "delivery: {canary: 2}, "))
			return b.push(delivered(protected(port, port), "delivery: {canary: 2}, "))
		}
		first := both(1)
		one := a.envoyCalled("at-a")
		b.envoyCalled("at-b")
		pass(10 * time.Second)
		board.gone.Store(true)
		refusing(true, one)
		second := both(2)
		pass(40 * time.Second)
		if len(a.Outcome().Parked) != 1 || len(b.Outcome().Parked) != 0 || b.count(second) != 1 || a.count(first) != 1 {
			t.Errorf("without the board: %+v and %+v", a.Outcome().Parked, b.Outcome().Parked)
		}
		board.gone.Store(false)
		pass(10 * time.Second)
		if got := b.Outcome().Parked; len(got) != 1 || len(got[0].Reasons) == 0 || got[0].Reasons[0].Node != "at-a" || b.count(first) != 1 {
			t.Errorf("with it: %+v", got)
		}
	})
}

// A companion that serves no Envoys itself answers for what others keep from some of them, as long as they do.
func TestCompanionAloneHeedsStages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := boardOf(t)
		xds := judging(t, Options{Parked: board, Replica: "a"})
		companion := newPlane(t, Options{Parked: board, Replica: "b", Retain: time.Minute}, false)
		both := func(port int) *Compiled {
			xds.push(delivered(protected(port, port), "delivery: {canary: 1, hold: 10m}, "))
			return companion.push(delivered(protected(port, port), "delivery: {canary: 1, hold: 10m}, "))
		}
		first := both(1)
		xds.start(2)
		second := both(2)
		if pass(9 * time.Minute); xds.count(first) != 1 || !companion.knows(first) || !companion.knows(second) {
			t.Errorf("during the hold the first policy is known: %t", companion.knows(first))
		}
		if pass(3 * time.Minute); xds.count(second) != 2 || companion.knows(first) || !companion.knows(second) {
			t.Errorf("after it the first policy is known: %t", companion.knows(first))
		}
	})
}
