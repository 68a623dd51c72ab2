package xds

import (
	"maps"
	"sync"
	"time"
)

// Publication follows one [Server.Publish] until every Envoy that was connected then has answered for itself.
type Publication struct {
	groups  map[string]*serving
	started time.Time
	done    chan struct{}

	mu      sync.Mutex // guards what follows
	waiting map[*stream]struct{}
	outcome Outcome
}

// Outcome is how a publication ended, or how far it is.
type Outcome struct {
	State  State            `json:"state"`
	Groups map[string]Tally `json:"groups"` // those with at least one Envoy connected
}

// State is the state of a publication.
type State string

// A publication is Working until its Done is closed.
const (
	Working      State = "working"
	Acknowledged State = "acknowledged" // by every Envoy, or there was none
	Rejected     State = "rejected"     // by at least one
	Late         State = "late"         // at least one did not answer in time
	Superseded   State = "superseded"   // by a later Publish
	Stopped      State = "stopped"      // the server ended
)

// Tally counts the Envoys of a group.
type Tally struct {
	Connected    int `json:"connected"` // when it was published
	Acknowledged int `json:"acknowledged"`
	Rejected     int `json:"rejected"`
	Late         int `json:"late"`
	Left         int `json:"left"`
}

func newPublication(groups map[string]*serving, streams map[*stream]struct{}) *Publication {
	p := &Publication{
		groups:  groups,
		started: time.Now(),
		done:    make(chan struct{}),
		waiting: map[*stream]struct{}{},
		outcome: Outcome{State: Working, Groups: map[string]Tally{}},
	}
	for st := range streams {
		if groups[st.group.name] == nil {
			continue
		}
		p.waiting[st] = struct{}{}
		t := p.outcome.Groups[st.group.name]
		t.Connected++
		p.outcome.Groups[st.group.name] = t
	}
	if len(p.waiting) == 0 {
		p.end(Acknowledged)
	}
	return p
}

// Done is closed when every Envoy that was connected has acknowledged, rejected or left, or has stood still for
// [Options.StageTimeout]; and when the publication is superseded. What an Envoy merely has too much of (clusters that
// no route leads to any more) is cleaned up after that.
func (p *Publication) Done() <-chan struct{} { return p.done }

// Outcome tells how the publication ended; it is Working before Done is closed.
func (p *Publication) Outcome() Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Outcome{State: p.outcome.State, Groups: maps.Clone(p.outcome.Groups)}
}

// arrive notes that st has ended up in state s with the snapshot, if it is the one that is meant for it.
func (p *Publication) arrive(st *stream, with *Snapshot, s State) {
	if p == nil || p.groups[st.group.name].to(st.node.GetId()) != with {
		return
	}
	p.note(st, func(t *Tally) {
		switch s {
		case Acknowledged:
			t.Acknowledged++
		case Rejected:
			t.Rejected++
		default:
			t.Late++
		}
	})
}

// leave notes that st is gone.
func (p *Publication) leave(st *stream) {
	if p != nil {
		p.note(st, func(t *Tally) { t.Left++ })
	}
}

func (p *Publication) note(st *stream, count func(*Tally)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.waiting[st]; !ok {
		return
	}
	delete(p.waiting, st)
	t := p.outcome.Groups[st.group.name]
	count(&t)
	p.outcome.Groups[st.group.name] = t
	if len(p.waiting) == 0 {
		p.end(p.outcome.verdict())
	}
}

// stop ends a publication that is still working.
func (p *Publication) stop(s State) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outcome.State == Working {
		p.end(s)
	}
}

func (p *Publication) end(s State) {
	p.outcome.State = s
	p.waiting = nil
	close(p.done)
}

func (o Outcome) verdict() State {
	s := Acknowledged
	for _, t := range o.Groups {
		if t.Rejected > 0 {
			return Rejected
		}
		if t.Late > 0 {
			s = Late
		}
	}
	return s
}
