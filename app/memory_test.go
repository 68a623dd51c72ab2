package app

import (
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
)

func TestCollectorLeavesRoom(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, 16 << 20: 150, 64 << 20: 100, 4 << 30: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes live: got GOGC %d, want %d", live, got, want)
		}
	}
}

// What a process holds may grow long after its policy was served: with the callers that it counts.
func TestCollectorFollowsWhatIsLive(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC stands")
	}
	gogc := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	tuneCollector()
	counts := make([]byte, 2*room)
	until(t, "Go's default", func() bool { runtime.GC(); return gogc() == 100 })
	runtime.KeepAlive(counts)
}

// What a load takes beside what it leaves is given back once nothing is loaded any more.
func TestMemoryIsGivenBackAfterALoad(t *testing.T) {
	load := make([]byte, 8*room)
	for i := range load { // so that the system has to give it
		load[i] = 1
	}
	runtime.KeepAlive(load)
	load = nil
	runtime.GC()
	if n := unused(); n < 7*room {
		t.Fatalf("%d bytes are held beside what is in use", n)
	}
	var memory tidy
	memory.loaded()
	memory.loaded()
	until(t, "the memory to be given back", func() bool { return unused() <= 2*room })
	memory.stop()
	new(tidy).stop() // where nothing was loaded
}
