package load

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

var (
	marshal   = proto.Marshal
	unmarshal = proto.Unmarshal
)

func TestHistogram(t *testing.T) {
	var a, b Histogram
	for i := range 1000 {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.Add(time.Duration(i+1) * time.Microsecond)
	}
	a.Merge(&b)
	for q, want := range map[float64]time.Duration{0: time.Microsecond, .5: 500 * time.Microsecond, .99: 990 * time.Microsecond, 1: time.Millisecond} {
		if got := a.Quantile(q); got < want*99/100 || got > want*101/100 {
			t.Errorf("quantile %g: got %s, want about %s", q, got, want)
		}
	}
	if got := a.Over(900 * time.Microsecond); got < 95 || got > 105 || a.Count() != 1000 {
		t.Errorf("%d of %d over 900 µs", got, a.Count())
	}
	if got := (&Histogram{}).Quantile(.5); got != 0 {
		t.Errorf("empty: got %s", got)
	}
}

// Each bucket begins where the one before ends, whatever the size.
func TestBucketsMeet(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 127, 128, 255, 256, 257, 511, 512, 1023, time.Millisecond, time.Second, time.Hour} {
		i := bucket(d)
		if low, high := value(i), value(i+1); d < low || d >= high || high-low > max(1, d/100) {
			t.Errorf("%d ns is put between %d and %d", d, low, high)
		}
	}
	for _, d := range []time.Duration{-1, 1 << 62} {
		if i := bucket(d); i < 0 || i >= len(Histogram{}.buckets) {
			t.Errorf("%d has no bucket", d)
		}
	}
}
