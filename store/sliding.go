package store

import "strconv"

// A sliding window is counted in slots of a sixteenth of its length. What is counted are the slot of now and the sixteen
// before it, all of each: so in any window there are never more hits than Limit, and one that was counted leaves W/16
// too late at most (W is the window). An exact log of hits may allow what is refused here only where a window of 17/16 W
// would not: who stays below the limit never meets it, who asks for more all the time gets 93 to 100 % of the limit.
// Slots that are weighted by time would give that back, and let bursts through that an exact log refuses: with two
// counters nearly twice the limit in a window, with sixteen a third more (TestSlidingWindowFigures). No bounded value
// does without either.
//
// Both stores do the same arithmetic, in whole numbers below 2^53, which Redis' doubles keep. Times are µs since 1970:
//
//	slot of a time     index(now) = (now - now%W) / W * 16 + floor(now%W * 16 / W)
//	where it begins    begins(i)  = floor(i/16) * W + ceil(i%16 * W / 16)
//	its hits leave at  begins(i+17)
//
// The value of a bucket is a text of three parts, and its key ends with its newest slot's hits:
//
//	newest  the index of the newest slot that has hits, in decimal
//	width   a letter: how many digits a counter has, a is 1 and i is 9: as few as the largest counter needs
//	counts  of the newest slot and those before it to the oldest that has hits, each of width digits to the base 64,
//	        the highest first; the digits are the characters from 0 (48, stands for 0) to o (111, stands for 63)
//
// "28571426a3001" is 3 hits in slot 28571426 and 1 in 28571423; 70 hits in one slot are "28571426b16". Up to 63 hits a
// slot take 27 bytes at most with a window of a minute, up to 4,095 take 44. An empty bucket has no value.
//
// A value whose newest slot is more than 16 ahead of now is of another window's length (a limit was changed) and counts
// as none, and so does what can't be read. One that is ahead by less is of a clock that was set back: its newest slot is
// taken for the slot of now, so that time stands still until the clock has caught up.
//
// Hits are counted in the slot of now. What is given back is taken from the newest slot first, then from those before it.
type sliding struct {
	now    int64                     // index of the slot of now
	counts [slotsPerWindow + 1]int64 // of the slot of now and those before it
}

const (
	slotsPerWindow = 16
	maxSlots       = 192 // more than the longest value has
)

// slotIndex is the slot of a time in µs, where a window has so many µs.
func slotIndex(now, window int64) int64 {
	return now/window*slotsPerWindow + now%window*slotsPerWindow/window
}

// slotBegins is when slot i begins, in µs.
func slotBegins(i, window int64) int64 {
	const round = slotsPerWindow - 1
	return i/slotsPerWindow*window + (i%slotsPerWindow*window+round)/slotsPerWindow
}

// readSliding gives a bucket as it is at now; unreadable and foreign values are empty.
func readSliding(value string, now, window int64) sliding {
	s := sliding{now: slotIndex(now, window)}
	n := 0
	for n < len(value) && '0' <= value[n] && value[n] <= '9' {
		n++
	}
	newest, err := strconv.ParseInt(value[:n], 10, 64)
	if err != nil || n == len(value) || newest-s.now > slotsPerWindow {
		return s
	}
	width, digits := int(value[n]-'a')+1, value[n+1:]
	if width < 1 || width > 9 || len(digits)%width != 0 {
		return s
	}
	at := sliding{now: max(s.now, newest)}
	age := int(min(at.now-newest, slotsPerWindow+1))
	for k := age; k < len(at.counts) && len(digits) > 0; k++ {
		for _, d := range []byte(digits[:width]) {
			if d < '0' || d > 'o' {
				return s
			}
			at.counts[k] = at.counts[k]<<6 + int64(d-'0')
		}
		digits = digits[width:]
	}
	return at
}

// value is what is stored of the bucket, empty when it is.
func (s *sliding) value() string {
	first, last := s.span()
	if first < 0 {
		return ""
	}
	width := 1
	for _, c := range s.counts[first : last+1] {
		for c>>(6*width) > 0 {
			width++
		}
	}
	var room [maxSlots]byte
	b := strconv.AppendInt(room[:0], s.now-int64(first), 10)
	b = append(b, byte('a'+width-1))
	for _, c := range s.counts[first : last+1] {
		for d := width - 1; d >= 0; d-- {
			b = append(b, byte('0'+c>>(6*d)&63))
		}
	}
	return string(b)
}

// span is the newest and the oldest slot that has hits, as places in counts; -1 when none has.
func (s *sliding) span() (first, last int) {
	first, last = -1, -1
	for k, c := range s.counts {
		if c > 0 {
			last = k
			if first < 0 {
				first = k
			}
		}
	}
	return first, last
}

// count is the number of hits in the window.
func (s *sliding) count() int64 {
	n := int64(0)
	for _, c := range s.counts {
		n += c
	}
	return n
}

// ends is when the last of the hits leaves, in µs; 0 when there are none.
func (s *sliding) ends(window int64) int64 {
	first, _ := s.span()
	if first < 0 {
		return 0
	}
	return slotBegins(s.now-int64(first)+slotsPerWindow+1, window)
}

// frees is when so many hits have left, in µs. There are as many.
func (s *sliding) frees(hits, window int64) int64 {
	k := slotsPerWindow
	for ; k > 0 && s.counts[k] < hits; k-- {
		hits -= s.counts[k]
	}
	return slotBegins(s.now-int64(k)+slotsPerWindow+1, window)
}

// add counts hits now; below 0 it gives back, as far as there are.
func (s *sliding) add(hits int64) {
	if hits >= 0 {
		s.counts[0] += max(0, min(hits, MaxCount-s.count()))
		return
	}
	for k := range s.counts {
		back := min(-hits, s.counts[k])
		s.counts[k] -= back
		hits += back
	}
}

// takeSliding is take for a sliding window.
func (h *Hit) takeSliding(b bucket, now int64) (bucket, Outcome) {
	window := h.Window.Microseconds()
	s := readSliding(b.slots, now, window)
	count := s.count()
	o := Outcome{Allowed: h.fits(count), Limit: h.Limit}
	if !o.Allowed {
		o.RetryAfter = h.Window // hits above the limit never fit
		if more := max(1, h.Hits); more <= h.Limit {
			o.RetryAfter = microseconds(float64(s.frees(more-(h.Limit-count), window) - now))
		}
	}
	if h.Hits != 0 && (o.Allowed || h.Beyond) {
		s.add(h.Hits)
		b = bucket{slots: s.value(), end: s.ends(window)}
	}
	o.Count = s.count()
	o.Remaining = max(0, h.Limit-o.Count)
	o.Reset = microseconds(float64(max(0, s.ends(window)-now)))
	return b, o
}

// remindSliding raises b to count hits; those that are missing leave at end, as far as a slot may.
func (h *Hit) remindSliding(b bucket, now, count, end int64) bucket {
	window := h.Window.Microseconds()
	s := readSliding(b.slots, now, window)
	missing := count - s.count()
	if missing <= 0 {
		return b
	}
	k := s.now + slotsPerWindow + 1 - slotIndex(end, window)
	s.counts[min(max(0, k), slotsPerWindow)] += missing
	return bucket{slots: s.value(), end: s.ends(window)}
}
