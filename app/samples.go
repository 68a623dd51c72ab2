package app

import (
	"context"
	"errors"
	"iter"
	"net"
	"strconv"
	"sync"

	"github.com/legation/legation/feature/sample"
	"github.com/legation/legation/policy"
)

// samples is the sample upstreams of this process, in step with the policy.
type samples struct {
	mu      sync.Mutex      // guards running
	running map[Echo]func() // ends it, and frees its port at once
	done    sync.WaitGroup
}

func newSamples() *samples { return &samples{running: map[Echo]func(){}} }

// sync starts the samples that the policy asks for and ends those that it doesn't any more. A port that is taken is an
// error; the others run all the same. The end of ctx ends them.
func (s *samples) sync(ctx context.Context, m *policy.Model) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[Echo]bool{}
	for echo := range sampled(m) {
		wanted[echo] = true
	}
	for echo, stop := range s.running { // first, since a service that was renamed keeps its address
		if !wanted[echo] {
			stop()
			delete(s.running, echo)
		}
	}
	var errs []error
	for echo, pos := range sampled(m) {
		if s.running[echo] == nil {
			errs = append(errs, s.start(ctx, echo, pos))
		}
	}
	return errors.Join(errs...)
}

// sampled is the samples that a policy asks for, and where: those of a service that has a sidecar are its app.
func sampled(m *policy.Model) iter.Seq2[Echo, policy.Pos] {
	return func(yield func(Echo, policy.Pos) bool) {
		for _, service := range m.Services {
			if set, ok := policy.Find[*sample.Sample](service.Settings); !ok || !set.Enabled() || service.Sidecar != nil {
				continue
			}
			name := service.Name
			if service.AppOf != nil {
				name = service.AppOf.Name
			}
			for _, e := range service.Endpoints {
				if !yield(Echo{Name: name, Address: net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))}, e.Pos) {
					return
				}
			}
		}
	}
}

func (s *samples) start(ctx context.Context, echo Echo, pos policy.Pos) error {
	l, err := listen("sample upstream "+echo.Name, "endpoints: in "+pos.String(), echo.Address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.running[echo] = func() {
		cancel()
		_ = l.Close()
	}
	s.done.Go(func() { _ = echo.serve(ctx, l) })
	return nil
}

// wait returns once all have ended.
func (s *samples) wait() { s.done.Wait() }
