package control

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/legation/legation/xds"
)

// Canary is an Envoy that has a policy before the others.
type Canary struct {
	Node      string    `json:"node"`
	Connected time.Time `json:"connected,omitzero"` // zero: it is not
	Since     time.Time `json:"since,omitzero"`     // when it had acknowledged all of it; zero: it has not
	Held      bool      `json:"held,omitempty"`     // for long enough
}

const (
	absentFor  = 15 * time.Second // that one may be away: it may be on its way back, or to another process
	takenIn    = time.Minute      // that it may need to take all of it, clusters that get warm included
	returnsMax = 3                // it comes back for the third time: it may have crashed as often
	lasting    = 30 * time.Second // a connection that ends later may well have come to its age
	unsettled  = 5 * time.Second  // after which one is chosen that has not even taken what the group has
	nameMax    = 2 << 10          // bytes of its node id: that of a SPIFFE ID
)

// canary is one as this process sees it.
type canary struct {
	Canary
	came    time.Time // when it connected last, though it may have left
	took    time.Time // Since, though it may have left
	seen    time.Time // when it was last connected, or began to be waited for
	behind  time.Time // since when it is connected and lacks something; zero: it does not
	here    bool      // connected to this process
	resumed bool      // it had resources when it connected last
	returns int
	refused []Reason
}

// sight is what there is to see of a canary.
type sight struct {
	connected time.Time // zero: nowhere
	resumed   bool
	took      bool
	told      *Canary // by the process that it is connected to; nil: it is this one, or one that does not serve it yet
	elsewhere bool    // connected to one that does not serve it yet
	refused   []Reason
}

func sightOf(st *stand, group, id string, nodes []xds.NodeStatus, others []tally) (s sight) {
	for _, n := range nodes {
		if n.Group != group || n.ID != id {
			continue
		}
		took := n.Staged && n.Revision == st.now.revision && acknowledged(n)
		s.took = took && (s.took || s.connected.IsZero())
		if n.Connected.After(s.connected) {
			s.connected, s.resumed = n.Connected, n.Resumed
		}
		if n.Staged {
			s.refused = append(s.refused, refusals(n, st.now.at)...)
		}
	}
	if !s.connected.IsZero() {
		return s
	}
	for _, other := range others {
		r, there := other.trial.Canaries[id]
		if k := r.canary(); there && other.trial.Core == st.now.core && k.Connected.After(s.connected) {
			s.connected, s.resumed, s.told, s.took = k.Connected, r.Resumed, k, !k.Since.IsZero()
		}
		s.elsewhere = s.elsewhere || slices.Contains(other.Candidates, id)
	}
	return s
}

// look takes what there is to see of it. Where the other processes can't be heard, one that is not here counts as there.
func (k *canary) look(s sight, hold time.Duration, deaf bool) {
	now := time.Now()
	k.here = !s.connected.IsZero() && s.told == nil
	if s.connected.IsZero() {
		k.Connected, k.Since, k.Held, k.behind = time.Time{}, time.Time{}, false, time.Time{}
		if s.elsewhere || deaf {
			k.seen = now
		}
		return
	}
	if !s.connected.Equal(k.came) {
		k.comes(s)
	}
	k.seen, k.refused = now, s.refused
	k.Connected = s.connected
	switch {
	case !s.took:
		k.Held = false
		if k.behind.IsZero() {
			k.behind = now
		}
		return
	case s.told != nil:
		k.Since, k.Held = s.told.Since, s.told.Held
	default:
		if k.Since.IsZero() {
			k.Since = now
		}
		k.Held = now.Sub(k.Since) >= hold
	}
	k.behind, k.took = time.Time{}, k.Since
}

// comes notes a new connection. Connections end by their age as well; after one that has lasted, an Envoy that goes on with
// what it had goes on holding it.
func (k *canary) comes(s sight) {
	if !k.came.IsZero() && s.resumed && k.seen.Sub(k.came) >= lasting {
		k.Since = k.took
	} else {
		if !k.came.IsZero() {
			k.returns++
		}
		k.Since, k.took, k.Held = time.Time{}, time.Time{}, false
	}
	k.came, k.resumed = s.connected, s.resumed
}

// wrong is why the stage can't go on, as far as this canary goes.
func (k *canary) wrong(origin string) []Reason {
	now, why := time.Now(), ""
	switch {
	case len(k.refused) > 0:
		return k.refused
	case k.came.IsZero():
		return nil // another is chosen
	case k.Connected.IsZero() && now.Sub(k.seen) > absentFor && k.took.IsZero():
		why = "left before it had taken it, and did not come back"
	case k.Connected.IsZero() && now.Sub(k.seen) > absentFor:
		why = fmt.Sprintf("left %s after it took it, and did not come back", max(k.seen.Sub(k.took).Round(time.Second), time.Second))
	case k.returns >= returnsMax:
		why = "came back for the third time since it got it"
	case !k.behind.IsZero() && now.Sub(k.behind) > takenIn:
		why = fmt.Sprintf("has not taken it within %s", takenIn)
	default:
		return nil
	}
	return []Reason{{Node: k.Node, Origin: origin, Error: why}}
}

// envoysOf is the node ids of the Envoys of a group that have taken what they are served, and of all.
func envoysOf(nodes []xds.NodeStatus, group string) (settled, all []string) {
	for _, n := range nodes {
		if n.Group != group || len(n.ID) > nameMax {
			continue
		}
		if all = append(all, n.ID); n.Revision != "" && acknowledged(n) {
			settled = append(settled, n.ID)
		}
	}
	slices.Sort(all)
	slices.Sort(settled)
	return slices.Compact(settled), slices.Compact(all)
}

// acknowledged tells whether an Envoy has taken all that it was sent.
func acknowledged(n xds.NodeStatus) bool {
	return !slices.ContainsFunc(n.Types, func(t xds.TypeStatus) bool { return t.State != xds.ACK })
}

// ranked sorts names by their hashes with a salt, each once.
func ranked(names []string, salt string) []string {
	rank := make(map[string][sha256.Size]byte, len(names))
	for _, name := range names {
		rank[name] = sha256.Sum256([]byte(salt + "\x00" + name))
	}
	return slices.SortedFunc(maps.Keys(rank), func(a, b string) int {
		x, y := rank[a], rank[b]
		return cmp.Or(slices.Compare(x[:], y[:]), cmp.Compare(a, b))
	})
}
