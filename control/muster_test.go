package control

import (
	"encoding/json"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/legation/legation/store"
)

// readings counts how often a board was read whole.
type readings struct {
	store.Board
	n int
}

func (r *readings) Entries() iter.Seq[store.Entry] {
	r.n++
	return r.Board.Entries()
}

// What a process tells of hundreds of groups is read once, and anew when it has changed or may be over.
func TestOthersAreReadOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		board := &readings{Board: boardOf(t)}
		say := func(connected int) {
			t.Helper()
			told := map[string]tally{}
			for i := range 500 {
				told[fmt.Sprint(i)] = tally{Connected: connected, Refused: 1, Digest: "x"}
			}
			value, err := json.Marshal(told)
			must(t, err)
			must(t, board.Put(t.Context(), store.Entry{Name: mustered + "other", Value: value, Expires: time.Now().Add(forgotten)}))
		}
		m := muster{board: board, name: "own"}
		check := func(want int) {
			t.Helper()
			before := board.n
			for i := range 500 {
				if got := m.sum(fmt.Sprint(i), tally{Digest: "x"}); got.Connected != want || got.Refused != min(want, 1) {
					t.Fatalf("got %+v, want %d Envoys", got, want)
				}
			}
			if n := board.n - before; n > 1 {
				t.Errorf("the board was read %d times", n)
			}
		}
		check(0)
		say(5)
		check(5)
		say(6)
		check(6)
		must(t, board.Put(t.Context(), store.Entry{Name: mustered + "odd", Value: []byte("[")}))
		check(6)
		time.Sleep(forgotten + time.Second)
		check(0)
	})
}
