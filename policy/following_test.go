package policy_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/policy"
)

// However a list changes: each item is made once as long as it stays, all stand in order, and who takes away what has gone
// and puts in what has come has what there is.
func TestFollowingMakesOnlyWhatIsNew(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	var f policy.Following[*int, *[]int]
	var items []*int
	held := map[*[]int]bool{}
	for step := range 2000 {
		before := slices.Clone(items)
		items = changed(r, items)
		made := 0
		all, gone, come := f.Next(items, func(i *int) *[]int {
			if slices.Contains(before, i) {
				t.Errorf("step %d: %d was made again", step, *i)
			}
			made++
			return &[]int{*i}
		})
		var got, want []int
		for i := range all {
			got, want = append(got, (*all[i])[0]), append(want, *items[i])
		}
		if diff := cmp.Diff(want, got); diff != "" || len(all) != len(items) {
			t.Fatalf("step %d, of %d items (-want +got):\n%s", step, len(items), diff)
		}
		for _, one := range gone {
			if !held[one] {
				t.Errorf("step %d: %d has gone that was not there", step, *one)
			}
			delete(held, one)
		}
		for _, one := range come {
			if held[one] {
				t.Errorf("step %d: %d has come that was there", step, *one)
			}
			held[one] = true
		}
		if len(held) != len(all) || slices.ContainsFunc(all, func(one *[]int) bool { return !held[one] }) {
			t.Fatalf("step %d: %d are there by what has gone and come, want %d", step, len(held), len(all))
		}
		if fresh := len(items) - len(slices.DeleteFunc(slices.Clone(items), func(i *int) bool { return !slices.Contains(before, i) })); made != fresh {
			t.Errorf("step %d: %d were made, want %d", step, made, fresh)
		}
	}
}

// Two that stay and change their order are told: one of them has gone and come.
func TestFollowingTellsOfMoves(t *testing.T) {
	a, b, c := new(1), new(2), new(3)
	var f policy.Following[*int, int]
	of := func(i *int) int { return *i }
	f.Next([]*int{a, b, c}, of)
	all, gone, come := f.Next([]*int{b, a, c}, of)
	if !slices.Equal(all, []int{2, 1, 3}) || len(gone) != 1 || !slices.Equal(gone, come) {
		t.Errorf("got %v, gone %v, come %v", all, gone, come)
	}
}

// changed is the list with some more, fewer, or others in it, and now and then in another order.
func changed(r *rand.Rand, items []*int) []*int {
	next := slices.DeleteFunc(slices.Clone(items), func(*int) bool { return r.IntN(20) == 0 })
	for range r.IntN(3) {
		next = slices.Insert(next, r.IntN(len(next)+1), new(r.IntN(1000)))
	}
	if n := len(next); n > 1 && r.IntN(5) == 0 {
		i, j := r.IntN(n), r.IntN(n)
		next[i], next[j] = next[j], next[i]
	}
	return next
}
