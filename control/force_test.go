package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/legation/legation/store"
)

// failing is a board that can't be written for one group, and notes whether it was asked while mu was held.
type failing struct {
	store.Board
	p *plane

	mu    sync.Mutex // guards what follows
	group string     // empty: it is as any other
	held  bool
}

// set has it fail for a group of a plane, or for none, and tells whether mu was held so far.
func (b *failing) set(p *plane, group string) (held bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.p, b.group = p, group
	return b.held
}

func (b *failing) Put(ctx context.Context, e store.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.group == "" {
		return b.Board.Put(ctx, e)
	}
	if b.p.mu.TryLock() {
		b.p.mu.Unlock()
	} else {
		b.held = true
	}
	if strings.HasSuffix(e.Name, "/"+b.group) {
		return store.ErrUnavailable
	}
	return b.Board.Put(ctx, e)
}

// What force can't tell other processes of one group holds up no other group, and nobody waits for the board meanwhile.
func TestForceWithoutTheBoard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &failing{Board: boardOf(t)}
		p := judging(t, Options{Parked: b, Replica: "a"})
		two := func(port int) string {
			text := strings.ReplaceAll(protected(port, port), "{edge: {", "{near: {listeners: {http: {port: 10001, address: 127.0.0.1}}, delivery: {canary: 1}}, edge: {delivery: {canary: 1}, ")
			return strings.Replace(text, "hostnames:", "gateways: [near, edge]\n    hostnames:", 1)
		}
		first := p.push(two(1))
		for _, group := range []string{"edge", "near"} {
			for i := range 3 {
				p.envoyOf(group, fmt.Sprintf("%s-%d", group, i))
			}
		}
		pass(5 * time.Second)
		second := p.push(two(2))
		pass(2 * time.Second)
		if len(p.Outcome().Staged) != 2 {
			t.Fatalf("got %+v, want both groups staged", p.Outcome().Staged)
		}
		files, _, err := ReadDir(p.dir)
		must(t, err)
		b.set(p, "near")
		_, err = p.Push(t.Context(), files, Change{Parent: "head", Force: true})
		if held := b.set(p, ""); !errors.Is(err, store.ErrUnavailable) || held {
			t.Errorf("got %v, and mu was held: %t", err, held)
		}
		pass(2 * time.Second)
		for _, n := range p.o.XDS.Status() {
			if want := second.Model.Revision; n.Group == "edge" && n.Revision != want {
				t.Errorf("%s runs %s, want %s", n.ID, n.Revision, want)
			}
		}
		if s := p.Outcome().Staged; len(s) != 1 || s[0].Group != "near" || s[0].From != first.Model.Revision {
			t.Errorf("got %+v, want the other group as it was", s)
		}
	})
}
