// Package store counts hits for limits: in Redis (single, Sentinel or Cluster), shared by every process that uses it,
// or embedded, in this process. Both give the same answers; one conformance suite runs over them.
//
// ratelimit calls it through [Store], app opens it, and features say in its terms what is to be counted. It is the only
// room that imports a Redis client.
//
// A bucket is a limit and a value ([Key] joins the two). A fixed window starts at a multiple of its length since the
// epoch, by Redis' own clock, and its key expires with it; a GCRA bucket holds Burst hits and fills at Limit per Window.
// A sliding window never holds more than Limit hits, wherever it starts; with a limit above 1,024 up to a
// 1,024th of it leaves too late, by a 1,024th of its length at most. A calendar's period starts at midnight in its zone. Counts don't depend on the limit, so one that is
// changed holds at once; another window or period begins anew. Hits that were refused are never counted, unless the hit
// is [Hit.Beyond] its limit.
//
// A decision goes from the caller's turn (turn.go, when hits may be taken ahead of need) to the memory of what Redis
// refused, then with others to a lane of each Redis (lane.go), which counts it by an increment (plain.go) or by a script
// (script.go, count.lua). The embedded store does the same arithmetic (embedded.go), and may keep it on disk (journal.go).
//
// What Redis refuses is refused here without asking again, until the window ends or the hits would fit, for 10 s at most
// (25 ms on a Cluster, where hits may be given back): so long a counter that is reset or lost by hand, or that another
// process gave hits back to, may be taken to be used up. The other hits of such a decision are told what Redis said of them
// within the last second; it is asked when that isn't known.
//
// [OpenShared] opens what processes share beside counters: [Records], such as sessions, which are read where they are, and
// [Board]s, such as API keys and revocations, which each process holds whole (table.go) and which follow Redis (mirror.go,
// board.lua, changes.lua). A file keeps them (ledger.go). An [Archive] is a short history, such as that of policies, in Redis
// (fararchive.go, archive.lua) or in a file of this process (neararchive.go).
//
// While a machine is suspended time goes on: within 10 ms of its return windows and periods have ended, and so have hits
// that were taken ahead of need.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Algorithm says how a bucket counts.
type Algorithm uint8

// The algorithms.
const (
	FixedWindow   Algorithm = iota // Limit hits in each window, windows aligned to the epoch
	GCRA                           // a bucket of Burst hits that fills at Limit per Window
	SlidingWindow                  // Limit hits at most in any Window; above 1,024 a 1,024th of them leave it by Window/1024 too late
	Calendar                       // Limit hits in each Period by the calendar of a time zone
)

// String gives the name that policies use.
func (a Algorithm) String() string {
	switch a {
	case FixedWindow:
		return "fixedWindow"
	case GCRA:
		return "gcra"
	case SlidingWindow:
		return "slidingWindow"
	case Calendar:
		return "calendar"
	}
	return fmt.Sprintf("algorithm(%d)", uint8(a))
}

// Bounds of a [Hit]. Redis' scripts count in doubles, which are exact up to 2^53.
const (
	MaxCount  = int64(1) << 53           // of Limit, Burst and Hits
	MaxLogged = int64(1)<<32 - 1         // of a SlidingWindow's Limit, and of its count with Beyond
	MinWindow = 10 * time.Millisecond    // shorter windows are shorter than a trip to Redis
	MaxWindow = 2 * 366 * 24 * time.Hour // also the longest time that a GCRA bucket may take to fill, also from Beyond
	MaxHits   = 128                      // hits of one Count
)

var (
	// ErrUnavailable is what [Store.Count] wraps when the store can't answer: it is down, slow, read-only, full, or the
	// password is wrong. Whether the hits were counted isn't known; they are not sent again.
	ErrUnavailable = errors.New("store unavailable")
	// ErrInvalid is what [Hit.Validate] and [Store.Count] wrap when a hit can't be counted.
	ErrInvalid = errors.New("invalid hit")
)

