package ratelimit

import (
	"hash/maphash"
	"math"
	"math/bits"
)

// sketch keeps the keys that occur most, in bounded room (the space-saving algorithm): a key that is new takes the place
// of the one that occurred least, with its count. So a count may be too high, by no more than the count of the place
// then; keys that make more than 1/size of all are in it for sure.
type sketch struct {
	size   int
	index  map[string]int
	keys   []string
	counts []int64
	over   []int64 // how much of the count may be another key's
}

func newSketch(size int) sketch { return sketch{size: size, index: map[string]int{}} }

// add counts a key, and gives its place; fresh when another key had it, or none.
func (k *sketch) add(key string, n int64) (place int, fresh bool) {
	place, ok := k.index[key]
	switch {
	case ok:
	case len(k.keys) < k.size:
		place = len(k.keys)
		k.keys, k.counts, k.over = append(k.keys, key), append(k.counts, 0), append(k.over, 0)
		k.index[key] = place
	default:
		for i, c := range k.counts {
			if c < k.counts[place] {
				place = i
			}
		}
		delete(k.index, k.keys[place])
		k.keys[place], k.over[place] = key, k.counts[place]
		k.index[key] = place
	}
	k.counts[place] += n
	return place, !ok
}

// distinct tells how many different keys there were, within some 3 % (HyperLogLog).
type distinct struct {
	seed maphash.Seed
	max  [1 << distinctBits]uint8
}

const distinctBits = 10

func newDistinct() *distinct { return &distinct{seed: maphash.MakeSeed()} }

func (d *distinct) add(key string) {
	h := maphash.String(d.seed, key)
	place := h >> (64 - distinctBits)
	rank := uint8(bits.LeadingZeros64(h<<distinctBits|1<<(distinctBits-1)) + 1)
	d.max[place] = max(d.max[place], rank)
}

func (d *distinct) count() int64 {
	m := float64(len(d.max))
	sum, empty := 0.0, 0.0
	for _, r := range d.max {
		sum += math.Ldexp(1, -int(r))
		if r == 0 {
			empty++
		}
	}
	n := 0.7213 / (1 + 1.079/m) * m * m / sum
	if n <= 2.5*m && empty > 0 {
		n = m * math.Log(m/empty)
	}
	return int64(math.Round(n))
}

// levels tells how many windows reached which count, as far as 1/8 of it tells counts apart. A window is counted at each
// level that its count passes, so nothing need be kept for each.
type levels [416]int64

// level of a count: below 16 the count, above 8 levels to each doubling.
func level(count int64) int {
	if count < 16 {
		return int(max(count, 0))
	}
	shift := bits.Len64(uint64(count)) - 4
	return min(shift*8+int(count>>shift), len(levels{})-1)
}

// least is the least count of a level.
func least(level int) int64 {
	if level < 16 {
		return int64(level)
	}
	shift := level/8 - 1
	return int64(level-shift*8) << shift
}

// pass tells that a window's count went from one to another.
func (l *levels) pass(from, to int64) {
	for i := level(from) + 1; i <= level(to); i++ {
		l[i]++
	}
}

// fits is the least limit that all windows but one in n would have kept within; 0 when there were none.
func (l *levels) fits(n int64) int64 {
	if l[1] == 0 {
		return 0
	}
	for i := 1; i < len(l); i++ {
		if l[i]*n <= l[1] {
			return least(i) - 1
		}
	}
	return math.MaxInt64
}
