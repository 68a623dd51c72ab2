package callout

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

const (
	maxHeaderList  = 64 << 10 // bytes of a request's headers, as HTTP/2 counts them; also of its block on the wire
	maxHeaderTable = 4096     // bytes of HPACK's table, the protocol's default
	maxKnown       = 512      // bytes of a block worth knowing
	noTimeout      = -1
	noLength       = -1
)

// A request is what a header block asks for.
type request struct {
	method    *method       // nil: grpc-go's
	timeout   time.Duration // by grpc-timeout; noTimeout without
	length    int           // by content-length; noLength without
	refusal   *refusal      // what it is answered with at once
	malformed string        // why it breaks the rules of HTTP/2; the stream is reset
	path      string
	authority string
	fields    []hpack.HeaderField // valid until the next block
}

// headers decodes the header blocks of one connection.
type headers struct {
	methods map[string]*method
	decoder *hpack.Decoder
	fields  []hpack.HeaderField
	size    int // of the list so far

	// What blocks meant that came before, as long as the table is the same. Clients that call one method over and over
	// send the same few bytes for it.
	known [4]struct {
		block   []byte
		request request
	}
	used int // of known; the newest is at (used-1) % len(known)
}

func newHeaders(methods map[string]*method) *headers {
	h := &headers{methods: methods}
	h.decoder = hpack.NewDecoder(maxHeaderTable, h.emit)
	return h
}

func (h *headers) emit(f hpack.HeaderField) {
	h.size += int(f.Size())
	if h.size > maxHeaderList {
		h.decoder.SetEmitEnabled(false) // what follows still changes the table
		return
	}
	h.fields = append(h.fields, f)
}

// request decodes the block of a call. An error means that the table is lost, and the connection with it.
func (h *headers) request(block []byte) (*request, error) {
	for i := range min(h.used, len(h.known)) {
		if bytes.Equal(h.known[i].block, block) {
			return &h.known[i].request, nil
		}
	}
	keeps, err := h.decode(block)
	if err != nil {
		return nil, err
	}
	r := h.interpret()
	if !keeps || len(block) > maxKnown || r.method == nil || r.refusal != nil || r.malformed != "" {
		return &r, nil
	}
	k := &h.known[h.used%len(h.known)]
	h.used++
	k.block, k.request = append(k.block[:0], block...), r
	k.request.fields = nil
	return &k.request, nil
}

// trailers decodes the block that ends a call, whose fields nobody needs. It tells what is wrong with them.
func (h *headers) trailers(block []byte) (malformed string, err error) {
	if _, err := h.decode(block); err != nil {
		return "", err
	}
	for _, f := range h.fields {
		if f.IsPseudo() {
			return "pseudo-header in trailers", nil
		}
		if problem := checkField(f); problem != "" {
			return problem, nil
		}
	}
	return "", nil
}

// decode reads the fields of a block. It tells whether the block has kept the table as it was; otherwise what is known
// is known no more.
func (h *headers) decode(block []byte) (keeps bool, err error) {
	if keeps = keepsTable(block); !keeps {
		h.used = 0
	}
	h.fields, h.size = h.fields[:0], 0
	h.decoder.SetEmitEnabled(true)
	if _, err := h.decoder.Write(block); err != nil {
		return false, err
	}
	return keeps, h.decoder.Close()
}

// keepsTable tells whether a block leaves HPACK's table as it is, and so means the same until the table changes: it is
// made of indexed fields and of literals that aren't to be indexed, as Envoy sends paths. When in doubt it says no.
func keepsTable(block []byte) bool {
	for len(block) > 0 {
		first := block[0]
		if first&0x80 != 0 { // indexed
			block = afterInt(block, 7)
			continue
		}
		if first&0xe0 != 0 { // a literal to be indexed, or another size of the table
			return false
		}
		block = afterInt(block, 4)
		if first&0x0f == 0 { // its name isn't indexed either
			block = afterString(block)
		}
		if len(block) == 0 {
			return false
		}
		block = afterString(block)
	}
	return block != nil
}

// afterInt is what follows an integer whose first byte has so many bits of it; nil when there is none, or a long one.
func afterInt(b []byte, bits int) []byte {
	most := byte(1)<<bits - 1
	switch {
	case len(b) == 0:
		return nil
	case b[0]&most < most:
		return b[1:]
	case len(b) > 1 && b[1] < 0x80:
		return b[2:]
	}
	return nil
}

