package control

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/legation/legation/store"
)

// Envoys that lose their control plane go to another one, and stay there: after a restart of each process one of them has
// all of them. So a process that has clearly more than its share sends some away. Their streams end, they connect anew and
// are sent nothing that they have; which process they come to is theirs to choose, and half of them or so come back.

// Bounds on who is sent away. What a process knows of the others is up to tellEvery old.
const (
	alive     = tellEvery + 2*time.Second // others count that were heard of within
	calm      = alive + time.Second       // for which nobody may have come: those of a process that has just ended are no surplus
	restful   = 2 * time.Second           // a stream lives at least
	sendEvery = time.Second               // some, until the surplus is gone
	sendMost  = 200                       // at once
	sendPart  = 2                         // of the surplus at once, one in so many
	sendAgain = 5                         // times that one Envoy is sent away within
	sendFor   = 10 * time.Minute          // this time: it may know no other process
)

// share finds what a process has beyond its share of the Envoys.
type share struct {
	board store.Board
	name  string // of this process

	heard map[string]heard       // of other processes, by name
	most  int                    // Envoys that were here before some were sent away
	then  int                    // those that the others had then
	since time.Time              // when more came than there were
	sent  time.Time              // when Envoys were sent away last
	away  map[string][]time.Time // when an Envoy was, by group and node id
	told  time.Time              // when the log was told last
}

// heard is the last word of a process.
type heard struct {
	written time.Time // by the clock of Redis
	at      time.Time // when it was first seen here
	envoys  int
}

// listen notes what the others said, and gives those that are alive.
func (s *share) listen(now time.Time) (others, envoys int) {
	heardNow := map[string]heard{}
	for e := range s.board.Entries() {
		name, ok := strings.CutPrefix(e.Name, mustered)
		if !ok || name == s.name {
			continue
		}
		h := s.heard[name]
		if !h.written.Equal(e.Written) {
			h = heard{written: e.Written, at: now}
			var groups map[string]tally
			if json.Unmarshal(e.Value, &groups) != nil {
				continue
			}
			for _, t := range groups {
				h.envoys += max(t.Connected, 0)
			}
		}
		heardNow[name] = h
		if now.Sub(h.at) < alive {
			others, envoys = others+1, envoys+h.envoys
		}
	}
	s.heard = heardNow
	return others, envoys
}

// surplus is how many of the Envoys here are to be sent away now, and what the share is that it goes by.
func (s *share) surplus(now time.Time, own int) (n, fair int) {
	others, envoys := s.listen(now)
	if own > s.most {
		s.since = now
	}
	if own > s.most || now.Sub(s.sent) >= alive {
		s.most, s.then = own, envoys
	}
	// Of those who went, the others may not have told yet.
	untold := max(0, s.most-own-max(0, envoys-s.then))
	fair = (own + envoys + untold + others) / (others + 1)
	if others == 0 || now.Sub(s.since) < calm || own-fair <= max(1, fair/10) {
		return 0, fair
	}
	return min((own-fair+sendPart-1)/sendPart, sendMost), fair
}

// may notes that an Envoy is sent away, unless it was too often: it may know no other process.
func (s *share) may(now time.Time, envoy string) bool {
	times := s.away[envoy]
	for len(times) > 0 && now.Sub(times[0]) >= sendFor {
		times = times[1:]
	}
	if len(times) >= sendAgain {
		return false
	}
	s.away[envoy] = append(times, now)
	return true
}

// forget drops those whose time is over.
func (s *share) forget(now time.Time) {
	for envoy, times := range s.away {
		if now.Sub(times[len(times)-1]) >= sendFor {
			delete(s.away, envoy)
		}
	}
}

// level sends Envoys away while there are too many here, until ctx ends.
func (c *Controller) level(ctx context.Context) error {
	if c.o.XDS == nil || c.o.Parked == nil || c.o.Replica == "" {
		return nil
	}
	s := share{board: c.o.Parked, name: c.o.Replica, since: time.Now(), away: map[string][]time.Time{}}
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.forget(now)
			n, fair := s.surplus(now, c.o.XDS.Streams())
			if n == 0 {
				continue
			}
			before := c.o.XDS.Streams()
			gone := c.o.XDS.SendAway(n, restful, func(group, node string) bool { return s.may(now, group+"\x00"+node) })
			if gone == 0 {
				continue
			}
			if s.sent = now; now.Sub(s.told) > sendFor/10 {
				c.o.Log.Info("envoys sent to other processes, which have fewer", "connected", before, "share", fair)
				s.told = now
			}
		}
	}
}
