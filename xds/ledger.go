package xds

import (
	"slices"
	"strings"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// rejection is what there is to tell of a NACK.
type rejection struct {
	words  string
	blamed []Blame
}

// answer notes what the Envoy says to the response with that nonce. A nonce that is not the last one's is no answer.
func (st *stream) answer(t *subscription, nonce string, problem *statuspb.Status) *rejection {
	st.server.metrics.roster.heard(st)
	if t.inflight == nil || t.nonce != nonce {
		return nil
	}
	s, now := t.inflight, time.Now()
	st.server.metrics.answered.Observe(now.Sub(t.at).Seconds())
	t.inflight, t.at = nil, now
	st.progress, st.late = t.at, false
	if !slices.ContainsFunc(st.types, func(t *subscription) bool { return t.inflight != nil }) {
		st.unacked = 0
	}
	if problem == nil {
		t.acknowledge(s)
		st.server.metrics.roster.had(st, t.url, s.changed)
		return nil
	}
	t.reject(s, strings.TrimSpace(problem.GetMessage()))
	return &rejection{t.words, t.blamed}
}

// acknowledge: what was sent now is no longer rejected; what was not sent now still is.
func (t *subscription) acknowledge(s *shipment) {
	if s.whole {
		clear(t.rejected)
	}
	delete(t.rejected, "")
	for _, e := range s.entries {
		delete(t.rejected, e.Name)
	}
	for _, name := range s.gone {
		delete(t.rejected, name)
	}
	if len(t.rejected) == 0 {
		t.acked, t.words, t.blamed = s.version, "", nil
	}
}

func (t *subscription) reject(s *shipment, words string) {
	blamed := blame(words, s)
	if s.whole { // what it repeats unchanged was accepted before
		t.rejected = nil
	}
	if t.rejected == nil {
		t.rejected = map[string]string{}
	}
	for _, e := range blamed {
		t.rejected[e.Name] = e.Version
	}
	if len(blamed) == 0 { // Envoy rejects a removal, or an empty set
		t.rejected[""] = s.version
	}
	t.words, t.blamed = words, blames(blamed)
}

// absolve forgets the rejection of what the new target does not have: the Envoy never took it.
func (t *subscription) absolve(to *set) {
	for name := range t.rejected {
		if to.get(name) != nil {
			continue // it is sent again if it has changed
		}
		delete(t.rejected, name)
		if t.protocol == SotW && name != "" {
			t.except(name, forgotten) // else it would be repeated until it is cleaned up
		}
	}
	if len(t.rejected) == 0 {
		t.words, t.blamed = "", nil
	}
}

// complain tells the operator of a rejection.
func (st *stream) complain(short string, r *rejection) {
	st.server.metrics.nacks.WithLabelValues(st.group.name, short).Inc()
	var resources, origins []string
	for _, b := range r.blamed[:min(len(r.blamed), 5)] {
		resources, origins = append(resources, b.Resource), append(origins, b.Origin)
	}
	st.server.o.Log.Warn("envoy rejected its configuration", "node", st.node.GetId(), "group", st.group.name,
		"type", short, "error", r.words, "resources", resources, "origins", slices.Compact(origins))
	if st.server.o.OnNACK != nil {
		st.server.o.OnNACK(st.status())
	}
}

// retry makes due again what was rejected long enough ago.
func (st *stream) retry(now time.Time) {
	every := st.server.o.RetryNACK
	if every == 0 {
		return
	}
	for _, t := range st.types {
		if len(t.rejected) == 0 || t.inflight != nil || now.Sub(t.at) < every {
			continue
		}
		t.at = now
		var again []string
		for name, version := range t.rejected {
			if e := st.target.set(t.url).get(name); e != nil && e.Version == version && t.wants(name) {
				again = append(again, name)
			}
		}
		t.asked = st.server.pool.union(t.asked, st.server.pool.of(again))
	}
}
