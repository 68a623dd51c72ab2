package policy

import (
	"maps"
	"slices"
	"strings"
)

// Following is what was made of each item of a list, as the list changes from one model to the next: what was made of an
// item that stays, by its pointer, stays too. The zero value has followed no list yet. A copy is not changed by what
// becomes of the original.
type Following[K comparable, V any] struct {
	items []K
	made  []V
}

// Next goes on to the next list. It returns what is made of all of its items, in their order, which nobody may change; and
// of that what has gone since the list before and what has come, where one that has moved past another counts as both.
func (f *Following[K, V]) Next(items []K, of func(K) V) (all, gone, come []V) {
	if slices.Equal(f.items, items) {
		return f.made, nil, nil
	}
	head, old, now := 0, f.items, items
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		head, old, now = head+1, old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	place := make(map[K]int, len(old)) // of those between
	for i, item := range old {
		place[item] = head + i
	}
	all = append(make([]V, 0, len(items)), f.made[:head]...)
	last := 0
	for _, item := range now {
		i, stays := place[item]
		if !stays {
			one := of(item)
			all, come = append(all, one), append(come, one)
			continue
		}
		delete(place, item)
		if i < last {
			gone, come = append(gone, f.made[i]), append(come, f.made[i])
		}
		all, last = append(all, f.made[i]), max(last, i)
	}
	tail := head + len(old)
	for i := head; i < tail; i++ { // in their order
		if _, left := place[f.items[i]]; left {
			gone = append(gone, f.made[i])
		}
	}
	f.items, f.made = items, append(all, f.made[tail:]...)
	return f.made, gone, come
}

// Patch is a list that is sorted by name with some changes, by name: each is what the list has of that name from now on, one
// or none.
func Patch[V any](sorted []V, name func(V) string, changes map[string][]V) []V {
	all := make([]V, 0, len(sorted)+len(changes))
	for _, changed := range slices.Sorted(maps.Keys(changes)) {
		i, found := slices.BinarySearchFunc(sorted, changed, func(v V, changed string) int { return strings.Compare(name(v), changed) })
		all, sorted = append(all, sorted[:i]...), sorted[i:]
		if found {
			sorted = sorted[1:]
		}
		all = append(all, changes[changed]...)
	}
	return append(all, sorted...)
}

// BoundRoutes is the routes of all gateways, one gateway after the other.
func (m *Model) BoundRoutes() []*BoundRoute {
	if len(m.Gateways) == 1 {
		return m.Bound[m.Gateways[0]]
	}
	var all []*BoundRoute
	for _, g := range m.Gateways {
		all = append(all, m.Bound[g]...)
	}
	return all
}
