package envoys

import "google.golang.org/protobuf/encoding/protowire"

// scanner reads a response as it comes in, and keeps its short fields only: version, type URL and nonce. The resources, up
// to megabytes, are skipped.
type scanner struct {
	head  []byte // of the field that is being read: its tag and length
	field protowire.Number
	keep  []byte // of its value, when it is kept
	left  int    // bytes of its value that are still to come

	version, url, nonce string
}

// longest is how long a field may be that is kept.
const longest = 1 << 10

// take reads the next bytes of the message.
func (s *scanner) take(b []byte) {
	for len(b) > 0 {
		if s.left == 0 {
			b = s.begin(b)
			continue
		}
		n := min(s.left, len(b))
		if s.field != 0 {
			s.keep = append(s.keep, b[:n]...)
		}
		s.left, b = s.left-n, b[n:]
		if s.left == 0 {
			s.note()
		}
	}
}

// begin reads tag and length of a field; all fields of a response have one.
func (s *scanner) begin(b []byte) []byte {
	for i, c := range b {
		s.head = append(s.head, c)
		number, _, n := protowire.ConsumeTag(s.head)
		if n < 0 {
			continue
		}
		length, m := protowire.ConsumeVarint(s.head[n:])
		if m < 0 {
			continue
		}
		s.head, s.keep, s.left, s.field = s.head[:0], s.keep[:0], int(length), 0
		if (number == 1 || number == 4 || number == 5) && length <= longest {
			s.field = number
		}
		return b[i+1:]
	}
	return nil
}

func (s *scanner) note() {
	switch s.field {
	case 1:
		s.version = string(s.keep)
	case 4:
		s.url = string(s.keep)
	case 5:
		s.nonce = string(s.keep)
	}
}
