package store

import (
	"strconv"
	"time"
)

// span is what windows or periods have in common that end at the same times.
type span struct {
	window time.Duration // 0 for a period
	period Period
	zone   string // by its name: one that is loaded anew has another address
}

func (h *Hit) span() span {
	if h.Algorithm != Calendar {
		return span{window: h.Window}
	}
	zone := time.UTC
	if h.Zone != nil {
		zone = h.Zone
	}
	return span{period: h.Period, zone: zone.String()}
}

// windowed tells whether the bucket is a counter for each window or period.
func (h *Hit) windowed() bool { return h.Algorithm == FixedWindow || h.Algorithm == Calendar }

// window is the window or period of a span that is under way.
type window struct {
	span
	end    int64  // µs since 1970 by Redis' clock
	ttl    int64  // ms from now for which its keys are kept
	suffix []byte // of its keys, after the tag
}

// linger is for how long, in ms, the key of a window outlives it: processes differ a little about when it ends, and what
// they gave to Redis by then may take its time.
const linger = 2000

// set makes w the window of h at the time now, in µs by Redis' clock. Its keys are named by its length and its number since
// 1970, or by its period and when that ends.
func (w *window) set(h *Hit, now int64) {
	w.span = h.span()
	w.end = h.windowEnd(now)
	w.ttl = (w.end-now)/1000 + linger
	b := append(w.suffix[:0], ':')
	if h.Algorithm == Calendar {
		b = append(b, periodNames[h.Period]...)
		w.suffix = time.UnixMicro(w.end).UTC().AppendFormat(b, "-until-20060102T1504")
		return
	}
	n, unit := shortest(h.Window)
	b = strconv.AppendInt(b, n, 10)
	b = append(b, unit...)
	b = append(b, '/')
	w.suffix = strconv.AppendInt(b, w.end/h.Window.Microseconds()-1, 10)
}

var periodNames = [...]string{Day: "day", Week: "week", Month: "month", Year: "year"}

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

// windows are the windows that a batch counts in: most of its hits are of a few lengths.
type windows struct {
	now int64 // µs by Redis' clock
	all []window
	n   int
}

func (w *windows) begin(now int64) { w.now, w.n = now, 0 }

// of gives the window of h. It is good until the next call.
func (w *windows) of(h *Hit) *window {
	want := h.span()
	for i := range w.all[:w.n] {
		if w.all[i].span == want {
			return &w.all[i]
		}
	}
	const most = 32
	if w.n == most {
		w.n--
	}
	if w.n == len(w.all) {
		w.all = append(w.all, window{})
	}
	w.n++
	w.all[w.n-1].set(h, w.now)
	return &w.all[w.n-1]
}
