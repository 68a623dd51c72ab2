package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/legation/legation/bench/envoys"
	"github.com/legation/legation/bench/rig"
)

// The world that herds ask for: a table of ten routes for each host.
const (
	worldServices = 1000
	worldHosts    = 1000
	worldRoutes   = 10 // of a host
	hostsOfFile   = 2
)

// world is the files of a policy, whose first route tells a number.
func world(n int) map[string][]byte {
	var b strings.Builder
	b.WriteString("gateways: {edge: {listeners: {http: {port: 10000, address: 127.0.0.1, routeTables: perHost}}}}\nservices:\n")
	for i := range worldServices {
		fmt.Fprintf(&b, "  service-%d: {endpoints: [\"10.0.0.1:8080\", \"10.0.0.2:8080\"]}\n", i)
	}
	files := map[string][]byte{"services.yaml": []byte(b.String())}
	for first := 0; first < worldHosts; first += hostsOfFile {
		files[fmt.Sprintf("hosts-%04d.yaml", first)] = hosts(first, n)
	}
	return files
}

// hosts is a file of some hosts.
func hosts(first, n int) []byte {
	b := []byte("routes:\n")
	for h := first; h < first+hostsOfFile; h++ {
		for r := range worldRoutes {
			path := fmt.Sprintf("/api/v1/thing-%d", r)
			if r == 0 {
				path = fmt.Sprintf("/api/v1/change-%d", n)
			}
			b = fmt.Appendf(b, "  r%d-%d: {hostnames: [host-%d.example.com], match: {path: %s}, backends: {service-%d: 1}}\n",
				h, r, h, path, (h*worldRoutes+r)%worldServices)
		}
	}
	return b
}

// served is a process with the world, and who asks for it.
type served struct {
	*trial
	plane  *rig.Plane
	config *tls.Config // nil: plain text
	script *envoys.Script
	head   int64
}

const (
	herdSize   = 1000
	herdTime   = 3 * time.Second
	herdMemory = 200 << 20
	backWithin = time.Minute
)

// newServed serves the world. The node of its Envoys is that of a real one, all 61 kB of it.
func newServed(t *trial, secure bool) (s *served, err error) {
	s = &served{trial: t}
	var server, client []string
	if secure {
		if server, client, s.config, err = t.certificates("edge"); err != nil {
			return nil, err
		}
	}
	if s.plane, err = t.rig.Plane(server...); err != nil {
		return nil, err
	}
	if err := s.plane.Start(t.ctx); err != nil {
		return nil, err
	}
	node, err := t.node(s.plane, client)
	if err != nil {
		return nil, err
	}
	if s.head, err = s.plane.Push(t.ctx, world(0), 0); err != nil {
		return nil, err
	}
	first, err := envoys.NewScript(node, false, nil)
	if err != nil {
		return nil, err
	}
	asks, err := s.fleet().Follow(t.ctx, first)
	if err != nil {
		return nil, err
	}
	s.script, err = envoys.NewScript(node, false, asks)
	return s, err
}

func (s *served) fleet() *envoys.Fleet { return envoys.NewFleet(s.plane.XDS, s.config) }

