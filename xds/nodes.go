package xds

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// ResourceStatus is what an Envoy has of one resource. A secret has no versions here.
type ResourceStatus struct {
	Name string `json:"name"`
	// State is [ACK], [NACK], [Sent] or [Waiting], as of its type; or [Absent].
	State        TypeState `json:"state"`
	Sent         string    `json:"sent,omitempty"`         // the version that it was sent last, or said to have
	Acknowledged string    `json:"acknowledged,omitempty"` // of one that it rejects: the version that it keeps
	// Since is when it rejected what it was sent; or when what it has was made, or it connected, if that is later.
	Since *time.Time `json:"since,omitempty"`

	Origin string `json:"origin,omitempty"`
	Error  string `json:"error,omitempty"` // Envoy's words on the response that had it
}

// Absent is a resource that the Envoy asks for and that does not exist.
const Absent TypeState = "absent"

// Detail is how much [Server.Nodes] tells.
type Detail struct {
	Node      string // only of Envoys with this node id; of all when empty
	Resources int    // how many resources it lists at most, over all Envoys; none when 0
}

// Nodes is how Envoys stand, by group, node id and time of connection.
type Nodes struct {
	Connected []NodeStatus
	Left      []NodeStatus // within the hour, and not back since; 1,000 at most
	// Unlisted counts the Envoys whose resources there was no room for: an Envoy has all listed or none.
	Unlisted int
}

// Nodes tells more than [Server.Status].
func (s *Server) Nodes(d Detail) (nodes Nodes) {
	room := d.Resources
	for _, st := range s.connected() {
		if d.Node != "" && st.node.GetId() != d.Node {
			continue
		}
		n := st.status()
		n.Lacks = st.talents.lacks(s.roster.needsOf(needy{n.Group, n.Staged}, st.serves()))
		if d.Resources > 0 {
			lists, count := st.resources()
			if count <= room {
				room -= count
				for i := range n.Types {
					n.Types[i].Resources = lists[n.Types[i].Type]
				}
			} else {
				nodes.Unlisted++
			}
		}
		nodes.Connected = append(nodes.Connected, n)
	}
	for _, n := range s.roster.gone() {
		other := slices.ContainsFunc(nodes.Connected, func(c NodeStatus) bool { return c.ID == n.ID && c.Group == n.Group })
		if !other && (d.Node == "" || n.ID == d.Node) {
			nodes.Left = append(nodes.Left, n)
		}
	}
	slices.SortFunc(nodes.Connected, compareNodes)
	slices.SortFunc(nodes.Left, compareNodes)
	return nodes
}

func compareNodes(a, b NodeStatus) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.ID, b.ID), a.Connected.Compare(b.Connected))
}

// resources lists all that an Envoy has, asks for or is to get, by short type, and counts them.
func (st *stream) resources() (lists map[string][]ResourceStatus, count int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	lists = map[string][]ResourceStatus{}
	for _, t := range st.types {
		to := nothing
		if st.target != nil {
			to = st.target.set(t.url)
		}
		list := t.resources(to)
		for i := range list {
			switch {
			case list[i].State == NACK && !t.at.IsZero():
				list[i].Since = new(t.at)
			case list[i].State == ACK:
				list[i].Since = new(latest(st.opened, time.Unix(0, t.has(list[i].Name).since.Load())))
			}
		}
		lists[t.kind.short] = append(lists[t.kind.short], list...)
		count += len(list)
	}
	return lists, count
}

func (t *subscription) resources(to *set) (list []ResourceStatus) {
	names := map[string]bool{}
	for _, of := range []*set{to, t.base} {
		if of == nil {
			continue
		}
		for _, e := range of.sorted {
			names[e.Name] = true
		}
	}
	for name := range t.over {
		names[name] = true
	}
	for _, name := range t.names.list() {
		names[name] = true
	}
	shipped := map[string]bool{} // in the response that awaits its ACK
	if t.inflight != nil {
		for _, e := range t.inflight.changed {
			shipped[e.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if s, ok := t.resource(name, to.get(name), shipped[name]); ok {
			list = append(list, s)
		}
	}
	return list
}

// resource tells of the one with that name, which is now in the target; nil: it isn't there. It is not ok when the Envoy
// has nothing to do with it.
func (t *subscription) resource(name string, now *entry, shipped bool) (s ResourceStatus, ok bool) {
	had := t.has(name)
	if !t.wants(name) || now == nil && had == nil && !t.names.has(name) {
		return s, false
	}
	s.Name = name
	if e := cmp.Or(now, had); e != nil {
		s.Origin = e.Origin
	}
	rejected, refused := t.rejected[name]
	switch {
	case refused:
		s.State, s.Sent, s.Error = NACK, rejected.version, t.words
		if rejected.had != nil {
			s.Acknowledged = rejected.had.Version
		}
	case shipped:
		s.State = Sent
	case now == nil && had == nil && t.answered && !t.asked.has(name):
		s.State = Absent
	case now == nil || had == nil || now.Version != had.Version:
		s.State = Waiting
	default:
		s.State = ACK
	}
	if had != nil && !refused {
		s.Sent = had.Version
	}
	if s.State == ACK {
		s.Acknowledged = s.Sent
	}
	if t.kind.secret {
		s.Sent, s.Acknowledged = "", ""
	}
	return s, true
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
