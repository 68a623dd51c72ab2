package ratelimit

import (
	"math"
	"strconv"
	"time"
)

// maxListed is how many limits the headers RateLimit and RateLimit-Policy list at most.
const maxListed = 8

// headers are those of one answer, their values in one text.
type headers struct {
	text []byte
	list []header
}

type header struct {
	name     string
	from, to int // of the value in the text
}

func (h *headers) value(i int) []byte { return h.text[h.list[i].from:h.list[i].to] }

// begin begins a header; what is appended to the text until the next is its value.
func (h *headers) begin(name string) {
	h.end()
	h.list = append(h.list, header{name, len(h.text), len(h.text)})
}

func (h *headers) end() {
	if n := len(h.list); n > 0 {
		h.list[n-1].to = len(h.text)
	}
}

func (h *headers) number(name string, n int64) {
	h.begin(name)
	h.text = strconv.AppendInt(h.text, n, 10)
}

// of makes the headers of a decision. They tell of the limit that refused, else of the one nearest to exhaustion, in the
// sets that this limit asks for; RateLimit and RateLimit-Policy list the others too that ask for them. Retry-After is of no
// set: who is refused is always told when to come again.
func (h *headers) of(d *decision) {
	h.text, h.list = h.text[:0], h.list[:0]
	told := d.told()
	if told < 0 {
		return
	}
	a := &d.asks[told]
	sets := a.limit.Headers
	if sets == 0 {
		sets = Draft03
	}
	if sets&Draft03 != 0 {
		h.number("RateLimit-Limit", a.outcome.Limit)
		h.number("RateLimit-Remaining", a.outcome.Remaining)
		h.number("RateLimit-Reset", seconds(a.outcome.Reset))
	}
	if sets&Structured != 0 {
		h.structured(d, told)
	}
	if sets&Legacy != 0 {
		h.number("X-RateLimit-Limit", a.outcome.Limit)
		h.number("X-RateLimit-Remaining", a.outcome.Remaining)
		h.number("X-RateLimit-Reset", seconds(a.outcome.Reset))
	}
	if d.refused >= 0 {
		h.number("Retry-After", seconds(max(a.outcome.RetryAfter, time.Second)))
	}
	h.end()
}

// told is the ask that answers tell of; -1: none.
func (d *decision) told() int {
	if d.refused >= 0 {
		return d.refused
	}
	return d.nearest
}

// structured writes the two lists, the limit that is told first.
func (h *headers) structured(d *decision, told int) {
	var room [maxListed]int
	listed := append(room[:0], told)
	for i := range d.asks {
		a := &d.asks[i]
		if i != told && a.counted && a.limit.Headers&Structured != 0 && !a.limit.Shadow && len(listed) < maxListed {
			listed = append(listed, i)
		}
	}
	h.begin("RateLimit-Policy")
	for n, i := range listed {
		h.separate(n)
		h.text = append(h.text, d.asks[i].rate.policy...)
	}
	h.begin("RateLimit")
	for n, i := range listed {
		a := &d.asks[i]
		h.separate(n)
		h.text = append(h.text, a.limit.quoted...)
		h.text = strconv.AppendInt(append(h.text, ";r="...), a.outcome.Remaining, 10)
		h.text = strconv.AppendInt(append(h.text, ";t="...), seconds(a.outcome.Reset), 10)
	}
}

func (h *headers) separate(n int) {
	if n > 0 {
		h.text = append(h.text, ", "...)
	}
}

// fields are the headers for who keeps them.
func (h *headers) fields() []Field {
	if len(h.list) == 0 {
		return nil
	}
	text := string(h.text)
	f := make([]Field, len(h.list))
	for i, l := range h.list {
		f[i] = Field{l.name, text[l.from:l.to]}
	}
	return f
}

// seconds is d in whole seconds, rounded up.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
