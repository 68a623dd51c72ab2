package xds

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// model does what Envoy does with what it is sent, as far as the order matters: it asks for the endpoints of its clusters
// and the routes of its listeners, acknowledges clusters when they are warm, takes the good part of what it rejects, and
// keeps what it has while it is disconnected. It complains of every answer after which a request could fail.
type model struct {
	t     testing.TB
	id    string
	proto Protocol

	mu      sync.Mutex // guards what follows
	has     map[string]map[string]thing
	stale   map[string]bool // clusters that wait for their endpoints to be sent again
	asked   map[string]map[string]bool
	open    map[string]map[string]bool // asked for on this stream, and not answered yet
	nonces  map[string]string
	held    []func() // acknowledgements, while muted
	muted   bool
	silent  bool   // has been muted on this stream
	waits   func() // the acknowledgement of clusters that are not warm yet
	fresh   bool   // in the state of the world: the first answer for clusters is yet to come, and cannot know what is had
	refused map[string]bool
	issued  *sync.Map // the snapshots, by the body of their label

	delta  discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	sotw   discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	cancel context.CancelFunc
	life   int
}

// thing is a resource as the model has it.
type thing struct {
	version string
	body    string
	needs   []string // the cluster of a route, the routes of a listener
}

func newModel(t testing.TB, id string, p Protocol) *model {
	m := &model{t: t, id: id, proto: p, has: map[string]map[string]thing{}, stale: map[string]bool{}, refused: map[string]bool{}}
	for _, url := range []string{cds, eds, rds, lds, ecds} {
		m.has[url] = map[string]thing{}
	}
	return m
}

// connect opens a stream and asks for what the model has, and all there is.
func (m *model) connect(p *plane) {
	m.t.Helper()
	c := p.dial(m.t)
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	m.t.Cleanup(cancel)
	m.cancel, m.life = cancel, m.life+1
	m.asked, m.open, m.nonces = map[string]map[string]bool{}, map[string]map[string]bool{}, map[string]string{}
	m.held, m.waits, m.fresh, m.silent = nil, nil, m.proto == SotW, m.muted
	clear(m.stale) // as after initial_fetch_timeout: what they wait for may be gone, and nobody has its bytes any more
	for _, url := range []string{cds, eds, rds, lds, ecds} {
		m.asked[url], m.open[url] = map[string]bool{}, map[string]bool{}
	}
	var err error
	if m.proto == Delta {
		m.delta, err = c.DeltaAggregatedResources(ctx)
	} else {
		m.sotw, err = c.StreamAggregatedResources(ctx)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	go m.read(m.life, m.delta, m.sotw)
	m.request(cds, nil, nil, true)
	m.follow(true)
	m.request(lds, nil, nil, true)
	m.narrow(ecds, map[string]bool{"revision": true}, true)
}

// leave ends the stream.
func (m *model) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancel()
	m.life++
}

// mute holds back acknowledgements, until it is called with false.
func (m *model) mute(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.muted, m.silent = yes, m.silent || yes
	if !yes {
		for _, ack := range m.held {
			ack()
		}
		m.held = nil
	}
}

func (m *model) read(life int, delta discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, sotw discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient) {
	for {
		var url, nonce string
		things, gone, whole := map[string]thing{}, []string(nil), false
		if m.proto == Delta {
			r, err := delta.Recv()
			if err != nil {
				return
			}
			url, nonce, gone = r.GetTypeUrl(), r.GetNonce(), r.GetRemovedResources()
			for _, x := range r.GetResources() {
				things[x.GetName()] = thingOf(m.t, x.GetResource(), x.GetVersion())
			}
		} else {
			r, err := sotw.Recv()
			if err != nil {
				return
			}
			url, nonce, whole = r.GetTypeUrl(), r.GetNonce(), kindOf(r.GetTypeUrl()).whole
			for _, x := range r.GetResources() {
				things[nameOf(m.t, x)] = thingOf(m.t, x, "")
			}
		}
		m.mu.Lock()
		if m.life == life {
			m.take(url, nonce, things, gone, whole)
		}
		m.mu.Unlock()
	}
}