// Period is a span of the calendar; a week begins on Monday.
type Period uint8

// The periods.
const (
	Day Period = iota
	Week
	Month
	Year
)

// Hit asks for Hits from one bucket.
type Hit struct {
	Key       string // the bucket, as of [Key]; any bytes
	Algorithm Algorithm
	Limit     int64          // hits per Window or Period
	Window    time.Duration  // whole milliseconds; not for Calendar
	Period    Period         // Calendar
	Zone      *time.Location // Calendar: where days begin at midnight; nil is UTC; zones of one name are taken for one
	Burst     int64          // GCRA: the size of the bucket
	Hits      int64          // 0 asks without counting; below 0 gives so many back, as far as there are, and is never refused
	Lease     int64          // the most hits that this process may take ahead of need from a shared store; 0 has each decided there, as sliding windows always are
	Beyond    bool           // for limits that only watch: counts what it refuses too, and refuses nothing for the others; see [Decision]
}

// Outcome is the answer for one [Hit].
type Outcome struct {
	Allowed    bool          // for a Hit that asks without counting: whether one more would be
	Limit      int64         // hits that the bucket holds: Limit of a window, Burst of GCRA
	Remaining  int64         // hits left, after this one when it was counted
	Count      int64         // hits counted in this window (GCRA: and not yet drained), this one included when it was; more than Limit only with Beyond, or when it was lowered
	Reset      time.Duration // until the window or period ends; GCRA, SlidingWindow: until nothing is counted any more
	RetryAfter time.Duration // 0 when allowed; else until these hits would be, as far as is known now
}

// Decision is the hits of one request: all are charged, or none. It passes when every hit is allowed, but for those that
// are Beyond. When it doesn't, nothing is charged or given back, by hits that are Beyond neither: they count what came
// through to them. Outcomes then tell what each hit would have got, and counts as they were before.
type Decision struct {
	Hits     []Hit
	Outcomes []Outcome // one for each hit, in order; Decide appends to what is there after [:0]
	Err      error     // ErrInvalid or ErrUnavailable; then Outcomes say nothing
}

// Health is the state of a store, for readiness and status. It holds no secret.
type Health struct {
	OK     bool   `json:"ok"`
	Kind   string `json:"kind"`             // embedded, redis, sentinel or cluster
	Reason string `json:"reason,omitempty"` // why it isn't OK

	Warning string `json:"warning,omitempty"` // what should be looked after though it counts
}

// Store counts hits.
type Store interface {
	// Decide answers many decisions in one trip for each shard, as if they had come one after the other. In each, when one
	// bucket refuses, none is charged. A bucket that is named twice is charged for both.
	Decide(decisions []*Decision)
	// Count is Decide for one.
	Count(ctx context.Context, hits []Hit) ([]Outcome, error)
	Health() Health
	Close() error
}

// Options of [Open]; the zero value is an embedded store.
type Options struct {
	// URL of Redis; empty is the embedded store. redis://, rediss:// and unix:// are one Redis; with ?master_name= the
	// address is a Sentinel's; with ?cluster=true or ?addr=host:port (more nodes) it is a Cluster's.
	URL     string
	TLS     *tls.Config   // for rediss://; nil: the system's authorities
	Timeout time.Duration // of a trip to Redis; a Count takes 1.4 at most while Redis fails, its wait included; default 10 ms
	// MaxKeys is how many keys the embedded store holds at most; default 1,000,000. Sliding windows may take 64 bytes more
	// for each of these, all together; past that, as past MaxKeys, one that ends soon is forgotten.
	MaxKeys int
	// Path of the file that keeps the embedded store's counts, so that they outlast the process; empty: none are kept.
	// Beside it are a .lock, a .new while it is written anew, and a .bad when one couldn't be read. All hold keys, as Redis
	// does. 1,000,000 of them take 50 to 100 MB, and thrice that at most. One process at a time keeps its counts there.
	Path    string
	Log     *slog.Logger
	Metrics prometheus.Registerer

	dial dialFunc // nil: by the network; tests bring one of their own
	pool int      // connections at once; 0: as counting needs
}

