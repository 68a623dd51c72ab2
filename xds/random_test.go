package xds

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// world is a policy as far as the order matters: routes to clusters, listeners to routes.
type world struct {
	clusters  map[string]string // name -> variant
	endpoints map[string]string
	routes    map[string]string // name -> cluster
	listeners map[string]string // name -> routes
	serial    int
}

func newWorld() *world {
	w := &world{clusters: map[string]string{}, endpoints: map[string]string{}, routes: map[string]string{}, listeners: map[string]string{}}
	for range 4 {
		w.add()
	}
	w.listen("l")
	return w
}

func (w *world) name(of string) string {
	w.serial++
	return fmt.Sprintf("%s%d", of, w.serial)
}

// add adds a route to a cluster of its own.
func (w *world) add() {
	c := w.name("c")
	w.clusters[c], w.endpoints[c] = "1", "1"
	w.routes[w.name("r")] = c
}

// listen has the listener lead to all routes.
func (w *world) listen(name string) {
	w.listeners = map[string]string{name: strings.Join(slices.Sorted(maps.Keys(w.routes)), ",")}
}

func (w *world) listener() string { return slices.Collect(maps.Keys(w.listeners))[0] }

// prune drops what nothing leads to.
func (w *world) prune() {
	used := map[string]bool{}
	for _, c := range w.routes {
		used[c] = true
	}
	maps.DeleteFunc(w.clusters, func(name, _ string) bool { return !used[name] })
	maps.DeleteFunc(w.endpoints, func(name, _ string) bool { return !used[name] })
}

// change is one random edit.
func (w *world) change(r *rand.Rand) {
	some := func(m map[string]string) string {
		names := slices.Sorted(maps.Keys(m))
		return names[r.IntN(len(names))]
	}
	switch r.IntN(9) {
	case 0:
		w.add()
		w.listen(w.listener())
	case 1: // a route moves to a new cluster
		c := w.name("c")
		w.clusters[c], w.endpoints[c] = "1", "1"
		w.routes[some(w.routes)] = c
	case 2: // a route moves to another's cluster
		w.routes[some(w.routes)] = some(w.clusters)
	case 3: // a cluster changes
		w.clusters[some(w.clusters)] = w.name("v")
	case 4: // endpoints change
		w.endpoints[some(w.endpoints)] = w.name("v")
	case 5: // a route is deleted
		if len(w.routes) > 1 {
			delete(w.routes, some(w.routes))
			w.listen(w.listener())
		}
	case 6: // a route is renamed
		old := some(w.routes)
		w.routes[w.name("r")] = w.routes[old]
		delete(w.routes, old)
		w.listen(w.listener())
	case 7: // the listener is renamed
		w.listen(w.name("l"))
	case 8: // everything moves
		for _, name := range slices.Sorted(maps.Keys(w.routes)) {
			c := w.name("c")
			w.clusters[c], w.endpoints[c] = "1", "1"
			w.routes[name] = c
		}
	}
	w.prune()
}

// snapshot shares with the one before what is the same.
func (w *world) snapshot(t testing.TB, revision string, before *Snapshot) *Snapshot {
	t.Helper()
	var list []Resource
	for _, name := range slices.Sorted(maps.Keys(w.clusters)) {
		c := cluster(name, w.clusters[name])
		list = append(list, c, must(NewResource(name, &endpointv3.ClusterLoadAssignment{
			ClusterName: name, NamedEndpoints: map[string]*endpointv3.Endpoint{w.endpoints[name]: {}},
		}, "", c.Version)))
	}
	for _, name := range slices.Sorted(maps.Keys(w.routes)) {
		list = append(list, route(name, w.routes[name]))
	}
	for name, routes := range w.listeners {
		list = append(list, listener(name, routes))
	}
	s, err := before.Next(revision, append(list, label(revision)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Under random sequences of changes, restarts, reconnections, rejections and slow Envoys no route ever leads to a cluster
// that is not warm, no label comes before what it tells of, every name is answered, and in the end each Envoy has what was
// published last.
func TestNoSequenceBreaksARequest(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { newTrial(t, seed).run(40) })
		})
	}
}