func thingOf(t testing.TB, x *anypb.Any, version string) thing {
	m, err := x.UnmarshalNew()
	if err != nil {
		t.Error(err)
	}
	is := thing{version: version, body: string(x.GetValue())}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		is.needs = []string{m.GetAltStatName()}
	case *routev3.RouteConfiguration:
		is.needs = []string{m.GetVirtualHosts()[0].GetName()}
	case *listenerv3.Listener:
		is.needs = strings.Split(m.GetStatPrefix(), ",")
	}
	return is
}

// take applies an answer, and says so.
func (m *model) take(url, nonce string, things map[string]thing, gone []string, whole bool) {
	m.nonces[url] = nonce
	had, before := m.has[url], m.failing()
	if url == ecds && !m.open[ecds]["revision"] && !m.silent { // the change goes on without one that does not answer
		m.checkLabel(things["revision"])
	}
	var bad []string
	for name, is := range things {
		delete(m.open[url], name)
		switch {
		case url == cds && is.needs[0] == "bad":
			bad = append(bad, name)
			if _, ok := had[name]; !ok || m.fresh { // it has none, or one that nobody knows of
				m.refused[name] = true
			}
			continue
		case url == cds && had[name].body != is.body:
			m.stale[name] = true
			delete(m.refused, name)
		case url == eds:
			delete(m.stale, name)
		}
		had[name] = is
	}
	for _, name := range gone {
		delete(m.open[url], name)
		delete(had, name)
		if url == eds {
			delete(m.stale, name) // warm, with nothing
		}
	}
	if whole {
		for name := range had {
			if _, ok := things[name]; !ok && !slices.Contains(bad, name) {
				delete(had, name)
			}
		}
	}
	if testing.Verbose() {
		m.t.Logf("%s: %s +%v -%v", m.id, kindOf(url).short, slices.Sorted(maps.Keys(things)), gone)
	}
	if broken := m.failing(); url == cds && m.fresh {
		m.fresh = false
	} else {
		for _, r := range broken {
			_, to, _ := strings.Cut(r, " -> ")
			if !slices.Contains(before, r) && !m.refused[to] {
				m.t.Errorf("%s: after %s +%v -%v a request can fail: %s", m.id, kindOf(url).short, slices.Sorted(maps.Keys(things)), gone, r)
			}
		}
	}
	m.follow(false)
	m.acknowledge(url, nonce, bad)
}

// checkLabel complains of a label that comes before what it tells of.
func (m *model) checkLabel(label thing) {
	found, ok := m.issued.Load(label.body)
	if !ok {
		m.t.Errorf("%s: a label of nothing", m.id)
		return
	}
	s := found.(*Snapshot)
	for _, url := range []string{cds, rds, lds} {
		for _, e := range s.set(url).sorted {
			if m.has[url][e.Name].body != string(e.Body.GetValue()) {
				m.t.Errorf("%s: the label of %s comes before %s %s", m.id, s.revision, kindOf(url).short, e.Name)
			}
		}
	}
}

// failing lists the routes to clusters that are not there, or have no endpoints.
func (m *model) failing() (list []string) {
	for _, l := range m.has[lds] {
		for _, name := range l.needs {
			r, ok := m.has[rds][name]
			if !ok {
				continue // the listener is not warm yet
			}
			to := r.needs[0]
			_, there := m.has[cds][to]
			_, warm := m.has[eds][to]
			if !there || !warm {
				list = append(list, name+" -> "+to)
			}
		}
	}
	return list
}

// follow asks for what clusters and listeners need, and forgets what nothing needs any more.
func (m *model) follow(first bool) {
	endpoints, routes := map[string]bool{}, map[string]bool{}
	for name := range m.has[cds] {
		endpoints[name] = true
	}
	for _, l := range m.has[lds] {
		for _, name := range l.needs {
			routes[name] = true
		}
	}
	maps.DeleteFunc(m.has[eds], func(name string, _ thing) bool { return !endpoints[name] })
	maps.DeleteFunc(m.has[rds], func(name string, _ thing) bool { return !routes[name] })
	maps.DeleteFunc(m.stale, func(name string, _ bool) bool { return !endpoints[name] })
	m.narrow(eds, endpoints, first)
	m.narrow(rds, routes, first)
}

