package store

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// longPart is the length in bytes above which Key holds the digest of a part: keys stay short, and 180 bytes of Redis
// are enough for one.
const longPart = 40

// Key joins the parts of a bucket's name: the limit, then the values that it counts by. Different parts never give the
// same key. Ordinary text stays readable ("route/orders/0|203.0.113.7"), other bytes are written %XX, and of a long
// part only the start and a digest are kept.
func Key(parts ...string) string {
	n := len(parts)
	for _, p := range parts {
		n += min(len(p), longPart+16)
	}
	b := make([]byte, 0, n)
	for i, p := range parts {
		if i > 0 {
			b = append(b, '|')
		}
		b = appendPart(b, p)
	}
	return string(b)
}

// AppendPart appends to b what [Key] writes for one part; '|' stands between two.
func AppendPart(b []byte, part string) []byte { return appendPart(b, part) }

// AppendDigest is [AppendPart] for a value that must not be told to whoever reads Redis, such as an API key.
func AppendDigest(b []byte, s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return hex.AppendEncode(b, sum[:16])
}

func appendPart(b []byte, p string) []byte {
	if len(p) > longPart {
		b = appendEscaped(b, p[:8])
		b = append(b, '#') // escaped in ordinary text, so no short part looks like this
		return AppendDigest(b, p)
	}
	return appendEscaped(b, p)
}

func appendEscaped(b []byte, p string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(p) {
		if c := p[i]; ordinary(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// ordinary bytes stand for themselves in a part.
func ordinary(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-/:@+=,", c) >= 0
}

// isWritten tells the bytes that Key writes.
var isWritten = func() (is [256]bool) {
	for c := range is {
		is[c] = ordinary(byte(c)) || c == '|' || c == '%' || c == '#'
	}
	return is
}()

// appendTag appends how every key of a bucket begins: legation:{key}. What Key makes is taken as it is. The braces are
// Redis Cluster's hash tag, so other bytes are escaped, or digested.
func appendTag(b []byte, key string) []byte {
	b = append(b, "legation:{"...)
	if made(key) {
		b = append(b, key...)
	} else {
		b = append(b, '~')
		b = appendPart(b, key)
	}
	return append(b, '}')
}

// made tells whether key has only bytes that Key writes.
func made(key string) bool {
	if key == "" || len(key) > 1024 {
		return false
	}
	for i := range len(key) {
		if !isWritten[key[i]] {
			return false
		}
	}
	return true
}

// slot is the Redis Cluster slot of all keys of a bucket: CRC16 (XMODEM) of their hash tag.
func slot(bucket string) int {
	var room [128]byte
	tag := appendTag(room[:0], bucket)
	return slotOf(tag[len("legation:{") : len(tag)-1])
}

// keySlot is the slot of any key.
func keySlot(key string) int {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			key = tag
		}
	}
	return slotOf(key)
}

func slotOf[T string | []byte](tag T) int {
	var crc uint16
	for i := range len(tag) {
		crc = crc<<8 ^ crc16[byte(crc>>8)^tag[i]]
	}
	return int(crc % slots)
}

// crc16 is what each byte adds.
var crc16 = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()
