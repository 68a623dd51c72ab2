package callout

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	rlv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// BenchmarkEmpty compares an empty method with an empty handler of grpc-go, each in a process of its own. server-ns/op is
// the server's CPU time for a call, the kernel's for it included.
func BenchmarkEmpty(b *testing.B) {
	for _, kind := range []string{"callout", "grpc"} {
		addr, cpu := startChild(b, kind)
		for _, conns := range []int{1, 4} {
			for _, flight := range []int{1, 64, 256} {
				if flight < conns {
					continue
				}
				b.Run(fmt.Sprintf("%s/conns=%d/flight=%d", kind, conns, flight), func(b *testing.B) {
					clients := make([]*pumper, conns)
					for i := range clients {
						clients[i] = newPumper(b, addr, echo)
						clients[i].pump(b, flight/conns, flight/conns) // warm
					}
					before := cpu()
					b.ResetTimer()
					var all sync.WaitGroup
					for _, c := range clients {
						all.Go(func() { c.pump(b, flight/conns, (b.N+conns-1)/conns) })
					}
					all.Wait()
					b.StopTimer()
					b.ReportMetric(float64(cpu()-before)/float64(b.N), "server-ns/op")
				})
			}
		}
	}
}

// TestMain is the benchmark's server too, when it is asked to be.
func TestMain(m *testing.M) {
	kind := os.Getenv("CALLOUT_BENCH_SERVER")
	if kind == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark ends, however it does
		stop()
	}()
	if kind == "callout" {
		err = New(Options{Methods: map[string]Method{echo: func([]*Call) {}}}).Run(ctx, l, time.Second)
	} else {
		s := grpc.NewServer()
		s.RegisterService(&grpc.ServiceDesc{
			ServiceName: "callout.Test", HandlerType: (*any)(nil),
			Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: grpcEcho}},
		}, nil)
		context.AfterFunc(ctx, s.Stop)
		err = s.Serve(l)
	}
	if err != nil {
		panic(err)
	}
}

func startChild(b *testing.B, kind string) (addr string, cpu func() time.Duration) {
	b.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "CALLOUT_BENCH_SERVER="+kind)
	child.Stderr = os.Stderr
	in, err1 := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2, child.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = child.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line), func() time.Duration { return cpuOf(b, child.Process.Pid) }
}

// cpuOf is the CPU time that a process has taken. Its clock ticks a hundred times a second.
func cpuOf(b *testing.B, pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("no /proc to read CPU times from")
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(after)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// A pumper is a client that costs next to nothing: it keeps some calls in flight, all of the same few bytes.
type pumper struct {
	net    net.Conn
	head   []byte
	stream uint32
	in     *bufio.Reader
}

func newPumper(b *testing.B, addr, path string) *pumper {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	p := &pumper{net: c, in: bufio.NewReaderSize(c, 64<<10), stream: 1}
	var block strings.Builder
	e := hpack.NewEncoder(&block)
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: path},
		{Name: ":authority", Value: "companion"},
		{Name: "te", Value: "trailers"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-timeout", Value: "9S"},
	}
	out := appendWindowUpdate(appendSettings([]byte(http2.ClientPreface)), 0, 1<<30)
	for i := range 2 {
		block.Reset()
		for _, f := range fields {
			_ = e.WriteField(f)
		}
		if i == 0 {
			out = p.append(out, []byte(block.String()))
		}
	}
	p.head = []byte(block.String())
	if _, err := c.Write(out); err != nil {
		b.Fatal(err)
	}
	if err := p.answers(1, func(int) {}); err != nil {
		b.Fatal(err)
	}
	return p
}

func (p *pumper) append(b, head []byte) []byte {
	b = appendHeaders(b, p.stream, head, false)
	b = appendFrame(b, prefix+len(message), http2.FrameData, http2.FlagDataEndStream, p.stream)
	b = append(appendPrefix(b, len(message)), message...)
	p.stream += 2
	return b
}

// message is a request of a rate limit with one descriptor.
var message, _ = proto.Marshal(&rlsv3.RateLimitRequest{
	Domain: "legation",
	Descriptors: []*rlv3.RateLimitDescriptor{{Entries: []*rlv3.RateLimitDescriptor_Entry{
		{Key: "route", Value: "quickstart"}, {Key: "user", Value: "0123456789"},
	}}},
})

// pump makes n calls, some of them at once.
func (p *pumper) pump(b *testing.B, flight, n int) {
	var out []byte
	for range min(flight, n) {
		out = p.append(out, p.head)
	}
	sent := min(flight, n)
	if _, err := p.net.Write(out); err != nil {
		b.Error(err)
	}
	err := p.answers(n, func(k int) {
		out = out[:0]
		for range min(k, n-sent) {
			out = p.append(out, p.head)
			sent++
		}
		_, _ = p.net.Write(out)
	})
	if err != nil {
		b.Error(err)
	}
}

// answers reads n answers. It tells how many came each time that there is nothing more to read.
func (p *pumper) answers(n int, came func(int)) error {
	fresh := 0
	for n > 0 {
		head, err := p.in.Peek(frameHeader)
		if err != nil {
			return err
		}
		kind, flags := http2.FrameType(head[3]), http2.Flags(head[4])
		length := int(binary.BigEndian.Uint32(head) >> 8)
		if kind == http2.FrameGoAway || kind == http2.FrameRSTStream {
			frame, _ := p.in.Peek(frameHeader + length)
			return fmt.Errorf("%v: %q", kind, frame)
		}
		if kind == http2.FramePing && !flags.Has(http2.FlagPingAck) {
			ping, err := p.in.Peek(frameHeader + length)
			if err != nil {
				return err
			}
			_, _ = p.net.Write(appendPing(nil, http2.FlagPingAck, ping[frameHeader:]))
		}
		if _, err := p.in.Discard(frameHeader + length); err != nil {
			return err
		}
		switch {
		case kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndStream):
			fresh++
			n--
		}
		if fresh > 0 && p.in.Buffered() == 0 {
			came(fresh)
			fresh = 0
		}
	}
	return nil
}

// grpcEcho is grpc-go's empty handler.
func grpcEcho(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	if err := decode(new(rlsv3.RateLimitRequest)); err != nil {
		return nil, err
	}
	return new(rlsv3.RateLimitResponse), nil
}
