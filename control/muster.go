package control

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/legation/legation/store"
)

// tally counts the Envoys of a group.
type tally struct {
	Connected int    `json:"connected"`
	Refused   int    `json:"refused,omitempty"`
	Digest    string `json:"digest"` // of what they refuse
}

// muster adds up the Envoys of a group over all processes: one that is alone with its process is not alone in its group.
type muster struct {
	board store.Board
	name  string // of this process; empty: it is alone
	told  map[string]tally
	at    time.Time // when that was told
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
	if !m.shared() || maps.Equal(counts, m.told) && !m.due() {
		return
	}
	value, err := json.Marshal(counts)
	if err != nil || len(value) > mustersMax {
		return // so many groups: each process judges by its own Envoys
	}
	e := store.Entry{Name: mustered + m.name, Value: value, Expires: time.Now().Add(forgotten)}
	if m.board.Put(ctx, e) == nil {
		m.told, m.at = counts, time.Now()
	}
}

// sum adds what the other processes told to what this one has counted.
func (m *muster) sum(group string, own tally) tally {
	if !m.shared() {
		return own
	}
	for e := range m.board.Entries() {
		name, ok := strings.CutPrefix(e.Name, mustered)
		if !ok || name == m.name {
			continue
		}
		var others map[string]tally
		if json.Unmarshal(e.Value, &others) != nil {
			continue
		}
		if other := others[group]; other.Connected > 0 {
			own.Connected += other.Connected
			if other.Digest == own.Digest {
				own.Refused += other.Refused
			}
		}
	}
	return own
}
