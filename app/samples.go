package app

import (
	"context"
	"net"
	"strconv"
	"sync"

	"github.com/legation/legation/feature/sample"
	"github.com/legation/legation/policy"
)

// samples is the sample upstreams of this process, in step with the policy.
type samples struct {
	mu      sync.Mutex                    // guards running
	running map[string]context.CancelFunc // by name and address
	done    sync.WaitGroup
}

func newSamples() *samples { return &samples{running: map[string]context.CancelFunc{}} }

// sync starts the samples that the policy asks for and ends those that it doesn't any more. A port that is taken is an
// error; the others run all the same. The end of ctx ends them.
func (s *samples) sync(ctx context.Context, m *policy.Model) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]bool{}
	var failed error
	for _, service := range m.Services {
		if set, ok := policy.Find[*sample.Sample](service.Settings); !ok || !set.Enabled() {
			continue
		}
		for _, e := range service.Endpoints {
			echo := Echo{Name: service.Name, Address: net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))}
			wanted[echo.Name+" "+echo.Address] = true
			if err := s.start(ctx, echo, e.Pos); err != nil {
				failed = err
			}
		}
	}
	for key, stop := range s.running {
		if !wanted[key] {
			stop()
			delete(s.running, key)
		}
	}
	return failed
}

func (s *samples) start(ctx context.Context, echo Echo, pos policy.Pos) error {
	key := echo.Name + " " + echo.Address
	if s.running[key] != nil {
		return nil
	}
	l, err := listen("sample upstream "+echo.Name, "endpoints: in "+pos.String(), echo.Address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.running[key] = cancel
	s.done.Go(func() { _ = echo.serve(ctx, l) })
	return nil
}

// wait returns once all have ended.
func (s *samples) wait() { s.done.Wait() }
