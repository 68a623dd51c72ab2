package xds

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// roster is what is known of Envoys beside what they are served: what they can do, and how those stood that have left.
type roster struct {
	mu    sync.Mutex // guards what follows
	left  map[envoyName]NodeStatus
	kinds map[uint64]talents // shared by the Envoys of one build
	needs map[needy]needs    // made when somebody asks
}

// envoyName is one Envoy, however many streams it has.
type envoyName struct{ group, id string }

// talents is the message types that an Envoy says its extensions take; nil when it says nothing of the kind.
type talents map[string]struct{}

// Bounds on what is remembered.
const (
	keepLeft    = time.Hour // of an Envoy that has left
	maxLeft     = 1_000     // Envoys that have left
	maxNodeID   = 256       // bytes of the node id of one
	maxBuilds   = 64        // kinds of Envoys whose talents are remembered
	maxTalents  = 10_000    // message types of one kind
	maxTypeName = 256       // bytes
)

func newRoster() *roster {
	return &roster{left: map[envoyName]NodeStatus{}, kinds: map[uint64]talents{}, needs: map[needy]needs{}}
}

// The fields of envoy.config.core.v3.Extension that are read.
const (
	fieldDisabled = 5
	fieldTypeURLs = 6
)

// talentsOf reads the list of extensions of a node, some 600 of them in some 60 kB, which the Envoys of one build have in
// common, if not in the same order: it is decoded for the first of them only.
func (r *roster) talentsOf(node []byte) talents {
	count, hash := 0, uint64(0)
	eachTalent(node, func(url []byte) {
		count++
		hash += maphash.Bytes(seed, url)
	})
	if count == 0 || count > maxTalents {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.kinds[hash]; ok || len(r.kinds) == maxBuilds {
		return t
	}
	t := make(talents, count)
	eachTalent(node, func(url []byte) { t[string(url)] = struct{}{} })
	r.kinds[hash] = t
	return t
}

// eachTalent visits the types that the enabled extensions of a node take. What is malformed is passed over.
func eachTalent(node []byte, visit func(url []byte)) {
	eachText(node, func(number protowire.Number, extension []byte) {
		if number != fieldNodeExtensions || disabled(extension) {
			return
		}
		eachText(extension, func(number protowire.Number, url []byte) {
			if number == fieldTypeURLs && len(url) <= maxTypeName {
				visit(url)
			}
		})
	})
}

// eachText visits the fields of a message that are texts or messages.
func eachText(b []byte, visit func(protowire.Number, []byte)) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		if b = b[n:]; kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return
			}
			visit(number, value)
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return
		}
		b = b[n:]
	}
}

func disabled(extension []byte) (off bool) {
	for b := extension; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return off
		}
		if b = b[n:]; number == fieldDisabled && kind == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(b)
			off = v != 0
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return off
		}
		b = b[n:]
	}
	return off
}

func (st *stream) name() envoyName { return envoyName{st.group.name, st.node.GetId()} }

// came forgets that an Envoy has left.
func (r *roster) came(st *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.left, st.name())
}

// leave notes how an Envoy stood when it left. Where it has a stream for each type, the last one speaks for those before.
func (r *roster) leave(st *stream) {
	last := st.status()
	last.Left = new(time.Now())
	if len(last.ID) > maxNodeID {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before, again := r.left[st.name()]
	if !again && len(r.left) == maxLeft {
		r.forgetOldest()
	}
	for _, t := range before.Types {
		if !slices.ContainsFunc(last.Types, func(o TypeStatus) bool { return o.Type == t.Type }) {
			last.Types = append(last.Types, t)
		}
	}
	slices.SortStableFunc(last.Types, func(a, b TypeStatus) int { return rankOf(a.Type) - rankOf(b.Type) })
	r.left[st.name()] = last
}

func (r *roster) forgetOldest() {
	var oldest envoyName
	var since time.Time
	for name, s := range r.left {
		if since.IsZero() || s.Left.Before(since) {
			oldest, since = name, *s.Left
		}
	}
	delete(r.left, oldest)
}

// gone lists those that have left within the hour and have not come back.
func (r *roster) gone() (list []NodeStatus) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.left, func(_ envoyName, s NodeStatus) bool { return now.Sub(*s.Left) > keepLeft })
	for _, s := range r.left {
		list = append(list, s)
	}
	return list
}
