package app

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// room is how much the heap may grow between two collections, whatever it holds: the companion's calls are many and
	// leave little behind, so that Go's default would collect all the time.
	room = 64 << 20
	// mostPercent bounds GOGC where next to nothing is live.
	mostPercent = 800
)

// tuneCollector sets GOGC for the policy that is now live: generous with a small one, Go's default with a large one. A
// GOGC in the environment stands.
func tuneCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	debug.SetGCPercent(percentFor(sample[0].Value.Uint64()))
}

// percentFor is the GOGC that leaves room beside the bytes that are live.
func percentFor(live uint64) int {
	return int(min(max(100, room*100/max(live, 1)), mostPercent))
}
