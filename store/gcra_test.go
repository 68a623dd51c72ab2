package store

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestGCRAKeysOutliveTheirBuckets counts in one bucket by limits of all sizes: its key has to be there for as long as
// anything is counted, whatever limit it was made by, and isn't there for much longer.
func TestGCRAKeysOutliveTheirBuckets(t *testing.T) {
	r := startRedis(t)
	s, c := openReady(t, r.url()), r.client()
	const cell, lingers = 8400 * time.Millisecond, time.Second
	rnd := rand.New(rand.NewPCG(1, 4))
	renewed := called(t, r, "psetex")
	var latest time.Time // when the bucket was to be full again, before some were given back
	for range 2000 {
		h := bucketGCRA("cells", 1+rnd.Int64N(2000), time.Duration(1+rnd.Int64N(60))*time.Second, 1+rnd.Int64N(100), 1+rnd.Int64N(3))
		switch rnd.IntN(8) {
		case 0:
			h.Hits *= -20
		case 1:
			h.Beyond = true
		}
		asked := time.Now()
		o := count(t, s, h)[0]
		if o.Reset == 0 {
			latest = time.Time{}
			continue
		}
		if full := time.Now().Add(o.Reset); full.After(latest) {
			latest = full
		}
		left := c.PTTL(t.Context(), "legation:{cells}:gcra").Val()
		if left+time.Since(asked) < o.Reset+lingers/2 || left > time.Until(latest)+cell+lingers {
			t.Fatalf("%+v: the key is there for %s, the bucket is full again in %s", h, left, o.Reset)
		}
	}
	if n := called(t, r, "psetex") - renewed; n > 1000 {
		t.Errorf("the time to live was set %d times in 2,000 hits", n)
	}
}

// TestGCRAValuesThatCantBeRead are foreign ones: they count as nothing, and are replaced.
func TestGCRAValuesThatCantBeRead(t *testing.T) {
	r := startRedis(t)
	s, c := openReady(t, r.url()), r.client()
	h := bucketGCRA("foreign", 1, time.Hour, 10, 1)
	for _, value := range []string{"", "x", "1.5", "-7", "nan", "0x10"} {
		if err := c.Set(t.Context(), "legation:{foreign}:gcra", value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		for want := range int64(2) {
			if got := count(t, s, h)[0]; !got.Allowed || got.Count != want+1 {
				t.Errorf("%q: %+v, want %d counted", value, got, want+1)
			}
		}
	}
	everyKeyEnds(t, c)
}
