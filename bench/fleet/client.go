package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// client is one Envoy: a connection with one aggregated stream, hand-framed HTTP/2. It acknowledges all that it gets and
// looks at none of it.
type client struct {
	conn  net.Conn
	out   []byte // frames to send
	queue []byte // messages to send when the server's windows allow it
	scan  scanner
	got   []string // type URLs of the responses in the last frame
	told  chan<- arrival

	windows [2]int // bytes that may still be sent: on the connection, on the stream
	initial int    // the server's setting for the latter
}

// arrival is a response that a client has got and acknowledged.
type arrival struct {
	url string
	err error
}

// script is what all clients send, as messages with their gRPC head.
type script struct {
	settings
	path  string
	first map[string][]byte // by type URL: the first request
	names map[string][]byte // state of the world: the names in each further request
}

func newScript(s settings) (*script, error) {
	p := &script{settings: s, path: discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName, first: map[string][]byte{}, names: map[string][]byte{}}
	if s.sotw {
		p.path = discoveryv3.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName
	}
	for _, url := range s.asked() {
		var err error
		if p.first[url], err = p.request(url, namesOf(s, url), nil); err != nil {
			return nil, err
		}
		for _, name := range namesOf(s, url) {
			p.names[url] = protowire.AppendString(protowire.AppendTag(p.names[url], 3, protowire.BytesType), name)
		}
	}
	return p, nil
}

func namesOf(s settings, url string) []string {
	switch url {
	case resource.EndpointType:
		return clusterNames(s)
	case resource.RouteType:
		return tableNames(s)
	case resource.SecretType:
		return []string{marker}
	case resource.ExtensionConfigType:
		return []string{labelName}
	}
	return nil
}

// request is a first request of a type. Only clusters, which come first, carry the node.
func (p *script) request(url string, names []string, known map[string]string) ([]byte, error) {
	var node *corev3.Node
	if url == resource.ClusterType {
		node = &corev3.Node{Id: "envoy", Cluster: group, UserAgentName: "envoy"}
	}
	var m proto.Message = &discoveryv3.DeltaDiscoveryRequest{
		Node: node, TypeUrl: url, ResourceNamesSubscribe: names, InitialResourceVersions: known,
	}
	if p.sotw {
		m = &discoveryv3.DiscoveryRequest{Node: node, TypeUrl: url, ResourceNames: names}
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...), nil
}

// HTTP/2 as far as it is needed: RFC 9113.
const (
	preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHead    = 9
	mostFrame    = 16 << 10
	frameData    = 0
	frameHeaders = 1
	frameReset   = 3
	frameSetting = 4
	framePing    = 6
	frameGoAway  = 7
	frameWindow  = 8
	flagAck      = 1
	flagEnd      = 1 // of a stream
	flagHeaders  = 4

	settingWindow = 4
	initialWindow = 65535
	wideWindow    = 1<<31 - 1 // never to be asked for more
)

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// send queues a gRPC message with its head.
func (k *client) send(message []byte) { k.queue = append(k.queue, message...) }

// flush sends what there is, as far as the windows allow it.
func (k *client) flush() error {
	for {
		n := min(len(k.queue), mostFrame, k.windows[0], k.windows[1])
		if n <= 0 {
			break
		}
		k.out = appendFrame(k.out, frameData, 0, 1, k.queue[:n])
		k.queue = k.queue[n:]
		k.windows[0], k.windows[1] = k.windows[0]-n, k.windows[1]-n
	}
	if len(k.out) == 0 {
		return nil
	}
	_, err := k.conn.Write(k.out)
	k.out = k.out[:0]
	return err
}

// grow notes what the server says of its windows.
func (k *client) grow(kind byte, stream uint32, payload []byte) {
	if kind == frameWindow && len(payload) == 4 {
		k.windows[min(stream, 1)] += int(binary.BigEndian.Uint32(payload))
	}
	for ; kind == frameSetting && len(payload) >= 6; payload = payload[6:] {
		if binary.BigEndian.Uint16(payload) == settingWindow {
			now := int(binary.BigEndian.Uint32(payload[2:]))
			k.windows[1], k.initial = k.windows[1]+now-k.initial, now
		}
	}
}

