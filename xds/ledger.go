package xds

import (
	"context"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// OnStreamResponse notes the nonce of what is being sent.
func (st *stream) OnStreamResponse(_ context.Context, _ int64, _ *discoveryv3.DiscoveryRequest, r *discoveryv3.DiscoveryResponse) {
	st.dispatch(r.GetTypeUrl(), r.GetNonce())
}

// OnStreamDeltaResponse notes the nonce of what is being sent.
func (st *stream) OnStreamDeltaResponse(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
	st.dispatch(r.GetTypeUrl(), r.GetNonce())
}

func (st *stream) dispatch(url, nonce string) {
	st.server.metrics.responses.WithLabelValues(st.group.name, kindOf(url).short).Inc()
	st.mu.Lock()
	defer st.mu.Unlock()
	if t := st.find(url); t != nil && t.inflight != nil {
		t.inflight.nonce = nonce
	}
}

// answer notes what the Envoy says to the response with that nonce. A nonce that is not the last one's is no answer.
func (st *stream) answer(url, nonce string, problem *statuspb.Status) {
	st.mu.Lock()
	t := st.find(url)
	if nonce == "" || t == nil || t.inflight == nil || t.inflight.nonce != nonce {
		st.mu.Unlock()
		return
	}
	s := t.inflight
	t.inflight, t.at = nil, time.Now()
	st.progress, st.late = t.at, false
	if problem == nil {
		t.acknowledge(s)
		st.server.metrics.roster.had(st, url, s.changed)
	} else {
		t.reject(s, strings.TrimSpace(problem.GetMessage()))
	}
	words, blamed := t.words, t.blamed
	st.mu.Unlock()
	if problem != nil {
		st.complain(t.kind.short, words, blamed)
	}
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
		if to.byName[name] != nil {
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
func (st *stream) complain(short, words string, blamed []Blame) {
	st.server.metrics.nacks.WithLabelValues(st.group.name, short).Inc()
	var resources, origins []string
	for _, b := range blamed[:min(len(blamed), 5)] {
		resources, origins = append(resources, b.Resource), append(origins, b.Origin)
	}
	st.server.o.Log.Warn("envoy rejected its configuration", "node", st.node.GetId(), "group", st.group.name,
		"type", short, "error", words, "resources", resources, "origins", slices.Compact(origins))
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
		if len(t.rejected) == 0 || t.inflight != nil || t.queued || now.Sub(t.at) < every {
			continue
		}
		t.at = now
		for name, version := range t.rejected {
			if e := st.target.set(t.url).byName[name]; e != nil && e.Version == version {
				t.except(name, nil)
			}
		}
	}
}
