package app

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

const (
	// recently is how long ago somebody may have asked who is expected to ask again: Envoys ask each second.
	recently = 2500 * time.Millisecond
	// mostTelling is how long those are waited for.
	mostTelling = 2500 * time.Millisecond
	// acting is how long a busy Envoy may take, from an answer that says no, until none of its threads makes a new call.
	acting = 500 * time.Millisecond
)

// portHealth is grpc.health.v1 of one port. It knows who asks again and again: such a client goes elsewhere by itself, before
// the port closes, once it was told that the process stops.
type portHealth struct {
	*health.Server

	mu      sync.Mutex           // guards what follows
	asked   map[string]time.Time // when a client asked last, by its address
	swept   time.Time            // of those that have gone
	leaving bool                 // asked is those who don't know that yet
	told    chan struct{}        // closed when there are none
}

func newPortHealth() *portHealth {
	return &portHealth{Server: health.NewServer(), asked: map[string]time.Time{}, told: make(chan struct{})}
}

// Check answers a client that asks once.
func (h *portHealth) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if p, ok := peer.FromContext(ctx); ok {
		h.note(p.Addr.String(), time.Now())
	}
	return h.Server.Check(ctx, r) // after note: who is not noted any more is told that the process stops
}

func (h *portHealth) note(client string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.leaving {
		h.asked[client] = now
		h.sweep(now)
		return
	}
	if _, ok := h.asked[client]; !ok {
		return
	}
	if delete(h.asked, client); len(h.asked) == 0 {
		close(h.told)
	}
}

// sweep forgets clients that have gone; not with each call, as there may be thousands.
func (h *portHealth) sweep(now time.Time) {
	if now.Sub(h.swept) < recently {
		return
	}
	h.swept = now
	maps.DeleteFunc(h.asked, func(_ string, at time.Time) bool { return now.Sub(at) > recently })
}

// leave says from now on that the port is not served, and gives those who asked of late the time to hear of it and to act on
// it. Where nobody has asked it returns at once.
func (h *portHealth) leave(ctx context.Context) {
	h.Shutdown()
	if !h.expects(time.Now()) {
		return
	}
	select {
	case <-h.told:
	case <-time.After(mostTelling):
	case <-ctx.Done():
	}
	select {
	case <-time.After(acting):
	case <-ctx.Done():
	}
}

// expects tells whether somebody is left to be told.
func (h *portHealth) expects(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.swept = time.Time{}
	h.sweep(now)
	h.leaving = true
	return len(h.asked) > 0
}
