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

	// Of a group whose policy goes to some Envoys first.
	Candidates []string          `json:"candidates,omitempty"` // some of those that are connected, by node id
	Core       string            `json:"core,omitempty"`       // of what goes to some first
	Canaries   map[string]report `json:"canaries,omitempty"`   // those that are connected, by node id
}

// report is how a canary stands, as the process tells that it is connected to.
type report struct {
	Canary
	Resumed bool `json:"resumed,omitempty"`
}

// muster adds up the Envoys of a group over all processes: one that is alone with its process is not alone in its group.
type muster struct {
	board store.Board
	name  string // of this process; empty: it is alone
	told  []byte
	at    time.Time // when that was told
	deaf  bool      // the board could not be written: others may not be heard either
}

const (
	mustered   = "envoys/"
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
	if bytes.Equal(value, m.told) && !m.due() {
		return
	}
	e := store.Entry{Name: mustered + m.name, Value: value, Expires: time.Now().Add(forgotten)}
	if err := m.board.Put(ctx, e); err != nil {
		m.deaf = true
		return
	}
	m.told, m.at, m.deaf = value, time.Now(), false
}

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
	for e := range m.board.Entries() {
		name, ok := strings.CutPrefix(e.Name, mustered)
		if !ok || name == m.name {
			continue
		}
		var told map[string]tally
		if json.Unmarshal(e.Value, &told) != nil {
			continue
		}
		if t := told[group]; t.Connected > 0 {
			all = append(all, t)
		}
	}
	return all
}
