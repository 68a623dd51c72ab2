package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// The file that keeps an embedded store's buckets is a line of text and then frames, one after the other. A frame is
// the length of its content and a CRC-32C of that, 4 bytes each with the lowest first; its content is the time when it
// was written (µs since 1970), then records. Numbers are varints unless said otherwise.
//
// A record is a bucket as it was then: its algorithm (a byte), the length of its key, the key, when it ends (µs since
// 1970), and its value. That is the count of a window or period, the 8 bytes of a GCRA bucket's arrival time, or of a
// sliding window, whose byte is 4, its length in µs, the length of its log and the log, as in Redis. The last record of a
// bucket counts; one that ends at 0 has no value and tells that the bucket is empty. Sliding windows of former versions,
// whose byte is 2, are left out.
const (
	journalHead = "legation counts 1\n"
	frameHead   = 8
	frameSize   = 64 << 10 // of a frame's content, when it is sent on its way
	maxFrame    = 4 << 20  // of a frame's content
	maxKept     = 1 << 20  // of a key that is kept

	slidingSlots = byte(SlidingWindow) // of a record of a former version
	maxSlots     = 192                 // of its value
	slidingKept  = byte(4)             // of a record of a log
)

var (
	errTorn    = errors.New("it ends within a frame")
	errCorrupt = errors.New("it is corrupt")
	errForeign = errors.New("it isn't of this version, or no file of counts")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journalFrame is a frame in the making.
type journalFrame struct {
	b    []byte
	head int // bytes before the records
}

// begin drops what is there.
func (f *journalFrame) begin(now int64) {
	f.b = append(f.b[:0], make([]byte, frameHead)...)
	f.b = binary.AppendVarint(f.b, now)
	f.head = len(f.b)
}

// add appends a record. A key that is too long for one isn't kept.
func (f *journalFrame) add(k bucketKey, b *bucket) {
	if len(k.key) > maxKept {
		return
	}
	kind := byte(k.algorithm)
	if k.algorithm == SlidingWindow {
		kind = slidingKept
	}
	f.b = append(f.b, kind)
	f.b = binary.AppendUvarint(f.b, uint64(len(k.key)))
	f.b = append(f.b, k.key...)
	f.b = binary.AppendVarint(f.b, b.end)
	if b.end == 0 {
		return
	}
	switch k.algorithm {
	case GCRA:
		f.b = binary.LittleEndian.AppendUint64(f.b, math.Float64bits(b.tat))
	case SlidingWindow:
		f.b = binary.AppendVarint(f.b, b.log.window)
		f.b = binary.AppendUvarint(f.b, uint64(b.log.size()))
		f.b = b.log.appendTo(f.b)
	default:
		f.b = binary.AppendVarint(f.b, b.count)
	}
}

// has tells whether there are so many bytes of records.
func (f *journalFrame) has(least int) bool { return len(f.b)-f.head >= least }

// seal gives the frame's bytes, valid until it begins anew.
func (f *journalFrame) seal() []byte {
	content := f.b[frameHead:]
	binary.LittleEndian.PutUint32(f.b, uint32(len(content)))
	binary.LittleEndian.PutUint32(f.b[4:], crc32.Checksum(content, castagnoli))
	return f.b
}

// readJournal gives each record of a file, and when its last frame was written. What came before an error was given.
func readJournal(file io.Reader, each func(bucketKey, bucket)) (written int64, err error) {
	r := bufio.NewReaderSize(file, 256<<10)
	head := make([]byte, len(journalHead))
	switch _, err := io.ReadFull(r, head); {
	case err == io.EOF:
		return 0, nil
	case err == io.ErrUnexpectedEOF && string(head[:1]) == journalHead[:1]:
		return 0, errTorn
	case err != nil && err != io.ErrUnexpectedEOF:
		return 0, err
	case string(head) != journalHead:
		return 0, errForeign
	}
	var content []byte
	for {
		content, err = readFrame(r, content)
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		at, n := binary.Varint(content)
		if n <= 0 {
			return written, errCorrupt
		}
		written = at
		if err := readRecords(content[n:], each); err != nil {
			return written, err
		}
	}
}

// readFrame gives the content of the next frame, in room when there is enough.
func readFrame(r io.Reader, room []byte) ([]byte, error) {
	var head [frameHead]byte
	switch _, err := io.ReadFull(r, head[:]); {
	case err == io.ErrUnexpectedEOF:
		return nil, errTorn
	case err != nil:
		return nil, err
	case head == [frameHead]byte{}:
		return nil, errTorn // a file system that lost its power may leave zeros at the end
	}
	size := int(binary.LittleEndian.Uint32(head[:]))
	if size > maxFrame {
		return nil, errCorrupt
	}
	if cap(room) < size {
		room = make([]byte, size)
	}
	content := room[:size]
	switch _, err := io.ReadFull(r, content); {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return nil, errTorn
	case err != nil:
		return nil, err
	case crc32.Checksum(content, castagnoli) != binary.LittleEndian.Uint32(head[4:]):
		return nil, errCorrupt
	}
	return content, nil
}

func readRecords(content []byte, each func(bucketKey, bucket)) error {
	r := recordReader{rest: content}
	for len(r.rest) > 0 {
		k, b, ok := r.record()
		if r.bad {
			return fmt.Errorf("%w: a record can't be read", errCorrupt)
		}
		if ok {
			each(k, b)
		}
	}
	return nil
}

// recordReader reads what [journalFrame] writes; bad once something was missing or out of bounds.
type recordReader struct {
	rest []byte
	bad  bool
}

// record is not ok when it says nothing any more.
func (r *recordReader) record() (k bucketKey, b bucket, ok bool) {
	kind := r.bytes(1)[0]
	k.algorithm = Algorithm(kind)
	if kind == slidingKept {
		k.algorithm = SlidingWindow
	}
	k.key = string(r.bytes(r.length(maxKept)))
	b.end = r.number()
	ok = kind != slidingSlots
	if b.end == 0 || r.bad {
		return k, b, ok
	}
	switch {
	case kind == slidingSlots:
		r.bytes(r.length(maxSlots))
	case kind == slidingKept:
		b.log = r.log(b.end)
	case k.algorithm == GCRA:
		b.tat = math.Float64frombits(binary.LittleEndian.Uint64(r.bytes(8)))
		r.bad = r.bad || !(math.Abs(b.tat) < float64(MaxCount)) || b.end != gcraEnd(b.tat)
	case k.algorithm == FixedWindow || k.algorithm == Calendar:
		b.count = r.number()
		r.bad = r.bad || b.count < 0 || b.count > MaxCount
	default:
		r.bad = true
	}
	return k, b, ok
}

// log reads a sliding window that ends at end.
func (r *recordReader) log(end int64) *slidingLog {
	window := r.number()
	l := readLog(r.bytes(r.length(maxLog)), window)
	if l == nil || window < MinWindow.Microseconds() || window > MaxWindow.Microseconds() ||
		l.count() == 0 || end <= window || l.leaves(l.newest.at, end-window) != end {
		r.bad = true
		return nil
	}
	return l
}

// bytes gives the next n bytes, or zeros when there aren't as many.
func (r *recordReader) bytes(n int) []byte {
	if n > len(r.rest) {
		r.bad, r.rest = true, nil
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *recordReader) number() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *recordReader) length(most uint64) int {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most || v > uint64(len(r.rest)-n) {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return int(v)
}
