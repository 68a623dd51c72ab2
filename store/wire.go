package store

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// The protocol of Redis (RESP2) as far as batches need it: commands are arrays of texts, appended to one buffer; replies
// are read in place.

// appendCommand begins a command of n words.
func appendCommand(b []byte, n int) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, '\r', '\n')
}

// appendText appends a word.
func appendText[T string | []byte](b []byte, word T) []byte {
	b = append(b, '$')
	b = strconv.AppendInt(b, int64(len(word)), 10)
	b = append(b, '\r', '\n')
	b = append(b, word...)
	return append(b, '\r', '\n')
}

// appendNumber appends a word that is a number.
func appendNumber(b []byte, n int64) []byte {
	if 0 <= n && n <= 9 {
		return append(b, '$', '1', '\r', '\n', '0'+byte(n), '\r', '\n')
	}
	var room [20]byte
	return appendText(b, strconv.AppendInt(room[:0], n, 10))
}

// reply is one reply, or the head of an array of them.
type reply struct {
	kind   kind
	number int64  // an integer, or the length of an array
	text   []byte // a status, an error or a text; good until the next one is read
}

type kind byte

const (
	status  kind = '+'
	failure kind = '-'
	integer kind = ':'
	text    kind = '$'
	array   kind = '*'
	absent  kind = '_' // a text or an array that is none
)

// err is the error that Redis answered, or that it didn't answer what was asked for.
func (r *reply) err(want kind) error {
	switch r.kind {
	case want:
		return nil
	case failure:
		return redisError(r.text)
	default:
		return errReply
	}
}

// redisError is an error that Redis answered.
type redisError string

func (e redisError) Error() string { return string(e) }

// RedisError makes it one of go-redis' errors.
func (redisError) RedisError() {}

var errReply = errors.New("an answer that isn't one of Redis' protocol")

// Bounds of a reply: what batches ask for is shorter.
const (
	maxReplyText  = 64 << 10
	maxReplyItems = 1 << 20
)

// reader reads replies.
type reader struct {
	from       io.Reader
	buf        []byte
	start, end int // of what was read and not yet taken
}

func newReader(from io.Reader) reader { return reader{from: from, buf: make([]byte, 16<<10)} }

// next reads one reply; of an array the items follow.
func (r *reader) next() (reply, error) {
	line, err := r.line()
	if err != nil {
		return reply{}, err
	}
	if len(line) == 0 {
		return reply{}, errReply
	}
	k, rest := kind(line[0]), line[1:]
	switch k {
	case status, failure:
		return reply{kind: k, text: rest}, nil
	case integer, array, text:
	default:
		return reply{}, errReply
	}
	n, ok := number(rest)
	switch {
	case !ok, k != integer && n < -1, k == text && n > maxReplyText, k == array && n > maxReplyItems:
		return reply{}, errReply
	case k != integer && n == -1:
		return reply{kind: absent}, nil
	case k == text:
		return r.text(int(n))
	}
	return reply{kind: k, number: n}, nil
}

// text reads the n bytes of a text and the end of its line.
func (r *reader) text(n int) (reply, error) {
	for r.end-r.start < n+2 {
		if err := r.fill(); err != nil {
			return reply{}, err
		}
	}
	b := r.buf[r.start : r.start+n+2]
	r.start += n + 2
	if b[n] != '\r' || b[n+1] != '\n' {
		return reply{}, errReply
	}
	return reply{kind: text, text: b[:n]}, nil
}

// line reads up to the end of a line.
func (r *reader) line() ([]byte, error) {
	for seen := r.start; ; {
		if at := bytes.IndexByte(r.buf[seen:r.end], '\n'); at >= 0 {
			at += seen
			if at == r.start || r.buf[at-1] != '\r' {
				return nil, errReply
			}
			line := r.buf[r.start : at-1]
			r.start = at + 1
			return line, nil
		}
		if r.end-r.start > maxReplyText {
			return nil, errReply
		}
		seen = r.end - r.start
		if err := r.fill(); err != nil {
			return nil, err
		}
		seen += r.start
	}
}

// fill reads more; what is there and not taken is kept.
func (r *reader) fill() error {
	switch {
	case r.start == r.end:
		r.start, r.end = 0, 0
	case r.end < len(r.buf):
	case r.start > 0:
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	default:
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	n, err := r.from.Read(r.buf[r.end:])
	r.end += n
	switch {
	case n > 0:
		return nil
	case err != nil:
		return err
	}
	return io.ErrNoProgress
}

// number is what strconv makes of a decimal, without a string.
func number(b []byte) (n int64, ok bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, len(b) < 19 || negative == (n < 0) || n == 0
}
