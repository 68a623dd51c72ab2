package explain

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/legation/legation/feature/golden"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The requests of HTTP/2 go through another codec, and then the same way.
func TestAgreesWithEnvoyOverHTTP2(t *testing.T) {
	golden.Binary(t)
	total, seed := number(t, requestsVariable, defaultRequests)/3, number(t, seedVariable, 1)
	asked := uint64(0)
	for round := uint64(0); asked < total; round++ {
		r := rand.New(rand.NewPCG(seed, 1<<32+round))
		text, model := good(t, r, golden.Accept(t, anything))
		c := compare(t, text, model)
		streams := map[string]*streams{}
		for range requestsAPolicy {
			w := request(r)
			if !sendable(w) {
				continue
			}
			asked++
			e, want := c.explained(w)
			if len(e.Undecided) > 0 {
				continue
			}
			at := w.listener + " " + w.client
			if streams[at] == nil {
				streams[at] = dial(t, c, w)
			}
			got, err := streams[at].ask(w)
			if err != nil {
				delete(streams, at) // what can't be a request ends the connection
			}
			refused := err != nil && (want == "status 400" || strings.Contains(w.host, "@")) // no answer is an answer there
			if got != want && !refused {
				t.Errorf("seed %d round %d: %+v\n  Envoy: %s %v\n  explain: %s (%s), route %v", seed, round, w, got, err, want, e.Answer.Why, e.Route)
				if c.disagreements++; c.disagreements > mostDisagreements {
					t.Fatalf("enough\n%s", text)
				}
			}
		}
		c.stop()
	}
}

// sendable tells of requests that HTTP/2 has a form for: headers of a connection it has not.
func sendable(w wire) bool {
	return !slices.ContainsFunc(w.headers, func(h Header) bool {
		return slices.Contains([]string{"connection", "upgrade", "keep-alive", "proxy-connection", "te"}, strings.ToLower(h.Name))
	})
}

// streams is a connection of HTTP/2, with one request at a time.
type streams struct {
	net.Conn
	*http2.Framer
	decode  *hpack.Decoder
	encode  *hpack.Encoder
	encoded bytes.Buffer
	next    uint32
}

func dial(t *testing.T, c *comparison, w wire) *streams {
	t.Helper()
	conn := c.dial(w)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	s := &streams{Conn: conn, Framer: http2.NewFramer(conn, conn), decode: hpack.NewDecoder(4096, nil), next: 1}
	s.AllowIllegalWrites = true
	s.encode = hpack.NewEncoder(&s.encoded)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a request. The error is that there is no answer to it.
func (s *streams) ask(w wire) (string, error) {
	s.encoded.Reset()
	fields := []Header{{":method", w.method}, {":scheme", "http"}, {":authority", w.host}, {":path", w.path}}
	for _, f := range append(fields, w.headers...) {
		if err := s.encode.WriteField(hpack.HeaderField{Name: strings.ToLower(f.Name), Value: f.Value}); err != nil {
			return "", err
		}
	}
	id := s.next
	s.next += 2
	err := s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.encoded.Bytes(), EndStream: true, EndHeaders: true})
	if err != nil {
		return "", err
	}
	answer := &http.Response{Header: http.Header{}}
	for {
		frame, err := s.ReadFrame()
		if err != nil {
			return "", err
		}
		ended := false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = s.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			err = s.read(f.HeaderBlockFragment(), answer)
			ended = f.StreamEnded()
		case *http2.DataFrame:
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame:
			if answer.StatusCode == 0 {
				err = errors.New("reset")
			}
		case *http2.GoAwayFrame:
			err = errors.New("go away")
		}
		if err != nil {
			return "", err
		}
		if ended {
			return describe(answer), nil
		}
	}
}

func (s *streams) read(block []byte, into *http.Response) error {
	fields, err := s.decode.DecodeFull(block)
	for _, f := range fields {
		if f.Name == ":status" {
			into.StatusCode, err = strconv.Atoi(f.Value)
			continue
		}
		into.Header.Add(f.Name, f.Value)
	}
	return err
}
