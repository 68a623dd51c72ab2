package app

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// room is how much the heap may grow between two collections, whatever it holds: the companion's calls are many and
	// leave little behind, so that Go's default would collect all the time.
	room = 24 << 20
	// mostPercent bounds GOGC where next to nothing is live.
	mostPercent = 800
	// retune is how often what is live is looked at: with GOGC as it was for an empty process, what the store remembers of
	// a million keys would leave room for nine times as much.
	retune = time.Second
)

// tuneCollector sets GOGC for what is live, from time to time: generous where that is little, Go's default where it is
// much. A GOGC in the environment stands.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(retune)
	defer tick.Stop()
	for set := 0; ; {
		metrics.Read(sample)
		// Each change stops the world for a moment.
		if want := percentFor(sample[0].Value.Uint64()); want < set*7/8 || want > set*9/8 {
			debug.SetGCPercent(want)
			set = want
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// percentFor is the GOGC that leaves room beside the bytes that are live.
func percentFor(live uint64) int {
	return int(min(max(100, room*100/max(live, 1)), mostPercent))
}
