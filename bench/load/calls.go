package load

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Entry is an entry of a descriptor. A %d in the value stands for the number of the key.
type Entry struct{ Key, Value string }

// RateLimits asks envoy.service.ratelimit.v3 for one descriptor, with keys values in the place of %d, by turns that look
// random; sequential takes them one after the other.
func RateLimits(domain string, entries []Entry, keys uint64, sequential bool) Call {
	pick := scatter
	if sequential {
		pick = func(n uint64) uint64 { return n }
	}
	return Call{
		Method: "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
		Judge:  judgeLimit,
		Body: func(b []byte, number uint64) []byte {
			b = protowire.AppendTag(b, 1, protowire.BytesType)
			b = protowire.AppendString(b, domain)
			return appendDescriptor(b, entries, pick(number)%keys)
		},
	}
}

// scatter is the finalizer of splitmix64: neighbours come to lie far apart.
func scatter(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func appendDescriptor(b []byte, entries []Entry, key uint64) []byte {
	var room [256]byte
	d := room[:0]
	for i := range entries {
		var value [128]byte
		v := appendNumbered(value[:0], entries[i].Value, key)
		d = protowire.AppendTag(d, 1, protowire.BytesType)
		d = protowire.AppendVarint(d, uint64(protowire.SizeTag(1)+protowire.SizeBytes(len(entries[i].Key))+protowire.SizeTag(2)+protowire.SizeBytes(len(v))))
		d = protowire.AppendTag(d, 1, protowire.BytesType)
		d = protowire.AppendString(d, entries[i].Key)
		d = protowire.AppendTag(d, 2, protowire.BytesType)
		d = protowire.AppendBytes(d, v)
	}
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendBytes(b, d)
}

// appendNumbered appends text with the number in the place of %d.
func appendNumbered(b []byte, text string, number uint64) []byte {
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+1 < len(text) && text[i+1] == 'd' {
			b = strconv.AppendUint(b, number, 10)
			i++
		} else {
			b = append(b, text[i])
		}
	}
	return b
}

// judgeLimit reads a RateLimitResponse's overall_code.
func judgeLimit(message []byte) Verdict {
	switch code, ok := number(message, 1); {
	case !ok || code == 0 || code > 2:
		return Broken
	case code == 2:
		return Refused
	}
	return Allowed
}

// Checks asks envoy.service.auth.v3 with one of several messages by turns.
func Checks(messages [][]byte) Call {
	return Call{
		Method: "/envoy.service.auth.v3.Authorization/Check",
		Body: func(b []byte, number uint64) []byte {
			return append(b, messages[number%uint64(len(messages))]...)
		},
		Judge: judgeCheck,
	}
}

// judgeCheck reads the code in a CheckResponse's status, where 0 is left out.
func judgeCheck(message []byte) Verdict {
	status, ok := field(message, 1)
	if !ok {
		return Allowed
	}
	if status, n := protowire.ConsumeBytes(status); n > 0 {
		if code, ok := number(status, 1); ok && code != 0 {
			return Refused
		}
	}
	return Allowed
}

// number is a varint field of a message.
func number(message []byte, want protowire.Number) (v uint64, ok bool) {
	value, ok := field(message, want)
	if !ok {
		return 0, false
	}
	v, n := protowire.ConsumeVarint(value)
	return v, n > 0
}

// field is what follows the tag of a message's field, to its end.
func field(message []byte, want protowire.Number) (value []byte, ok bool) {
	for len(message) > 0 {
		n, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return nil, false
		}
		message = message[size:]
		if n == want {
			return message, true
		}
		if size = protowire.ConsumeFieldValue(n, kind, message); size < 0 {
			return nil, false
		}
		message = message[size:]
	}
	return nil, false
}
