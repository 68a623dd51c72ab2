package trial

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	logv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
)

// journal is what Envoys say of the requests that they have answered: each is found by the address that the client has
// connected from, which sends one request only.
type journal struct {
	logv3.UnimplementedAccessLogServiceServer

	mu      sync.Mutex // guards what follows
	entries map[string]*entry
	arrived chan struct{} // closed when there is another
}

// entry is what an Envoy says of a request, or of a connection of bytes.
type entry struct {
	*datav3.AccessLogCommon
	status  uint32
	details string // Envoy's response code details
	id      string // of the request
}

func newJournal() *journal {
	return &journal{entries: map[string]*entry{}, arrived: make(chan struct{})}
}

// StreamAccessLogs takes what an Envoy has to say, for as long as it lives.
func (j *journal) StreamAccessLogs(stream logv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(new(logv3.StreamAccessLogsResponse))
		}
		if err != nil {
			return err
		}
		j.mu.Lock()
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			j.add(&entry{
				AccessLogCommon: e.CommonProperties, status: e.GetResponse().GetResponseCode().GetValue(),
				details: e.GetResponse().GetResponseCodeDetails(), id: e.GetRequest().GetRequestId(),
			})
		}
		for _, e := range m.GetTcpLogs().GetLogEntry() {
			j.add(&entry{AccessLogCommon: e.CommonProperties})
		}
		close(j.arrived)
		j.arrived = make(chan struct{})
		j.mu.Unlock()
	}
}

func (j *journal) add(e *entry) { j.entries[hostPort(e.GetDownstreamDirectRemoteAddress())] = e }

func hostPort(a *corev3.Address) string {
	s := a.GetSocketAddress()
	return net.JoinHostPort(s.GetAddress(), strconv.Itoa(int(s.GetPortValue())))
}

// take waits for what is said of a client's request, and forgets it; nil where nothing is said in time.
func (j *journal) take(ctx context.Context, client string, wait time.Duration) *entry {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		j.mu.Lock()
		e, more := j.entries[client], j.arrived
		delete(j.entries, client)
		j.mu.Unlock()
		if e != nil {
			return e
		}
		select {
		case <-more:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