// trial is one such sequence.
type trial struct {
	t      *testing.T
	r      *rand.Rand
	p      *plane
	w      *world
	last   *Snapshot
	rest   *Snapshot // what the Envoys that have no stage are served; nil: last, as all
	some   []string  // the Envoys that are served last all the same
	models []*model
	issued *sync.Map // the snapshots, by the body of their label
	step   int
}

func newTrial(t *testing.T, seed uint64) *trial {
	x := &trial{t: t, r: rand.New(rand.NewPCG(seed, 1)), w: newWorld(), p: start(t, Options{}), issued: new(sync.Map)}
	for i := range 4 {
		m := newModel(t, fmt.Sprintf("e%d", i), []Protocol{Delta, SotW}[i%2])
		m.issued = x.issued
		m.connect(x.p)
		x.models = append(x.models, m)
	}
	x.publish()
	return x
}

func (x *trial) publish() {
	x.step++
	x.last = x.w.snapshot(x.t, fmt.Sprint(x.step), x.last)
	x.issued.Store(string(label(x.last.revision).Body.GetValue()), x.last)
	x.serve()
}

func (x *trial) serve() {
	if x.rest == nil {
		x.p.Publish(map[string]*Snapshot{"edge": x.last})
		return
	}
	x.p.PublishStages(map[string]*Snapshot{"edge": x.rest}, map[string]Stage{"edge": {Snapshot: x.last, Nodes: x.some}})
}

// stage has what is published go to some Envoys only from here on, or to others than before; or to all again; or has the
// others catch up with those.
func (x *trial) stage() {
	x.publish() // so that nobody is left with what is rejected
	before := x.rest
	if before == nil {
		before = x.last
	}
	switch x.r.IntN(4) {
	case 0: // promoted
		x.rest = nil
	case 1: // goes back
		x.rest, x.some = before, nil
	default:
		x.rest, x.some = before, nil
		for _, m := range x.models {
			if x.r.IntN(2) == 0 {
				x.some = append(x.some, m.id)
			}
		}
	}
	x.serve()
}

// aim is what an Envoy is served.
func (x *trial) aim(m *model) *Snapshot {
	if x.rest == nil || slices.Contains(x.some, m.id) {
		return x.last
	}
	return x.rest
}

func (x *trial) run(steps int) {
	for range steps {
		m := x.models[x.r.IntN(len(x.models))]
		switch x.r.IntN(15) {
		case 0: // reconnects at once
			m.leave()
			m.connect(x.p)
		case 1: // the control plane starts anew; Envoys are elsewhere for a while
			for _, m := range x.models {
				m.leave()
			}
			x.p.end()
			x.p = start(x.t, Options{})
			x.publish()
			for _, m := range x.models {
				m.connect(x.p)
			}
		case 2:
			m.mute(true)
		case 3:
			m.mute(false)
		case 4: // a policy that is rejected, until the next change
			name := slices.Min(slices.Collect(maps.Keys(x.w.clusters)))
			variant := x.w.clusters[name]
			x.w.clusters[name] = "bad"
			x.publish()
			x.pause()
			x.w.clusters[name] = variant
		case 5, 6, 7:
			x.stage()
		default:
			for range 1 + x.r.IntN(3) {
				x.w.change(x.r)
			}
			x.publish()
		}
		x.pause()
		if x.t.Failed() {
			return
		}
	}
	for _, m := range x.models {
		m.mute(false)
	}
	x.publish()
	time.Sleep(time.Minute)
	for _, m := range x.models {
		m.settled(x.aim(m))
	}
}

// pause lets nothing happen, or a little, or everything.
func (x *trial) pause() {
	switch x.r.IntN(4) {
	case 0:
	case 1:
		synctest.Wait()
	case 2:
		time.Sleep(time.Duration(x.r.IntN(1500)) * time.Millisecond)
	case 3:
		time.Sleep(time.Duration(x.r.IntN(12)) * time.Second)
	}
}
