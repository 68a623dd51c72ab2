package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations, each within 0.8 % of its value, up to two hours. The zero value is empty.
type Histogram struct {
	n       uint64
	buckets [36*steps + steps]uint64
}

// steps is how many buckets each power of two has.
const steps = 128

// bucket is the place of d: the 8 highest bits of its nanoseconds, and how far they are shifted.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(0, bits.Len64(v)-8)
	return min(shift*steps+int(v>>shift), len(Histogram{}.buckets)-1)
}

// value is the least duration of a bucket.
func value(bucket int) time.Duration {
	shift := max(0, bucket/steps-1)
	return time.Duration(uint64(bucket-shift*steps) << shift)
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.n++
	h.buckets[bucket(d)]++
}

// Merge counts all that o counted.
func (h *Histogram) Merge(o *Histogram) {
	h.n += o.n
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

// Count is how many durations there are.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile is the duration that a share of q, from 0 to 1, does not exceed; 0 when nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank, seen := uint64(q*float64(h.n)), uint64(0)
	for i, n := range h.buckets {
		seen += n
		if n > 0 && seen > min(rank, h.n-1) {
			return value(i)
		}
	}
	return 0
}

// Over is how many durations were longer than d, to the histogram's exactness.
func (h *Histogram) Over(d time.Duration) uint64 {
	var n uint64
	for _, b := range h.buckets[bucket(d)+1:] {
		n += b
	}
	return n
}
