package ratelimit

import (
	"fmt"
	"strconv"
	"strings"
)

// Advice is what an operator may do about what the report tells, as sentences; empty when it tells too little.
func (p Report) Advice() string {
	size, write, known := p.words()
	switch {
	case !p.Shadow && known:
		return "what would have fitted isn't known of a limit that refuses: with shadow: true it counts what is over, too"
	case !p.Shadow:
		return ""
	case p.Requests == 0:
		return "nobody has asked yet: leave it in shadow"
	case p.Over == 0 && known && p.Peak > 0:
		return fmt.Sprintf("it would have refused nobody, and the most was %d of %d: without shadow: true it holds", p.Peak, size)
	case p.Over == 0:
		return "it would have refused nobody: without shadow: true it holds"
	case !known:
		return ""
	}
	text := fmt.Sprintf("%s would have refused nobody", write(p.Peak))
	switch {
	case p.Fits99 <= 0 || p.Fits99 >= p.Peak:
	case p.Fits99 <= size:
		text += "; as it is, 99 of 100 windows are within it"
	default:
		text += fmt.Sprintf("; with %s, 99 of 100 windows are within it", write(p.Fits99))
	}
	return text
}

// words reads the rate as [Rate.String] writes it: how many pass at once, and what a policy writes for another number;
// false for the limits of plans, whose reports have none, and those without a number.
func (p Report) words() (size int64, write func(int64) string, known bool) {
	count, unit, _ := strings.Cut(p.Rate, "/")
	unit, more, _ := strings.Cut(unit, " ")
	key := "rate"
	if burst, ok := strings.CutPrefix(more, "burst "); ok {
		key, count = "burst", burst
	} else if strings.HasPrefix(more, "(") {
		key = "quota"
	}
	size, err := strconv.ParseInt(count, 10, 64)
	return size, func(n int64) string {
		if key == "burst" {
			return fmt.Sprintf("burst: %d", n)
		}
		return fmt.Sprintf("%s: %d/%s", key, n, unit)
	}, err == nil
}
