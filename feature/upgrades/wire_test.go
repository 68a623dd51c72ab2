package upgrades_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
)

// What WebSocket (RFC 6455) and HTTP/2 look like on the wire, as far as the tests need it.

// The key and its answer are the sample of the RFC.
const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	magic        = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// The kinds of frames.
const (
	text    = 1
	closing = 8
)

type frame struct {
	kind byte
	text string
}

// chat is a WebSocket server that says what it hears, and asks others to upgrade.
func chat(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		http.Error(w, "this is a chat", http.StatusUpgradeRequired)
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + magic))
	conn, buf := hijack(w, "websocket", "Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n")
	defer conn.Close()
	for {
		f, err := readFrame(buf)
		if err != nil || writeFrame(conn, f.kind, f.text, false) != nil || f.kind == closing {
			return
		}
	}
}

// hijack answers 101 and hands over the connection.
func hijack(w http.ResponseWriter, upgrade, headers string) (net.Conn, *bufio.Reader) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+upgrade+"\r\n"+headers+"\r\n")
	return conn, buf.Reader
}

// writeFrame writes a frame of up to 65535 bytes; clients have to mask.
func writeFrame(w io.Writer, kind byte, payload string, mask bool) error {
	const final, masked, twoBytes = 0x80, 0x80, 126
	head := []byte{final | kind, twoBytes}
	head = binary.BigEndian.AppendUint16(head, uint16(len(payload)))
	if len(payload) < twoBytes {
		head = []byte{final | kind, byte(len(payload))}
	}
	if mask {
		head[1] |= masked
		head = append(head, 0, 0, 0, 0) // a mask of zeros changes nothing
	}
	_, err := w.Write(append(head, payload...))
	return err
}

func readFrame(r *bufio.Reader) (frame, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return frame{}, err
	}
	n := int(head[1] & 0x7f)
	if n == 126 {
		long := make([]byte, 2)
		if _, err := io.ReadFull(r, long); err != nil {
			return frame{}, err
		}
		n = int(binary.BigEndian.Uint16(long))
	}
	if head[1]&0x80 != 0 {
		if _, err := r.Discard(4); err != nil {
			return frame{}, err
		}
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	return frame{head[0] & 0xf, string(payload)}, err
}

// h2Frame is a frame of HTTP/2.
func h2Frame(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	head := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return string(binary.BigEndian.AppendUint32(head, stream)) + payload
}

func readH2Frame(r io.Reader) (kind byte, payload []byte, err error) {
	head := make([]byte, 9)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(r, payload)
	return head[3], payload, err
}

// literals is header fields, names and values in turn, as HPACK without its tables and codes.
func literals(fields ...string) string {
	var out string
	for i := 0; i < len(fields); i += 2 {
		out += "\x00" + string(byte(len(fields[i]))) + fields[i] + string(byte(len(fields[i+1]))) + fields[i+1]
	}
	return out
}
