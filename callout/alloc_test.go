package callout

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/http2"
)

// Calls cost no memory once a connection is warm.
func TestCallsAllocateNothing(t *testing.T) {
	w := newWire(t, nil)
	first, then := w.encode(fieldsFor(echo, "grpc-timeout", "20m")), w.encode(fieldsFor(echo, "grpc-timeout", "20m"))
	greeting := appendSettings(nil, window(1<<30))
	greeting = appendWindowUpdate(greeting, 0, 1<<30)
	greeting = appendHeaders(greeting, 1, first, false)
	greeting = appendFrame(greeting, prefix, http2.FrameData, http2.FlagDataEndStream, 1)
	client := &script{in: [][]byte{append(greeting, framed("")...)}}
	c := newConn(scripted(), client, client, nil, nil)

	var turn []byte
	var ids []int // where stream ids stand in turn
	for range 64 {
		ids = append(ids, len(turn)+5)
		turn = appendHeaders(turn, 0, then, false)
		ids = append(ids, len(turn)+5)
		turn = appendFrame(turn, prefix+7, http2.FrameData, http2.FlagDataEndStream, 0)
		turn = append(turn, framed("message")...)
	}
	id := uint32(3)
	step := func() {
		if err := c.fill(); err != nil {
			t.Fatal(err)
		}
		if err := c.turn(); err != nil {
			t.Fatal(err)
		}
		client.out.Reset()
	}
	step()
	pieces := make([][]byte, 1)
	got := testing.AllocsPerRun(100, func() {
		for i, at := range ids {
			binary.BigEndian.PutUint32(turn[at:], id)
			id += 2 * uint32(i%2)
		}
		pieces[0] = turn
		client.in = pieces
		for len(client.in) > 0 {
			step()
		}
	})
	if got != 0 {
		t.Errorf("%v allocations for 64 calls", got)
	}
}
