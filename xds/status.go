package xds

import (
	"slices"
	"strings"
	"time"
)

// NodeStatus is one connected Envoy.
type NodeStatus struct {
	ID        string    `json:"id"`    // node.id
	Group     string    `json:"group"` // node.cluster
	Version   string    `json:"version,omitempty"`
	Address   string    `json:"address"`
	Protocol  Protocol  `json:"protocol"`
	Connected time.Time `json:"connected"`
	// Held is an Envoy whose group is served nothing: there is no policy yet, or it has no such group. What the Envoy had
	// stays.
	Held bool `json:"held,omitempty"`
	// Staged is an Envoy that is brought to what is staged, rather than to what its group is served.
	Staged bool `json:"staged,omitempty"`
	// Resumed is an Envoy that had something already when it connected: it did not start anew.
	Resumed bool `json:"-"`

	// Seen is when it last said something.
	Seen time.Time `json:"seen,omitzero"`
	// Left is when it went; nil while it is connected. The rest is how it stood then.
	Left *time.Time `json:"left,omitempty"`
	// Lacks is what of the policy this Envoy can't do, as far as it tells.
	Lacks []Lack `json:"lacks,omitempty"`

	// Revision is the last one of which all types were acknowledged; "" until then.
	Revision string       `json:"revision"`
	Types    []TypeStatus `json:"types"` // by the order in which they are sent
}

// TypeStatus is what an Envoy has of one resource type. Secrets have no versions here: those are hashes of what they
// hold.
type TypeStatus struct {
	Type         string     `json:"type"` // short: "cluster", "listener"
	Sent         string     `json:"sent,omitempty"`
	Acknowledged string     `json:"acknowledged,omitempty"`
	State        TypeState  `json:"state"`
	Time         *time.Time `json:"time,omitempty"` // of the last change of state
	Error        string     `json:"error,omitempty"`
	Blamed       []Blame    `json:"blamed,omitempty"`

	Resources []ResourceStatus `json:"resources,omitempty"` // by name, where they are asked for
}

// Blame is a resource that an Envoy's rejection is about.
type Blame struct {
	Resource string `json:"resource"`
	Origin   string `json:"origin"`
}

// TypeState is the state of a resource type on a stream.
type TypeState string

// ACK: the Envoy has what it is to have. Sent: it has not answered yet. Waiting: something is still to be sent.
const (
	ACK     TypeState = "ACK"
	NACK    TypeState = "NACK"
	Sent    TypeState = "sent"
	Waiting TypeState = "waiting"
)

// Protocol is the variant of xDS that a stream speaks.
type Protocol string

// The two variants.
const (
	SotW  Protocol = "sotw"
	Delta Protocol = "delta"
)

func (st *stream) status() NodeStatus {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := NodeStatus{
		ID:        st.node.GetId(),
		Group:     st.group.name,
		Version:   st.version,
		Address:   st.address,
		Protocol:  st.protocol,
		Connected: st.opened,
		Seen:      time.Unix(0, st.seen.Load()),
		Held:      st.group.served.Load() == nil,
		Staged:    st.group.staged(st.target),
		Resumed:   st.resumed,
		Revision:  st.revision,
		Types:     make([]TypeStatus, 0, len(st.types)),
	}
	for _, t := range st.types {
		n.Types = append(n.Types, t.status())
	}
	return n
}

// settled tells whether the Envoy has acknowledged all that there is for it, and is watched by nobody for whether it holds.
func (st *stream) settled() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return !st.group.staged(st.target) && len(st.types) > 0 && !slices.ContainsFunc(st.types, func(t *subscription) bool { return t.state() != ACK })
}

func (t *subscription) status() TypeStatus {
	s := TypeStatus{Type: t.kind.short, State: t.state()}
	if !t.kind.secret {
		s.Sent, s.Acknowledged = t.sent, t.acked
	}
	if !t.at.IsZero() {
		s.Time = new(t.at)
	}
	if s.State == NACK {
		s.Error = t.words
		s.Blamed = slices.Clone(t.blamed)
	}
	return s
}

func (t *subscription) state() TypeState {
	switch {
	case t.inflight != nil:
		return Sent
	case len(t.rejected) > 0:
		return NACK
	case t.answered && t.settled:
		return ACK
	default:
		return Waiting
	}
}

// maxBlamed bounds the list of a rejection that names no resource.
const maxBlamed = 50

// blame finds the resources that Envoy's words are about: those that it names, else all that were new to it.
func blame(words string, s *shipment) []*entry {
	var named []*entry
	for _, e := range s.entries {
		if mentions(words, e.Name) {
			named = append(named, e)
		}
	}
	if len(named) > 0 {
		return named
	}
	return s.changed
}

func blames(entries []*entry) []Blame {
	var list []Blame
	for _, e := range entries[:min(len(entries), maxBlamed)] {
		list = append(list, Blame{Resource: e.Name, Origin: e.Origin})
	}
	return list
}

// mentions is whether the text has the name as a word of its own: "orders" isn't in "orders-v2" or "orders/v2", but it
// is in "cluster(s) orders: bad".
func mentions(text, name string) bool {
	for from := 0; ; {
		at := strings.Index(text[from:], name)
		if at < 0 {
			return false
		}
		at += from
		if !endsInWord(text[:at]) && !startsWithWord(text[at+len(name):]) {
			return true
		}
		from = at + 1
	}
}

const glue = "_-./:" // stand within names

func endsInWord(s string) bool {
	return s != "" && (isWord(s[len(s)-1]) || strings.IndexByte("_-./", s[len(s)-1]) >= 0)
}

func startsWithWord(s string) bool {
	if s == "" {
		return false
	}
	if strings.IndexByte(glue, s[0]) >= 0 {
		return s[0] == '_' || s[0] == '-' || len(s) > 1 && isWord(s[1])
	}
	return isWord(s[0])
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
