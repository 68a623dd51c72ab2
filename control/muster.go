package control

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/legation/legation/store"
)

// tally counts the Envoys of a group.
type tally struct {
	Connected int    `json:"connected"`
	Refused   int    `json:"refused,omitempty"`
	Digest    string `json:"digest"` // of what they refuse

	// Of a group whose policy goes to some Envoys first: some of those that are connected, by node id.
	Candidates []string `json:"candidates,omitempty"`
	trial      trial
}

// trial is how the canaries of a group stand that are connected to a process. There may be hundreds of them, so that it is
// told by itself.
type trial struct {
	Core     string            `json:"core"`     // of what goes to some first
	Canaries map[string]report `json:"canaries"` // by node id
}

// report is how a canary stands, in short. Times are in Unix nanoseconds.
type report struct {
	Connected int64 `json:"c"`
	Since     int64 `json:"s,omitempty"` // 0: it has not taken all of it
	Held      bool  `json:"h,omitempty"`
	Resumed   bool  `json:"r,omitempty"`
}

// reportMax is how many bytes a report takes, beside the node id and all that is between them.
const reportMax = 75

func (k *canary) report() report {
	r := report{Connected: k.Connected.UnixNano(), Held: k.Held, Resumed: k.resumed}
	if !k.Since.IsZero() {
		r.Since = k.Since.UnixNano()
	}
	return r
}

// canary is what a report says.
func (r report) canary() *Canary {
	k := &Canary{Connected: time.Unix(0, r.Connected), Held: r.Held}
	if r.Since != 0 {
		k.Since = time.Unix(0, r.Since)
	}
	return k
}

// muster adds up the Envoys of a group over all processes: one that is alone with its process is not alone in its group.
type muster struct {
	board store.Board
	name  string            // of this process; empty: it is alone
	told  map[string][]byte // by the names of entries
	at    time.Time         // when all of that was told
	deaf  bool              // the board could not be written: others may not be heard either

	heard   map[string]word // of the other processes, by name; this and what follows guarded by Controller.mu
	version uint64          // of the board then
	read    time.Time       // when
}

// word is the last one of a process, which is read once, however many groups it is about.
type word struct {
	written time.Time
	groups  map[string]tally
}

const (
	mustered   = "envoys/"
	tried      = "canaries/" // with the name of the process, and of the group
	tellEvery  = 5 * time.Second
	forgotten  = 4 * tellEvery
	mustersMax = 60 << 10 // bytes
)

// shared tells whether there are other processes.
func (m *muster) shared() bool { return m.board != nil && m.name != "" }

// due tells whether others are to be told again.
func (m *muster) due() bool { return m.shared() && time.Since(m.at) >= tellEvery }

// tell tells the other processes of the Envoys here: when that has changed, and each 5 s.
func (m *muster) tell(ctx context.Context, counts map[string]tally) {
	if !m.shared() {
		return
	}
	value, err := json.Marshal(counts)
	if len(value) > mustersMax {
		for group, t := range counts {
			t.Candidates = nil // each process chooses among its own
			counts[group] = t
		}
		value, err = json.Marshal(counts)
	}
	if err != nil || len(value) > mustersMax {
		return // so many groups: each process judges by its own Envoys
	}
	words := map[string][]byte{mustered + m.name: value}
	for group, t := range counts {
		if t.trial.Core == "" {
			continue
		}
		if words[trialName(m.name, group)], err = json.Marshal(t.trial); err != nil {
			return
		}
	}
	due := m.due()
	for name := range m.told {
		if _, still := words[name]; still {
			continue
		}
		if err := m.board.Put(ctx, store.Entry{Name: name, Expires: time.Now().Add(-time.Second)}); err != nil {
			m.deaf = true
			return
		}
	}
	for name, value := range words {
		if !due && bytes.Equal(value, m.told[name]) {
			continue
		}
		if err := m.board.Put(ctx, store.Entry{Name: name, Value: value, Expires: time.Now().Add(forgotten)}); err != nil {
			m.deaf = true
			return
		}
	}
	if due {
		m.at = time.Now()
	}
	m.told, m.deaf = words, false
}

func trialName(process, group string) string { return tried + process + "/" + group }

// sum adds what the other processes told to what this one has counted.
func (m *muster) sum(group string, own tally) tally {
	for _, other := range m.others(group) {
		own.Connected += other.Connected
		if other.Digest == own.Digest {
			own.Refused += other.Refused
		}
	}
	return own
}

// others is what the other processes told of a group.
func (m *muster) others(group string) (all []tally) {
	if !m.shared() {
		return nil
	}
	m.hear()
	for name, w := range m.heard {
		t := w.groups[group]
		if t.Connected <= 0 {
			continue
		}
		if e, ok := m.board.Get(trialName(name, group)); ok {
			_ = json.Unmarshal(e.Value, &t.trial) // one that is none has no canary
		}
		all = append(all, t)
	}
	return all
}

// hear reads what the other processes told, where that may have changed.
func (m *muster) hear() {
	version := m.board.Version()
	if m.heard != nil && version == m.version && time.Since(m.read) < time.Second { // entries expire meanwhile
		return
	}
	before := m.heard
	m.heard, m.version, m.read = map[string]word{}, version, time.Now()
	for e := range m.board.Entries() {
		name, ok := strings.CutPrefix(e.Name, mustered)
		if !ok || name == m.name {
			continue
		}
		w, known := before[name]
		if !known || !w.written.Equal(e.Written) {
			w = word{written: e.Written}
			_ = json.Unmarshal(e.Value, &w.groups) // what is none tells of no group
		}
		m.heard[name] = w
	}
}
