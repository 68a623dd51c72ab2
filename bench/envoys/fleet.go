package envoys

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// patience is how long clients may take for anything.
const patience = 3 * time.Minute

// Fleet is Envoys that come and go together.
type Fleet struct {
	Address string
	TLS     *tls.Config // nil: plain text
	// Connected is when the last of those had its connection that came last.
	Connected time.Time

	envoys []*Envoy
	told   chan Arrival
	gone   sync.WaitGroup
}

// NewFleet has no Envoy yet.
func NewFleet(address string, c *tls.Config) *Fleet {
	return &Fleet{Address: address, TLS: c, told: make(chan Arrival, 1024)}
}

// Join has an Envoy for each script ask for one type after the other, all at once, and waits until they have all.
func (f *Fleet) Join(scripts []*Script) error {
	err := f.Open(scripts, func(e *Envoy, s *Script) func(string) { return s.join(e) })
	if err != nil {
		return err
	}
	return f.Await(scripts[0].Last())
}

// Open dials an Envoy for each script, all at once. Each does what begin says, and then, for each response, what that gave.
func (f *Fleet) Open(scripts []*Script, begin func(*Envoy, *Script) func(url string)) error {
	f.envoys = make([]*Envoy, len(scripts))
	errs := make(chan error, len(scripts))
	connected := make(chan time.Time, len(scripts))
	for i, s := range scripts {
		f.gone.Go(func() {
			e, err := dial(f.Address, s.path, f.TLS, wideWindow, f.told)
			connected <- time.Now()
			if err != nil {
				errs <- err
				return
			}
			f.envoys[i] = e
			next := begin(e, s)
			errs <- e.Flush()
			e.follow(s, next)
		})
	}
	for range scripts {
		if err := <-errs; err != nil {
			return err
		}
		if at := <-connected; at.After(f.Connected) {
			f.Connected = at
		}
	}
	return nil
}

// Marker is a secret that is asked for last, to know that all before it was dealt with. A server need not have it.
const Marker = "marker"

// Rejoin is Join of Envoys that tell what they have, by type and name.
func (f *Fleet) Rejoin(scripts []*Script, known map[string]map[string]string) error {
	asks := append(slices.Clone(scripts[0].Asks), Ask{resource.SecretType, []string{Marker}})
	var rest [][]byte
	for _, a := range asks[1:] {
		m, err := scripts[0].Request(false, a, known[a.URL])
		if err != nil {
			return err
		}
		rest = append(rest, m)
	}
	hellos := make(map[*Script][]byte, len(scripts))
	for _, s := range scripts {
		hello, err := s.Request(true, asks[0], known[asks[0].URL])
		if err != nil {
			return err
		}
		hellos[s] = hello
	}
	err := f.Open(scripts, func(e *Envoy, s *Script) func(string) {
		e.Send(hellos[s])
		for _, m := range rest {
			e.Send(m)
		}
		return func(string) {}
	})
	if err != nil {
		return err
	}
	return f.Await(resource.SecretType)
}

// Await waits until each Envoy has got a response of a type.
func (f *Fleet) Await(url string) error {
	late := time.After(patience)
	for n := 0; n < len(f.envoys); {
		select {
		case a := <-f.told:
			if a.Err != nil {
				return a.Err
			}
			if a.URL == url {
				n++
			}
		case <-late:
			return fmt.Errorf("%d of %d Envoys have got %s", n, len(f.envoys), url)
		}
	}
	return nil
}

// Stay goes on for a while, or until ctx ends. An error is that a stream has ended.
func (f *Fleet) Stay(ctx context.Context, d time.Duration) error {
	over := time.After(d)
	for {
		select {
		case a := <-f.told:
			if a.Err != nil {
				return a.Err
			}
		case <-over:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// Leave ends the connections.
func (f *Fleet) Leave() {
	for _, e := range f.envoys {
		if e != nil {
			e.Close()
		}
	}
	done := make(chan struct{})
	go func() {
		f.gone.Wait()
		close(done)
	}()
	for {
		select {
		case <-f.told:
		case <-done:
			for len(f.told) > 0 {
				<-f.told
			}
			f.envoys = nil
			return
		}
	}
}

// Stuck opens n connections that ask for everything and read nothing, with the smallest windows.
func (f *Fleet) Stuck(s *Script, n int) (all []*Envoy, err error) {
	for range n {
		e, err := dial(f.Address, s.path, f.TLS, initialWindow, nil)
		if err != nil {
			return all, err
		}
		all = append(all, e)
		for _, m := range s.first {
			e.Send(m)
		}
		if err := e.Flush(); err != nil {
			return all, err
		}
	}
	return all, nil
}

// Flood asks for a, which nobody has, as often as the windows allow, until the server ends it.
func (f *Fleet) Flood(s *Script, a Ask) error {
	told := make(chan Arrival)
	e, err := dial(f.Address, s.path, f.TLS, wideWindow, told)
	if err != nil {
		return err
	}
	defer e.Close()
	again, err := s.Request(false, a, nil)
	if err != nil {
		return err
	}
	more := func(string) {
		for len(e.queue) < mostFrame*16 {
			e.Send(again)
		}
	}
	e.Send(s.first[0])
	more("")
	if err := e.Flush(); err != nil {
		return err
	}
	go e.follow(s, more)
	for a := range told {
		if a.Err != nil {
			break // cut off
		}
	}
	return nil
}