// node is that of a real Envoy, which has no policy yet.
func (t *trial) node(p *rig.Plane, flags []string) (*corev3.Node, error) {
	g, err := t.rig.Gateway(t.ctx, "edge", "real", []*rig.Plane{p}, flags...)
	if err != nil {
		return nil, err
	}
	defer g.Kill()
	var info struct{ Node json.RawMessage }
	err = rig.Until(t.ctx, time.Minute, "Envoy's admin interface", func() error {
		text, err := g.Get("/server_info")
		if err == nil {
			err = json.Unmarshal([]byte(text), &info)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	node := new(corev3.Node)
	err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(info.Node, node)
	return node, err
}

// herd is a script for each of n Envoys.
func (s *served) herd(n int) (all []*envoys.Script, err error) {
	for i := range n {
		one, err := s.script.As(fmt.Sprintf("envoy-%d", i))
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// C8.
func herd(t *trial) error {
	for _, secure := range []bool{false, true} {
		if err := herdWith(t, secure); err != nil {
			return err
		}
	}
	return nil
}

func herdWith(t *trial, secure bool) error {
	s, err := newServed(t, secure)
	if err != nil {
		return err
	}
	defer s.plane.Kill()
	over, hold := "in plain text", t.hold
	if secure { // on top come a thousand handshakes at both ends: told, and not held
		over, hold = "over mutual TLS", func(_ bool, format string, args ...any) { t.say(format, args...) }
	}
	all, err := s.herd(herdSize)
	if err != nil {
		return err
	}
	f := s.fleet()
	if err := f.Join(all[:1]); err != nil { // so that the code that serves is in memory
		return err
	}
	f.Leave()
	known, err := f.Learn(t.ctx, s.script)
	if err != nil {
		return err
	}
	before, err := s.rest()
	if err != nil {
		return err
	}
	for _, row := range []struct {
		name string
		join func() error
	}{
		{"that have nothing", func() error { return f.Join(all) }},
		{"that tell what they have", func() error { return f.Rejoin(all, known) }},
	} {
		if err := clearPeak(s.plane.PID); err != nil {
			return err
		}
		worked, err := rig.CPU(s.plane.PID)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := row.join(); err != nil {
			return err
		}
		took := time.Since(began)
		now, err := rig.CPU(s.plane.PID)
		if err != nil {
			return err
		}
		hold(took <= herdTime, "%d Envoys %s, %s: connected within %.0f ms, all in sync after %.2f s, at most %.0f; the process worked for %.2f s of it",
			herdSize, row.name, over, millis(f.Connected.Sub(began)), took.Seconds(), herdTime.Seconds(), (now - worked).Seconds())
		most, err := rig.PeakRSS(s.plane.PID)
		if err != nil {
			return err
		}
		hold(most <= herdMemory, "RSS %d MiB at most, at most %d", most>>20, herdMemory>>20)
		f.Leave()
		if err := s.holdBack(before); err != nil {
			return err
		}
	}
	return nil
}

// holdBack holds that the process gives back what the Envoys took that have left.
func (s *served) holdBack(before uint64) error {
	back := before + before/10
	began := time.Now()
	err := rig.Until(s.ctx, backWithin, "the memory to be given back", func() error {
		if now, err := rig.RSS(s.plane.PID); err != nil || now > back {
			return fmt.Errorf("%d MiB (%v)", now>>20, err)
		}
		return nil
	})
	now, _ := rig.RSS(s.plane.PID)
	s.hold(err == nil, "RSS %.2f × the %d MiB of before, %.0f s after they left, at most 1.1", float64(now)/float64(before), before>>20, time.Since(began).Seconds())
	return s.ctx.Err()
}

// rest waits until the process has done nothing for a while, and has given back what it has no use for, and gives its RSS. What
// it does at rest takes far less than a tenth of a processor.
func (s *served) rest() (uint64, error) {
	last, err := rig.CPU(s.plane.PID)
	for quiet := 0; err == nil && quiet < 35; {
		if err := s.sleep(200 * time.Millisecond); err != nil {
			return 0, err
		}
		var now time.Duration
		if now, err = rig.CPU(s.plane.PID); now-last < 10*time.Millisecond {
			quiet++
		} else {
			quiet = 0
		}
		last = now
	}
	if err != nil {
		return 0, err
	}
	return rig.RSS(s.plane.PID)
}

// clearPeak has the kernel forget the most that a process took.
func clearPeak(pid int) error {
	return os.WriteFile("/proc/"+strconv.Itoa(pid)+"/clear_refs", []byte("5"), 0)
}

const (
	goodEnvoys  = 100
	stuckEnvoys = 200
	floods      = 10
	goodPushes  = 200
	stuckMemory = 1 << 20 // each
)

// C9.
func unruly(t *trial) error {
	for _, secure := range []bool{false, true} {
		if err := unrulyWith(t, secure); err != nil {
			return err
		}
	}
	return nil
}

func unrulyWith(t *trial, secure bool) error {
	s, err := newServed(t, secure)
	if err != nil {
		return err
	}
	defer s.plane.Kill()
	over := "in plain text"
	if secure {
		over = "over mutual TLS"
	}
	all, err := s.herd(goodEnvoys)
	if err != nil {
		return err
	}
	good := s.fleet()
	if err := good.Join(all); err != nil {
		return err
	}
	defer good.Leave()
	alone, err := s.pushes(good)
	if err != nil {
		return err
	}
	before, err := s.rest()
	if err != nil {
		return err
	}
	bad := s.fleet()
	stuck, err := bad.Stuck(s.script, stuckEnvoys)
	defer func() {
		for _, e := range stuck {
			e.Close()
		}
	}()
	if err != nil {
		return err
	}
	if _, err := s.rest(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	var cut atomic.Int64
	ended := make(chan error, floods)
	for range floods {
		go func() { ended <- s.flood(ctx, bad, &cut) }()
	}
	beside, err := s.pushes(good)
	if err != nil {
		return err
	}
	during, err := rig.RSS(s.plane.PID)
	if err != nil {
		return err
	}
	cancel()
	for range floods {
		if err := <-ended; err != nil {
			return err
		}
	}
	t.hold(beside[99] <= 2*alone[99], "%d Envoys beside %d that read nothing and %d that flood, %s: from a push until all have it p99 %.0f ms, median %.0f; alone p99 %.0f, median %.0f; at most 2 ×",
		goodEnvoys, stuckEnvoys, floods, over, millis(beside[99]), millis(beside[50]), millis(alone[99]), millis(alone[50]))
	each := (int64(during) - int64(before)) / stuckEnvoys
	t.hold(each <= stuckMemory, "each that reads nothing takes %d KiB, at most %d", each>>10, stuckMemory>>10)
	counted, err := s.plane.Metric("legation_xds_floods_total")
	if err != nil {
		return err
	}
	t.hold(cut.Load() >= floods && int64(counted) == cut.Load(), "%d floods were begun, and %.0f cut off", cut.Load(), counted)
	return nil
}

// flood floods until it is cut off, and again a second later.
func (s *served) flood(ctx context.Context, f *envoys.Fleet, cut *atomic.Int64) error {
	for ctx.Err() == nil {
		if err := f.Flood(s.script, envoys.Ask{URL: resource.RouteType, Names: []string{"no-such-table"}}); err != nil {
			return err
		}
		cut.Add(1)
		pause(ctx, time.Second)
	}
	return nil
}

// pushes pushes a change of one route again and again, and gives the percentiles of the time until all Envoys have it.
func (s *served) pushes(f *envoys.Fleet) (percentiles [100]time.Duration, err error) {
	files := world(0)
	var times []time.Duration
	for n := range goodPushes {
		files["hosts-0000.yaml"] = hosts(0, int(s.head)+n)
		began := time.Now()
		if s.head, err = s.plane.Push(s.ctx, files, s.head); err != nil {
			return percentiles, err
		}
		if err := f.Await(resource.RouteType); err != nil {
			return percentiles, err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	for p := range percentiles {
		percentiles[p] = times[len(times)*p/100]
	}
	return percentiles, nil
}
