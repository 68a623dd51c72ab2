package app

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// asks asks for the health as a client at this port.
func (h *portHealth) asks(t *testing.T, client int) string {
	t.Helper()
	ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: client}})
	r, err := h.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	must(t, err)
	return r.GetStatus().String()
}

// A port waits, before it closes, for those who ask for its health each second, no longer than it must, and for nobody else.
func TestLeaving(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		before map[int]time.Duration // how long before the stop a client asked
		after  map[int]time.Duration // how long after it
		want   time.Duration
	}{
		{"nobody asks", nil, nil, 0},
		{"who asked has gone", map[int]time.Duration{1: recently + 1}, nil, 0},
		{"one asks", map[int]time.Duration{1: 400 * time.Millisecond}, map[int]time.Duration{1: 600 * time.Millisecond}, 600*time.Millisecond + acting},
		{
			"two ask",
			map[int]time.Duration{1: time.Second, 2: 100 * time.Millisecond},
			map[int]time.Duration{1: 0, 2: 900 * time.Millisecond},
			900*time.Millisecond + acting,
		},
		{"one has just gone", map[int]time.Duration{1: time.Second, 2: time.Second}, map[int]time.Duration{1: 0}, mostTelling + acting},
		{"one comes late", map[int]time.Duration{1: time.Second}, map[int]time.Duration{1: time.Millisecond, 2: time.Second}, time.Millisecond + acting},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newPortHealth()
				stop := time.Now().Add(time.Minute)
				for client, ago := range row.before {
					go func() {
						time.Sleep(time.Until(stop.Add(-ago)))
						if got := h.asks(t, client); got != "SERVING" {
							t.Errorf("client %d, before: got %s", client, got)
						}
					}()
				}
				for client, later := range row.after {
					go func() {
						time.Sleep(time.Until(stop.Add(later)) + 1) // the stop is first
						if got := h.asks(t, client); got != "NOT_SERVING" {
							t.Errorf("client %d, after: got %s", client, got)
						}
					}()
				}
				time.Sleep(time.Until(stop))
				h.leave(t.Context())
				if got := time.Since(stop).Truncate(time.Millisecond); got != row.want.Truncate(time.Millisecond) {
					t.Errorf("left after %s, want %s", got, row.want)
				}
				time.Sleep(time.Minute) // for those who still ask
			})
		})
	}
}

// A process that fails while it takes its leave waits for nobody.
func TestLeavingIsCutShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newPortHealth()
		h.asks(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		h.leave(ctx)
		if got := time.Since(began); got != 0 {
			t.Errorf("took %s", got)
		}
	})
}

// Whoever asked at a run was one of its Envoys, which have ended by then.
func TestRunTakesNoLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newPortHealth()
		h.asks(t, 1)
		p := &process{people: true, health: []*portHealth{h}}
		began := time.Now()
		p.leave(t.Context())
		if got := time.Since(began); got != 0 {
			t.Errorf("took %s", got)
		}
	})
}

// Clients that have gone are forgotten.
func TestGoneClientsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newPortHealth()
		for client := range 100 {
			h.asks(t, client)
			time.Sleep(time.Second)
		}
		if got := len(h.asked); got > 6 {
			t.Errorf("%d clients are remembered", got)
		}
	})
}
