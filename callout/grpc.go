package callout

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
)

// prefix is the bytes before a gRPC message: one that tells whether it is compressed, four of its length.
const prefix = 5

// Header blocks that never change. They leave the client's table alone: fields of HPACK's static table and literals.
var (
	okHeaders  = appendField([]byte{status200}, "content-type", "application/grpc")
	okTrailers = appendField(nil, "grpc-status", "0")
	overloaded = appendError(nil, refusal{200, codes.Unavailable, "overloaded"})
)

const status200 = 0x88 // ":status: 200" in HPACK's static table

// A refusal answers a call that no method was asked for.
type refusal struct {
	status int // of HTTP
	code   codes.Code
	text   string
}

func refuse(status int, code codes.Code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

// appendError appends the header block of an answer that is only an error.
func appendError(b []byte, r refusal) []byte {
	if r.status == 200 {
		b = append(b, status200)
	} else {
		b = appendField(b, ":status", strconv.Itoa(r.status))
	}
	b = appendField(b, "content-type", "application/grpc")
	b = appendField(b, "grpc-status", strconv.Itoa(int(r.code)))
	return appendField(b, "grpc-message", percentEncode(r.text))
}

// appendField appends a literal that isn't to be indexed, as it is.
func appendField(b []byte, name, value string) []byte {
	return appendString(appendString(append(b, 0), name), value)
}

func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(append(b, byte(n)), s...)
}

// checkBody tells what is wrong with a call's body as a whole; nil when it is one message.
func checkBody(body []byte, max int) *refusal {
	if r := checkPart(body, max); r != nil {
		return r
	}
	switch {
	case len(body) == 0:
		return refuse(200, codes.Internal, "no message in the call of a unary method")
	case len(body) < prefix || len(body) < prefix+messageLength(body):
		return refuse(200, codes.Internal, "call ended within its message")
	}
	return nil
}

// checkPart tells what is wrong with as much of a call's body as has come.
func checkPart(body []byte, max int) *refusal {
	switch {
	case len(body) == 0:
	case body[0] == 1:
		return refuse(200, codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	case body[0] != 0:
		return refuse(200, codes.Internal, "grpc: received unexpected payload format %d", body[0])
	case len(body) < prefix:
	case messageLength(body) > max:
		return refuse(200, codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", messageLength(body), max)
	case len(body) > prefix+messageLength(body):
		return refuse(200, codes.Internal, "more than one message in the call of a unary method")
	}
	return nil
}

// messageLength is what a message's prefix says. It doesn't overflow: int has 64 bits where this is built for.
func messageLength(body []byte) int { return int(binary.BigEndian.Uint32(body[1:])) }

// grpcContent tells whether a content type is gRPC's.
func grpcContent(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// parseTimeout reads a grpc-timeout, such as 20m (milliseconds).
func parseTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	unit, ok := timeoutUnits[s[len(s)-1]]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}

var timeoutUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// percentEncode makes a text fit for grpc-message: printable ASCII without %, which starts an encoded byte of UTF-8.
func percentEncode(s string) string {
	plain := func(b byte) bool { return b >= ' ' && b <= '~' && b != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	var b strings.Builder
	for i := range len(s) {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}