func (m *model) narrow(url string, to map[string]bool, first bool) {
	var more, less []string
	for name := range to {
		if !m.asked[url][name] {
			more = append(more, name)
		}
	}
	for name := range m.asked[url] {
		if !to[name] {
			less = append(less, name)
		}
	}
	if len(more)+len(less) == 0 {
		return
	}
	m.asked[url] = to
	for _, name := range less {
		delete(m.open[url], name)
	}
	for _, name := range more {
		if _, known := m.has[url][name]; !(first && known) {
			m.open[url][name] = true
		}
	}
	m.request(url, more, less, first)
}

// request sends names to add and drop. The first one of a type tells what the model has.
func (m *model) request(url string, more, less []string, first bool) {
	if m.proto == SotW {
		version := "" // only whether there is one is looked at
		if len(m.has[url]) > 0 {
			version = "one"
		}
		err := m.sotw.Send(&discoveryv3.DiscoveryRequest{
			Node: nodeOf(m.id, "edge"), TypeUrl: url, ResourceNames: slices.Collect(maps.Keys(m.asked[url])), ResponseNonce: m.nonces[url],
			VersionInfo: version,
		})
		if unlessEnded(err) != nil {
			m.t.Error(err)
		}
		return
	}
	r := &discoveryv3.DeltaDiscoveryRequest{Node: nodeOf(m.id, "edge"), TypeUrl: url, ResourceNamesSubscribe: more, ResourceNamesUnsubscribe: less}
	if first {
		r.InitialResourceVersions = map[string]string{}
		for name, is := range m.has[url] {
			r.InitialResourceVersions[name] = is.version
		}
	}
	if err := m.delta.Send(r); unlessEnded(err) != nil {
		m.t.Error(err)
	}
}

// acknowledge says yes or no: of clusters when they are warm.
func (m *model) acknowledge(url, nonce string, bad []string) {
	var problem *statuspb.Status
	if len(bad) > 0 {
		problem = &statuspb.Status{Code: 13, Message: "Error adding/updating cluster(s) " + strings.Join(bad, ": no good, ") + ": no good"}
	}
	say := func() {
		var err error
		if m.proto == SotW {
			err = m.sotw.Send(&discoveryv3.DiscoveryRequest{
				TypeUrl: url, ResourceNames: slices.Collect(maps.Keys(m.asked[url])), ResponseNonce: nonce, ErrorDetail: problem,
			})
		} else {
			err = m.delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: nonce, ErrorDetail: problem})
		}
		if unlessEnded(err) != nil {
			m.t.Error(err)
		}
	}
	if url == cds && len(m.stale) > 0 {
		m.waits = say
		return
	}
	if m.waits != nil && len(m.stale) == 0 {
		m.hold(m.waits)
		m.waits = nil
	}
	m.hold(say)
}

func (m *model) hold(say func()) {
	if m.muted {
		m.held = append(m.held, say)
		return
	}
	say()
}

// settled complains of what is still asked for, and of what differs from the snapshot.
func (m *model) settled(s *Snapshot) {
	m.t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for url, names := range m.open {
		for name := range names {
			m.t.Errorf("%s: %s %s was asked for and not answered", m.id, kindOf(url).short, name)
		}
	}
	for name := range m.stale {
		m.t.Errorf("%s: cluster %s still waits for its endpoints", m.id, name)
	}
	for url, had := range m.has {
		for _, e := range s.set(url).sorted {
			if is, ok := had[e.Name]; !ok || is.body != string(e.Body.GetValue()) {
				m.t.Errorf("%s: %s %s is not as published (there: %t)", m.id, kindOf(url).short, e.Name, ok)
			}
		}
		for name := range had {
			if s.set(url).get(name) == nil {
				m.t.Errorf("%s: %s %s is left over", m.id, kindOf(url).short, name)
			}
		}
	}
}
