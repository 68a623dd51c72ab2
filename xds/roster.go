package xds

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// roster is what is known of Envoys beside what they are served: what they can do, when they last spoke, since when they
// have what they have, and how those stood that have left.
type roster struct {
	seed maphash.Seed

	mu     sync.Mutex // guards what follows
	visits map[*stream]*visit
	left   []NodeStatus       // by the time at which they left
	kinds  map[uint64]talents // shared by the Envoys of one build
	needs  map[string]needs   // by group; made when somebody asks
}

// visit is one stream.
type visit struct {
	talents talents
	seen    time.Time
	since   map[string]*history // by type URL
}

// talents is the message types that an Envoy says its extensions take; nil when it says nothing of the kind.
type talents map[string]struct{}

// Bounds on what is remembered.
const (
	keepLeft    = time.Hour // of an Envoy that has left
	maxLeft     = 1_000     // Envoys that have left
	maxNodeID   = 256       // bytes of the node id of one
	maxBuilds   = 64        // kinds of Envoys whose talents are remembered
	maxTalents  = 10_000    // message types of one kind
	maxHistory  = 64        // resources of one type and stream whose time is known by name
	maxTypeName = 256       // bytes
)

func newRoster() *roster {
	return &roster{seed: maphash.MakeSeed(), visits: map[*stream]*visit{}, kinds: map[uint64]talents{}, needs: map[string]needs{}}
}

// hear notes the node of an Envoy's first request, once it is let in.
func (st *stream) hear(n *corev3.Node) {
	if st.group == nil {
		return
	}
	r := st.server.metrics.roster
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.visits[st] != nil {
		return
	}
	r.visits[st] = &visit{talents: r.talentsOf(n), seen: time.Now(), since: map[string]*history{}}
	r.back(n.GetId(), n.GetCluster())
}

// heard notes that an Envoy has said something.
func (r *roster) heard(st *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.visits[st]; v != nil {
		v.seen = time.Now()
	}
}

// back forgets that an Envoy has left.
func (r *roster) back(id, group string) {
	r.left = slices.DeleteFunc(r.left, func(s NodeStatus) bool { return s.ID == id && s.Group == group })
}

// talentsOf reads the list of extensions, some 600 of them in some 60 kB, which the Envoys of one build have in common: it
// is decoded once for all of them. The order does not count.
func (r *roster) talentsOf(n *corev3.Node) talents {
	raw := n.ProtoReflect().GetUnknown() // see [request.readNode]
	var list [][]byte
	var key uint64
	for len(raw) > 0 {
		number, kind, size := protowire.ConsumeField(raw)
		if size < 0 {
			return nil
		}
		if number == fieldNodeExtensions && kind == protowire.BytesType {
			list = append(list, raw[:size])
			key += maphash.Bytes(r.seed, raw[:size])
		}
		raw = raw[size:]
	}
	t, known := r.kinds[key]
	if known || len(list) == 0 || len(list) > maxTalents || len(r.kinds) == maxBuilds {
		return t
	}
	t = talents{}
	for _, one := range list {
		var node corev3.Node
		if err := proto.Unmarshal(one, &node); err != nil {
			return nil
		}
		for _, url := range node.GetExtensions()[0].GetTypeUrls() {
			if !node.GetExtensions()[0].GetDisabled() && len(url) <= maxTypeName && len(t) < maxTalents {
				t[url] = struct{}{}
			}
		}
	}
	if len(t) == 0 { // of an Envoy that has no types with them
		t = nil
	}
	r.kinds[key] = t
	return t
}

// leave notes how an Envoy stood when it left.
func (r *roster) leave(st *stream) {
	now := time.Now()
	last := st.status()
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.visits[st]; v != nil {
		last.Seen = v.seen
		delete(r.visits, st)
	}
	last.Left = &now
	r.age(now)
	r.back(last.ID, last.Group) // it may have had a stream for each type
	if len(last.ID) > maxNodeID {
		return
	}
	if len(r.left) == maxLeft {
		r.left = slices.Delete(r.left, 0, 1)
	}
	r.left = append(r.left, last)
}

func (r *roster) age(now time.Time) {
	r.left = slices.DeleteFunc(r.left, func(s NodeStatus) bool { return now.Sub(*s.Left) > keepLeft })
}

// gone lists those that have left within the hour and have not come back.
func (r *roster) gone() []NodeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(time.Now())
	return slices.Clone(r.left)
}

// history is since when an Envoy has had its resources of one type. Only some times are kept by name: a stream has
// thousands of resources, and nearly all of them since the beginning.
type history struct {
	before time.Time            // of all that have no time of their own
	at     map[string]time.Time // by name
}

// had notes that what was sent is acknowledged.
func (r *roster) had(st *stream, url string, changed []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.visits[st]
	if v == nil {
		return
	}
	h := v.since[url]
	if h == nil {
		h = &history{at: map[string]time.Time{}}
		v.since[url] = h
	}
	now := time.Now()
	if len(changed) > maxHistory || h.before.IsZero() {
		h.before = now
		clear(h.at)
		return
	}
	for _, e := range changed {
		h.at[e.Name] = now
	}
	if len(h.at) <= maxHistory {
		return
	}
	var times []time.Time
	for _, at := range h.at {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	h.before = times[len(times)-maxHistory/2] // at least since then
	for name, at := range h.at {
		if !at.After(h.before) {
			delete(h.at, name)
		}
	}
}

// since is since when, at least, an Envoy has what it has of that name.
func (v *visit) had(url, name string, connected time.Time) time.Time {
	h := v.since[url]
	if h == nil {
		return connected
	}
	if at, ok := h.at[name]; ok {
		return at
	}
	return h.before
}
