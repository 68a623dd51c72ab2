package ratelimit

import (
	"maps"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of the fields of a RateLimitResponse that are written here, and of what lies in it.
const (
	responseCode     = 1
	responseStatus   = 2
	responseHeader   = 3
	responseMetadata = 6

	statusCode      = 1
	statusRemaining = 3
	statusReset     = 4
	statusQuota     = 5

	codeOK        = 1
	codeOverLimit = 2
)

// reply appends the RateLimitResponse that tells d. Descriptors without a limit of ours are OK.
func (t *turn) reply(b []byte, d *decision) []byte {
	code := uint64(codeOK)
	if d.refused >= 0 {
		code = codeOverLimit
	}
	b = appendVarint(b, responseCode, code)
	next := 0
	for place := range d.places {
		var at int
		b, at = open(b, responseStatus)
		if next < len(d.asks) && d.asks[next].place == place {
			b = d.asks[next].appendStatus(b, t.start)
			next++
		} else {
			b = appendVarint(b, statusCode, codeOK)
		}
		b = shut(b, at)
	}
	t.headers.of(d)
	for i, h := range t.headers.list {
		var at int
		b, at = open(b, responseHeader)
		b = appendString(b, 1, h.name)
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), t.headers.value(i))
		b = shut(b, at)
	}
	return d.appendMetadata(b)
}

// appendStatus appends the fields of a DescriptorStatus. A limit in shadow refuses nobody; one that is soft tells.
func (a *ask) appendStatus(b []byte, now time.Time) []byte {
	code := uint64(codeOK)
	if a.counted && !a.outcome.Allowed && (!a.limit.Shadow || a.limit.soft) {
		code = codeOverLimit
	}
	b = appendVarint(b, statusCode, code)
	switch {
	case a.rate == nil: // exempt
		return b
	case a.rate.unlimited:
		return appendVarint(b, statusRemaining, math.MaxUint32)
	}
	b = append(b, a.rate.current...)
	if !a.counted {
		return b
	}
	if n := clamp(a.outcome.Remaining); n > 0 {
		b = appendVarint(b, statusRemaining, uint64(n))
	}
	b, at := open(b, statusReset)
	b = appendDuration(b, a.outcome.Reset)
	b = shut(b, at)
	if a.granted > 0 {
		b = a.appendQuota(b, now)
	}
	return b
}

// appendMetadata appends what access logs can tell of a request that wasn't simply let pass: "refused": true and "refusedBy",
// the name of the limit; "degraded": true when the store couldn't answer; "shadow", the name of a limit in shadow, or a soft
// one, that would have refused; and of the limit that refused, else of the nearest to exhaustion that answers tell of,
// "limit", its name, "remaining" and "reset" (seconds). What the descriptors of a domain say for requests that their limits
// let pass stands under "metadata". Other requests, nearly all, have none: Envoy takes some microseconds for it, and their
// response headers tell the same.
func (d *decision) appendMetadata(b []byte) []byte {
	told := d.told()
	said := d.metadata()
	if d.refused < 0 && d.shadow == nil && !d.degraded && len(said) == 0 {
		return b
	}
	b, at := open(b, responseMetadata)
	if told >= 0 {
		a := &d.asks[told]
		b = appendText(b, "limit", a.limit.Name)
		b = appendNumber(b, "remaining", float64(a.outcome.Remaining))
		b = appendNumber(b, "reset", float64(seconds(a.outcome.Reset)))
	}
	if d.refused >= 0 {
		b = appendTrue(b, "refused")
		b = appendText(b, "refusedBy", d.asks[d.refused].limit.Name)
	}
	if d.degraded {
		b = appendTrue(b, "degraded")
	}
	if d.shadow != nil {
		b = appendText(b, "shadow", d.shadow.Name)
	}
	if len(said) > 0 {
		b = appendTexts(b, "metadata", said)
	}
	return shut(b, at)
}

// metadata is what the descriptors say that let the request pass, the later before the earlier; nil: nothing.
func (d *decision) metadata() map[string]string {
	var all map[string]string
	for i := range d.asks {
		a := &d.asks[i]
		if len(a.limit.metadata) == 0 || !a.outcome.Allowed {
			continue
		}
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, a.limit.metadata)
	}
	return all
}

// A google.protobuf.Struct is a map, field 1, of names (1) to values (2): numbers (2), strings (3) and bools (4).

func appendText(b []byte, name, value string) []byte {
	b, entry, at := openValue(b, name)
	return shut(shut(appendString(b, 3, value), at), entry)
}

func appendNumber(b []byte, name string, value float64) []byte {
	b, entry, at := openValue(b, name)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 2, protowire.Fixed64Type), math.Float64bits(value))
	return shut(shut(b, at), entry)
}

// appendTexts appends a struct (5) of strings.
func appendTexts(b []byte, name string, texts map[string]string) []byte {
	b, entry, value := openValue(b, name)
	b, at := open(b, 5)
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		b = appendText(b, key, texts[key])
	}
	return shut(shut(shut(b, at), value), entry)
}

func appendTrue(b []byte, name string) []byte {
	b, entry, at := openValue(b, name)
	return shut(shut(appendVarint(b, 4, 1), at), entry)
}

// openValue begins a map's entry and the value in it.
func openValue(b []byte, name string) (_ []byte, entry, value int) {
	b, entry = open(b, 1)
	b, value = open(appendString(b, 1, name), 2)
	return b, entry, value
}

func appendDuration(b []byte, d time.Duration) []byte {
	if s := d / time.Second; s > 0 {
		b = appendVarint(b, 1, uint64(s))
	}
	if n := d % time.Second; n > 0 {
		b = appendVarint(b, 2, uint64(n))
	}
	return b
}

func appendVarint(b []byte, number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func appendString(b []byte, number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

// open begins a message within a message; shut ends it, at where it began, and writes its length.
func open(b []byte, number protowire.Number) (_ []byte, at int) {
	b = append(protowire.AppendTag(b, number, protowire.BytesType), 0) // one byte is enough for most lengths
	return b, len(b)
}

func shut(b []byte, at int) []byte {
	n := uint64(len(b) - at)
	if n < 128 {
		b[at-1] = byte(n)
		return b
	}
	var room [10]byte
	length := protowire.AppendVarint(room[:0], n)
	return slices.Replace(b, at-1, at, length...)
}
