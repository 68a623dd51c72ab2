package xds

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// rejection is what there is to tell of a NACK.
type rejection struct {
	words  string
	blamed []Blame
}

// answer notes what the Envoy says to the response with that nonce. A nonce that is not the last one's is no answer.
func (st *stream) answer(t *subscription, nonce string, problem *statuspb.Status) *rejection {
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
		return nil
	}
	t.reject(s, strings.TrimSpace(problem.GetMessage()))
	told := &rejection{t.words, t.blamed}
	t.absolve(st.target.set(t.url)) // which may have changed meanwhile
	return told
}

// acknowledge: what was sent now is no longer rejected; what was not sent now still is.
func (t *subscription) acknowledge(s *shipment) {
	t.accept(s)
	if len(t.rejected) == 0 {
		t.acked, t.words, t.blamed = s.version, "", nil
	}
}

// accept forgets the rejections of what was sent.
func (t *subscription) accept(s *shipment) {
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
}

// refusal is a resource that the Envoy has rejected.
type refusal struct {
	version string // of which it wants nothing
	had     *entry // which it has still; nil if it had none
}

// reject: what is not blamed was taken, or had been before.
func (t *subscription) reject(s *shipment, words string) {
	blamed, refused := blame(words, s), map[string]refusal{}
	for _, e := range blamed {
		had := s.had(e.Name)
		if r, again := t.rejected[e.Name]; again {
			had = r.had
		}
		refused[e.Name] = refusal{e.Version, had}
	}
	if len(blamed) == 0 { // Envoy rejects a removal, or an empty set
		refused[""] = refusal{version: s.version}
	}
	t.accept(s)
	maps.Copy(refused, t.rejected)
	t.rejected = refused
	t.words, t.blamed = legible(words), blames(blamed)
}

// overtake notes that another response is sent behind the one in flight, whose answer will not count. What that one has
// instead of something rejected is taken for accepted, as all that is not answered in time. An answer that is whole repeats
// it, so there it is only what the Envoy may have, and requests may go to.
func (t *subscription) overtake() {
	if t.inflight == nil || len(t.rejected) == 0 {
		return
	}
	for _, e := range t.inflight.changed {
		switch r, ok := t.rejected[e.Name]; {
		case !ok || r.version == e.Version:
		case t.inflight.whole:
			t.rejected[e.Name] = refusal{r.version, e}
		default:
			delete(t.rejected, e.Name)
		}
	}
	if len(t.rejected) == 0 {
		t.words, t.blamed = "", nil
	}
}

// maxWords bounds what is kept of Envoy's words, in bytes: of a thousand clusters at once it has something to say to each.
const maxWords = 2 << 10

// legible makes of an Envoy's words one line that can be shown on a terminal, and passed on.
func legible(words string) string {
	cut := words[:min(len(words), maxWords)]
	line := strings.Map(func(c rune) rune {
		if unshown(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(cut, ""))
	if len(cut) < len(words) {
		return line + " …"
	}
	return line
}

// unshown tells whether a character moves the cursor of a terminal, or turns the order around.
func unshown(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) }

// absolve forgets the rejection of what the new target does not have: the Envoy never took it. With deltas it counts as
// something that no target has, so that it is taken away with what is left over, and sent should it come back.
func (t *subscription) absolve(to *set) {
	for name, r := range t.rejected {
		if to.get(name) != nil {
			continue // it is sent again if it has changed
		}
		delete(t.rejected, name)
		switch has := t.has(name); {
		case name == "":
		case has == nil || has.Version != r.version: // something else was sent since
		case t.protocol == Delta:
			t.except(name, &entry{Resource: Resource{Type: t.url, Name: name}})
		case r.had != nil:
			t.except(name, r.had) // which it keeps until it is cleaned up
		default:
			t.except(name, forgotten)
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
		for name, r := range t.rejected {
			if e := st.target.set(t.url).get(name); e != nil && e.Version == r.version && t.wants(name) {
				again = append(again, name)
			}
		}
		t.asked = st.server.pool.union(t.asked, st.server.pool.of(again))
	}
}
