package store

import (
	"strconv"
	"time"
)

// frame is a window of the limits that share its length, by Redis' clock.
type frame struct {
	algorithm Algorithm
	period    Period
	window    time.Duration
	zone      *time.Location

	end    int64  // µs since 1970
	ttl    int64  // ms from now for which its keys are kept
	suffix []byte // of its keys, after the tag
}

// linger is for how long, in ms, the key of a window outlives it: processes differ a little about when it ends, and what
// they gave to Redis by then may take its time.
const linger = 2000

// of tells whether h counts in windows like f.
func (f *frame) of(h *Hit) bool {
	return f.algorithm == h.Algorithm && f.window == h.Window && f.period == h.Period && f.zone == h.Zone
}

// set makes f the window of h at the time now, in µs by Redis' clock.
func (f *frame) set(h *Hit, now int64) {
	f.algorithm, f.window, f.period, f.zone = h.Algorithm, h.Window, h.Period, h.Zone
	f.end = h.windowEnd(now)
	f.ttl = (f.end-now)/1000 + linger
	b := append(f.suffix[:0], ':')
	n, unit := shortest(h.Window)
	b = strconv.AppendInt(b, n, 10)
	b = append(b, unit...)
	b = append(b, '/')
	f.suffix = strconv.AppendInt(b, f.end/h.Window.Microseconds()-1, 10)
}

// shortest is d in the largest unit that it is a whole number of.
func shortest(d time.Duration) (int64, string) {
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d%u.of == 0 {
			return int64(d / u.of), u.name
		}
	}
	return d.Milliseconds(), "ms"
}

// frames are the windows that a batch counts in: most of its hits are of a few lengths.
type frames struct {
	now int64 // µs by Redis' clock
	all []frame
	n   int
}

func (f *frames) begin(now int64) { f.now, f.n = now, 0 }

// of gives the window of h. It is good until the next call.
func (f *frames) of(h *Hit) *frame {
	for i := range f.all[:f.n] {
		if f.all[i].of(h) {
			return &f.all[i]
		}
	}
	const most = 32
	if f.n == most {
		f.n--
	}
	if f.n == len(f.all) {
		f.all = append(f.all, frame{})
	}
	f.n++
	f.all[f.n-1].set(h, f.now)
	return &f.all[f.n-1]
}
