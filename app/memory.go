package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
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

// settles is how long nothing may be loaded before what loads have left behind is given back to the system.
const settles = 5 * time.Second

// tidy gives back what a load of the policy took beside what it left, which is more than that: Go does so by and by when it
// allocates, and a process that rests does not.
type tidy struct {
	mu    sync.Mutex // guards timer
	timer *time.Timer
}

// loaded is told of each load.
func (t *tidy) loaded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Reset(settles)
		return
	}
	t.timer = time.AfterFunc(settles, func() {
		if unused() > room {
			debug.FreeOSMemory()
		}
	})
}

func (t *tidy) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
}

// unused is how many bytes of the heap were not in use at the last collection, and not given back.
func unused() uint64 {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	held := samples[1].Value.Uint64() + samples[2].Value.Uint64() + samples[3].Value.Uint64()
	return held - min(held, samples[0].Value.Uint64())
}

// percentFor is the GOGC that leaves room beside the bytes that are live.
func percentFor(live uint64) int {
	return int(min(max(100, room*100/max(live, 1)), mostPercent))
}