// Open gives the store of o.URL. It doesn't wait for Redis: one that is absent is unavailable until it comes. Close
// ends what Open started.
func Open(o Options) (Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Millisecond
	}
	if o.URL == "" {
		e := newEmbedded(o, newClock())
		if o.Path != "" {
			e.journal = openJournal(e, o.Path, o.Log)
		}
		e.start()
		return e, nil
	}
	s, err := openRedis(o)
	if err != nil {
		return nil, err
	}
	return lease(s, o), nil
}

// Local counts in this process for the time that s can't answer. A bucket goes on from what s last said of it, as far as
// that is remembered (the latest 131,072 buckets), so a process allows no more than it knows to be left: r processes
// together at most r times that, beyond what s counted. s hears nothing of what was counted here.
func Local(s Store) Store {
	e := newEmbedded(Options{}, newClock())
	defer e.start()
	if l, ok := s.(*leased); ok {
		s = l.Store // what is in hand is counted there
	}
	if r, ok := s.(*redisStore); ok {
		e.recall = r.memory.recall
	}
	return e
}

// Validate tells what makes h impossible to count.
func (h Hit) Validate() error {
	switch {
	case h.Algorithm > Calendar:
		return fmt.Errorf("%w: unknown algorithm %d", ErrInvalid, h.Algorithm)
	case h.Limit < 1 || h.Limit > MaxCount:
		return fmt.Errorf("%w: limit %d is not within 1 and 2^53", ErrInvalid, h.Limit)
	case h.Hits < -MaxCount || h.Hits > MaxCount:
		return fmt.Errorf("%w: %d hits are not within -2^53 and 2^53", ErrInvalid, h.Hits)
	case h.Algorithm == Calendar && h.Period > Year:
		return fmt.Errorf("%w: unknown period %d", ErrInvalid, h.Period)
	case h.Algorithm == Calendar:
		return nil
	case h.Window < MinWindow || h.Window > MaxWindow:
		return fmt.Errorf("%w: window %s is not within %s and %s", ErrInvalid, h.Window, MinWindow, MaxWindow)
	case h.Window%time.Millisecond != 0:
		return fmt.Errorf("%w: window %s is not whole milliseconds", ErrInvalid, h.Window)
	case h.Algorithm == SlidingWindow && h.Limit > MaxLogged:
		return fmt.Errorf("%w: limit %d of a sliding window is above 2^32-1", ErrInvalid, h.Limit)
	case h.Algorithm != GCRA:
		return nil
	case h.Burst < 1 || h.Burst > MaxCount:
		return fmt.Errorf("%w: burst %d is not within 1 and 2^53", ErrInvalid, h.Burst)
	case float64(h.Burst)*float64(h.Window)/float64(h.Limit) > float64(MaxWindow):
		return fmt.Errorf("%w: a burst of %d takes longer than %s to fill", ErrInvalid, h.Burst, MaxWindow)
	}
	return nil
}

func validate(hits []Hit) error {
	if len(hits) > MaxHits {
		return fmt.Errorf("%w: %d hits at once, at most %d", ErrInvalid, len(hits), MaxHits)
	}
	for i := range hits {
		if err := hits[i].Validate(); err != nil {
			return err
		}
	}
	return nil
}

// size is how many hits the bucket holds.
func (h Hit) size() int64 {
	if h.Algorithm == GCRA {
		return h.Burst
	}
	return h.Limit
}

// interval is GCRA's time between two hits, in µs, and slack how far rounding may be off.
func (h Hit) interval() (interval, slack float64) {
	interval = float64(h.Window.Microseconds()) / float64(h.Limit)
	return interval, math.Min(1, interval/2)
}
