package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// room is how much the heap may grow between two collections, whatever it holds: the companion's calls are many and
	// leave little behind, so that Go's default would collect all the time.
	room = 24 << 20
	// mostPercent bounds GOGC where next to nothing is live.
	mostPercent = 800
)

// tuneCollector has GOGC follow what is live, from now on until the process ends: generous with little, Go's default with
// a lot, such as the counts of many callers. A GOGC in the environment stands.
var tuneCollector = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		tune(0)
	}
})

// tune sets GOGC, and sets it anew after the next collection. before is what it was set to.
func tune(before int) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	percent := percentFor(sample[0].Value.Uint64())
	if percent != before { // it stops the world for a moment
		debug.SetGCPercent(percent)
	}
	runtime.AddCleanup(new([64]byte), tune, percent) // which that collection finds unused
}

// percentFor is the GOGC that leaves room beside the bytes that are live.
func percentFor(live uint64) int {
	return int(min(max(100, room*100/max(live, 1)), mostPercent))
}