// afterString is what follows a string; nil when there is none.
func afterString(b []byte) []byte {
	rest := afterInt(b, 7)
	if rest == nil {
		return nil
	}
	n := int(b[0] & 0x7f)
	if n == 0x7f {
		n += int(b[1])
	}
	if n > len(rest) {
		return nil
	}
	return rest[n:]
}

// A draft is a request as its fields say it, before anything is concluded from them.
type draft struct {
	request
	verb, scheme, contentType, encoding, host   string
	verbs, schemes, paths, authorities, regular int // fields of each kind so far
	hosts                                       int
}

// interpret tells what the fields ask for, by the rules of HTTP/2 first, then by those of gRPC.
func (h *headers) interpret() request {
	if h.size > maxHeaderList {
		return request{refusal: refuse(431, codes.ResourceExhausted, "headers are larger than %d bytes", maxHeaderList)}
	}
	d := draft{request: request{timeout: noTimeout, length: noLength, fields: h.fields}}
	for _, f := range h.fields {
		if f.IsPseudo() {
			d.pseudo(f)
		} else {
			d.field(f)
		}
	}
	if d.verbs != 1 || d.schemes != 1 || d.paths != 1 || d.authorities > 1 || d.path == "" || d.scheme == "" {
		d.malformed = "missing or repeated pseudo-header"
	}
	if d.authorities == 0 {
		d.authority = d.host
	}
	switch {
	case d.malformed != "":
	case d.hosts > 1:
		d.refusal = refuse(400, codes.Internal, "more than one host header")
	case !grpcContent(d.contentType):
		d.refusal = refuse(415, codes.InvalidArgument, "invalid gRPC request content-type %.100q", d.contentType)
	case d.refusal != nil:
	case d.authority == "":
		d.refusal = refuse(400, codes.Internal, "no host or :authority header present")
	case d.verb != "POST":
		d.refusal = refuse(405, codes.Internal, "Received a HEADERS frame with :method %.100q which should be POST", d.verb)
	case d.path[0] != '/':
		d.refusal = refuse(200, codes.Unimplemented, "malformed method name: %.100q", d.path)
	case d.encoding == "" || d.encoding == "identity": // grpc-go knows what else is installed
		d.method = h.methods[d.path]
	}
	return d.request
}

func (d *draft) pseudo(f hpack.HeaderField) {
	switch f.Name {
	case ":method":
		d.verb = f.Value
		d.verbs++
	case ":scheme":
		d.scheme = f.Value
		d.schemes++
	case ":path":
		d.path = f.Value
		d.paths++
	case ":authority":
		d.authority = f.Value
		d.authorities++
	default:
		d.malformed = "unknown pseudo-header"
	}
	if d.regular > 0 {
		d.malformed = "pseudo-header after others"
	}
	if !httpguts.ValidHeaderFieldValue(f.Value) {
		d.malformed = "pseudo-header's value has control characters"
	}
}

func (d *draft) field(f hpack.HeaderField) {
	d.regular++
	if problem := checkField(f); problem != "" {
		d.malformed = problem
	}
	switch f.Name {
	case "content-type":
		d.contentType = f.Value
	case "grpc-encoding":
		d.encoding = f.Value
	case "host":
		d.host = f.Value
		d.hosts++
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 62)
		if err != nil {
			d.malformed = "content-length is no number"
		}
		d.length = int(n)
	case "grpc-timeout":
		var ok bool
		if d.timeout, ok = parseTimeout(f.Value); !ok {
			d.refusal = refuse(400, codes.Internal, "malformed grpc-timeout")
		}
	}
}

// checkField tells what is wrong with a field by the rules of HTTP/2.
func checkField(f hpack.HeaderField) string {
	switch {
	case strings.ToLower(f.Name) != f.Name || !httpguts.ValidHeaderFieldName(f.Name):
		return "invalid name of a header"
	case !httpguts.ValidHeaderFieldValue(f.Value):
		return "a header's value has control characters"
	}
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return "header of a connection in a request"
	case "te":
		if f.Value != "trailers" {
			return "te is not trailers"
		}
	}
	return ""
}