// dial opens the connection and its stream. What it sends goes out with the first messages.
func dial(address, path string, c *tls.Config, window uint32, told chan<- arrival) (*client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if c != nil {
		conn = tls.Client(conn, c)
	}
	k := &client{conn: conn, told: told, windows: [2]int{initialWindow, initialWindow}, initial: initialWindow}
	k.out = append(k.out, preface...)
	k.out = appendFrame(k.out, frameSetting, 0, 0, binary.BigEndian.AppendUint32([]byte{0, settingWindow}, window))
	if window > initialWindow {
		k.out = appendFrame(k.out, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, window-initialWindow))
	}
	header := []byte{0x83, 0x86} // POST, http
	for _, h := range []struct{ prefix, value string }{
		{"\x04", path},
		{"\x01", group},
		{"\x0f\x10", "application/grpc"}, // content-type
		{"\x00\x02te", "trailers"},
	} {
		header = append(append(append(header, h.prefix...), byte(len(h.value))), h.value...)
	}
	k.out = appendFrame(k.out, frameHeaders, flagHeaders, 1, header)
	return k, nil
}

// follow answers what comes until the connection ends; next is called for each response and may add messages to send.
func (k *client) follow(p *script, next func(url string)) {
	r := bufio.NewReaderSize(k.conn, 2<<10)
	var left int // of the gRPC message
	var head []byte
	err := k.frames(r, func(b []byte) {
		for len(b) > 0 {
			if left == 0 {
				n := min(5-len(head), len(b))
				head, b = append(head, b[:n]...), b[n:]
				if len(head) < 5 {
					return
				}
				left, head = int(binary.BigEndian.Uint32(head[1:])), head[:0]
				k.scan = scanner{head: k.scan.head[:0], keep: k.scan.keep[:0]}
				continue
			}
			n := min(left, len(b))
			k.scan.take(b[:n])
			left, b = left-n, b[n:]
			if left == 0 {
				k.got = append(k.got, k.scan.url)
				k.acknowledge(p)
				next(k.scan.url)
			}
		}
	})
	k.told <- arrival{err: err}
}

// frames hands the data to take, sends what is to be sent after each frame, and tells how the stream ended.
func (k *client) frames(r *bufio.Reader, take func([]byte)) error {
	payload := make([]byte, mostFrame)
	for {
		var head [frameHead]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if n > len(payload) {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(r, payload[:n]); err != nil {
			return err
		}
		switch kind, flags := head[3], head[4]; {
		case kind == frameData:
			take(payload[:n])
		case kind == frameHeaders && flags&flagEnd != 0, kind == frameReset, kind == frameGoAway:
			return errors.New("the server has ended the stream")
		case kind == frameWindow:
			k.grow(kind, binary.BigEndian.Uint32(head[5:]), payload[:n])
		case kind == frameSetting && flags&flagAck == 0:
			k.grow(kind, 0, payload[:n])
			k.out = appendFrame(k.out, frameSetting, flagAck, 0, nil)
		case kind == framePing && flags&flagAck == 0:
			k.out = appendFrame(k.out, framePing, flagAck, 0, payload[:n])
		}
		if err := k.flush(); err != nil {
			return err
		}
		for _, url := range k.got {
			k.told <- arrival{url: url}
		}
		k.got = k.got[:0]
	}
}

// acknowledge adds the ACK of the response that was read last.
func (k *client) acknowledge(p *script) {
	var b []byte
	text := func(field protowire.Number, s string) {
		b = protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
	}
	if p.sotw {
		text(1, k.scan.version)
		b = append(b, p.names[k.scan.url]...)
		text(4, k.scan.url)
		text(5, k.scan.nonce)
	} else {
		text(2, k.scan.url)
		text(6, k.scan.nonce)
	}
	k.send(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
}
