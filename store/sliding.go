package store

import (
	"encoding/binary"
	"slices"
	"sort"
)

// A sliding window is counted by a log: when hits came, and how many there were by then. So in any window there are
// never more hits than Limit, and with a limit of up to 1,024 each leaves when it is as old as the window (W): who stays
// within the limit is never refused. With a larger limit hits share an entry when they came within the same W/1024 and are
// a 1,024th of the limit together, at most; all of these leave with the newest of them. So at any time the count has up to
// a 1,024th of the limit too many, which leave up to W/1024 too late. When a log has more entries than a limit needs whose
// hits come one by one, all hits of W/1024 share one, so that none takes more than [maxLog].
//
// Both stores do the same arithmetic, in whole numbers below 2^53, which Redis' doubles keep. Times are µs since 1970:
//
//	unit of times      unit = ceil(W / 2^24): 1 µs up to 16 s, 4 µs for a minute, 5.2 ms for a day
//	time of a hit      at = ceil(now / unit), modulo 2^32: later by less than a unit
//	it leaves at       at * unit + W
//	within a W/1024    those with the same floor(at / floor(W / unit / 1024))
//
// The value of a bucket is numbers of 4 bytes, the lowest first, and its key ends when its newest hit leaves:
//
//	before  how many hits were counted before the first entry
//	at      of the first entry
//	sum     how many hits were counted up to it, itself included
//	…       at and sum of the others, the oldest first
//
// All sums are modulo 2^32, so the last one less the one before the first entry is the count, and a value without its
// first entries is what is left when these have gone. "\0\0\0\0 \x10\0\0\0 \3\0\0\0" is 3 hits at 16. An empty bucket has
// no value.
//
// What is given back is taken from the newest entry first, then from those before it. A value whose newest entry is more
// than a window ahead of now counts as none, and so does what can't be read. One that is ahead by less is of a clock that
// was set back: hits are counted at its time, so that time stands still until the clock has caught up. Each length of a
// window has its own bucket in Redis; here a bucket of another length counts as none.
type slidingLog struct {
	window int64   // µs
	before uint32  // hits that were counted before those of the log
	older  []entry // all but the newest; what is written to it stays as it is, for who has it as it was before
	newest entry   // sum is before when the log is empty
	room   int     // entries that the memory of older has
}

// entry is the hits of a time.
type entry struct {
	at  uint32 // units since 1970, modulo 2^32
	sum uint32 // hits counted up to it, modulo 2^32
}

const (
	parts       = 1024             // of a window, and of a limit
	fullEntries = 2200             // of a log whose limit is above parts: as many as a limit and a window have, about
	maxEntries  = 3400             // those, and as many parts as 10 ms have, which are the most
	maxLog      = 4 + 8*maxEntries // bytes of a log's value
)

// unit is of times in a log, in µs.
func (l *slidingLog) unit() int64 { return (l.window + 1<<24 - 1) >> 24 }

// at is the time of a hit that comes now, not yet modulo 2^32.
func (l *slidingLog) at(now int64) int64 {
	unit := l.unit()
	return (now + unit - 1) / unit
}

// part is which 1,024th of a window a time is in.
func (l *slidingLog) part(at uint32) uint32 { return at / uint32(l.window/l.unit()/parts) }

// later tells how much later the time a is than b, below 0 when it is earlier.
func later(a, b uint32) int64 { return int64(int32(a - b)) }

// leaves is when the hits of a time leave, in µs.
func (l *slidingLog) leaves(at uint32, now int64) int64 {
	t := l.at(now)
	return (t+later(at, uint32(t)))*l.unit() + l.window
}

// log gives the bucket as it is at now.
func (h *Hit) log(b bucket, now int64) slidingLog {
	none := slidingLog{window: h.Window.Microseconds()}
	if b.log == nil || b.log.window != none.window || b.end <= now {
		return none
	}
	l := *b.log
	unit := l.unit()
	if later(l.newest.at, uint32(l.at(now))) > (l.window+unit-1)/unit {
		return none
	}
	horizon := uint32((now - l.window) / unit)
	if later(l.newest.at, horizon) <= 0 {
		return none
	}
	if gone := first(l.older, func(e entry) bool { return later(e.at, horizon) > 0 }); gone > 0 {
		l.before, l.older = l.older[gone-1].sum, l.older[gone:]
	}
	return l
}

// first is the place of the first entry that is as wanted, where those before it are not, and all after it are.
func first(entries []entry, wanted func(entry) bool) int {
	if len(entries) == 0 || wanted(entries[0]) {
		return 0
	}
	return sort.Search(len(entries), func(i int) bool { return wanted(entries[i]) })
}

// count is the number of hits in the window.
func (l *slidingLog) count() int64 { return int64(l.newest.sum - l.before) }

// ends is when the last of the hits leaves, in µs; 0 when there are none.
func (l *slidingLog) ends(now int64) int64 {
	if l.count() == 0 {
		return 0
	}
	return l.leaves(l.newest.at, now)
}

// frees is when so many hits have left, in µs. There are as many.
func (l *slidingLog) frees(hits, now int64) int64 {
	at := l.newest.at
	if i := l.reaches(hits); i < len(l.older) {
		at = l.older[i].at
	}
	return l.leaves(at, now)
}

// reaches is the place of the entry with which there are so many hits, that of the newest one at most.
func (l *slidingLog) reaches(hits int64) int {
	return first(l.older, func(e entry) bool { return int64(e.sum-l.before) >= hits })
}

// add counts hits now; below 0 it gives back, as far as there are.
func (l *slidingLog) add(hits, now, limit int64) {
	count := l.count()
	if hits < 0 {
		l.keep(count + hits)
		return
	}
	next := entry{uint32(l.at(now)), l.newest.sum + uint32(min(hits, MaxLogged-count))}
	if count > 0 && later(l.newest.at, next.at) > 0 {
		next.at = l.newest.at
	}
	if count > 0 && !l.shares(next, limit) {
		had := cap(l.older)
		if l.older = append(l.older, l.newest); cap(l.older) != had {
			l.room = cap(l.older)
		}
	}
	l.newest = next
}

// shares tells whether the newest entry becomes next.
func (l *slidingLog) shares(next entry, limit int64) bool {
	if next.at == l.newest.at {
		return true
	}
	if l.part(next.at) != l.part(l.newest.at) {
		return false
	}
	before := l.before
	if n := len(l.older); n > 0 {
		before = l.older[n-1].sum
	}
	full := fullEntries
	if limit <= parts {
		full = parts
	}
	return int64(next.sum-before) <= (limit+parts-1)/parts || len(l.older)+1 >= full
}

// keep gives all but the oldest so many hits back.
func (l *slidingLog) keep(hits int64) {
	if hits <= 0 {
		*l = slidingLog{window: l.window}
		return
	}
	if i := l.reaches(hits); i < len(l.older) {
		l.newest = l.older[i]
		l.older = l.older[:i:i]
	}
	l.newest.sum = l.before + uint32(hits)
}

// bucket is what is stored of the log. It doesn't hold on to the memory of entries that are gone.
func (l slidingLog) bucket(now int64) bucket {
	if l.count() == 0 {
		return bucket{}
	}
	const slack = 16
	if l.room > 2*len(l.older)+slack {
		l.older = slices.Clone(l.older)
		l.room = cap(l.older)
	}
	return bucket{log: &l, end: l.ends(now)}
}

// appendTo appends the value as it is in Redis.
func (l *slidingLog) appendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, l.before)
	for _, e := range l.older {
		b = e.appendTo(b)
	}
	return l.newest.appendTo(b)
}

func (e entry) appendTo(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, e.at), e.sum)
}

// size is how long that is.
func (l *slidingLog) size() int { return 4 + 8*len(l.older) + 8 }

// readLog reads a value; nil when it can't be read.
func readLog(value []byte, window int64) *slidingLog {
	n := len(value) / 8
	if n == 0 || len(value) != 4+8*n {
		return nil
	}
	l := &slidingLog{window: window, before: binary.LittleEndian.Uint32(value)}
	entries := make([]entry, n)
	for i := range entries {
		entries[i].at = binary.LittleEndian.Uint32(value[4+8*i:])
		entries[i].sum = binary.LittleEndian.Uint32(value[8+8*i:])
	}
	l.newest, l.room = entries[n-1], n
	if n > 1 {
		l.older = entries[:n-1]
	}
	return l
}

// takeSliding is take for a sliding window.
func (h *Hit) takeSliding(b bucket, now int64) (bucket, Outcome) {
	l := h.log(b, now)
	count := l.count()
	o := Outcome{Allowed: h.fits(count), Limit: h.Limit}
	if !o.Allowed {
		o.RetryAfter = h.Window // hits above the limit never fit
		if more := max(1, h.Hits); more <= h.Limit {
			o.RetryAfter = microseconds(float64(l.frees(more-(h.Limit-count), now) - now))
		}
	}
	if h.Hits != 0 && (o.Allowed || h.Beyond) {
		l.add(h.Hits, now, h.Limit)
		b = l.bucket(now)
	}
	o.Count = l.count()
	o.Remaining = max(0, h.Limit-o.Count)
	o.Reset = microseconds(float64(max(0, l.ends(now)-now)))
	return b, o
}

// remindSliding raises b to count hits; those that are missing leave at end.
func (h *Hit) remindSliding(b bucket, now, count, end int64) bucket {
	l := h.log(b, now)
	missing := min(count, MaxLogged) - l.count()
	if missing <= 0 {
		return b
	}
	var entries []entry
	if l.count() > 0 {
		entries = append(slices.Clone(l.older), l.newest)
	}
	at := uint32(l.at(min(now, end-l.window)))
	i := first(entries, func(e entry) bool { return later(e.at, at) > 0 })
	sum := l.before
	if i > 0 {
		sum = entries[i-1].sum
	}
	entries = slices.Insert(entries, i, entry{at, sum})
	for k := range entries[i:] {
		entries[i+k].sum += uint32(missing)
	}
	last := len(entries) - 1
	l.older, l.newest, l.room = entries[:last], entries[last], cap(entries)
	return l.bucket(now)
}
