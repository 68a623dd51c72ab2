package xds

import (
	"runtime"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

func TestNamesAreOneForAllThatAskForTheSame(t *testing.T) {
	t.Parallel()
	p := newPool()
	asked := func(names ...string) (*names, bool) {
		t.Helper()
		n, star, err := p.read(read(t, Delta, &discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: names}, 8).names)
		if err != nil {
			t.Fatal(err)
		}
		return n, star
	}
	ab, _ := asked("a", "b")
	for _, again := range [][]string{{"b", "a"}, {"a", "b", "a"}, {"*", "a", "b"}} {
		if n, star := asked(again...); n != ab || star != slices.Contains(again, "*") {
			t.Errorf("%q is %v (%t), not that of a and b", again, n, star)
		}
	}
	c, _ := asked("c")
	abc := p.union(c, ab)
	if want, _ := asked("c", "a", "b"); abc != want || !slices.Equal(abc.sorted, []string{"a", "b", "c"}) {
		t.Errorf("the union is %q", abc.list())
	}
	if p.union(abc, ab) != abc || p.without(abc, c) != ab || p.without(ab, c) != ab || p.without(ab, abc) != nil {
		t.Error("what stays the same, or was there before, is made anew")
	}
	if none, star := asked("*"); none != nil || !star {
		t.Errorf("* is %q, %t", none.list(), star)
	}
}

func TestNamesThatNobodyHasAreForgotten(t *testing.T) {
	t.Parallel()
	p := newPool()
	kept := p.of([]string{"kept"})
	p.of([]string{"a", "b"})
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.names)
	}
	for range 1000 {
		if count() == 1 {
			break
		}
		runtime.GC()
	}
	if n := count(); n != 1 || p.of([]string{"kept"}) != kept {
		t.Errorf("%d are remembered, want the one that is in use", n)
	}
}

func TestNamesAreText(t *testing.T) {
	t.Parallel()
	r := &request{protocol: Delta}
	if err := r.decode(mem.BufferSlice{mem.SliceBuffer("\x1a\x01\xff")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := newPool().read(r.names); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v, want InvalidArgument", err)
	}
}

func TestNamesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{})
		p.Publish(usual(t, "1"))
		d := p.envoy(t, Delta, "d")
		many := make([]string, maxNames+1)
		for i := range many {
			many[i] = string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + string(rune('a'+i/17576))
		}
		d.ask(rds, many...)
		d.got()
		if status.Code(d.err) != codes.ResourceExhausted {
			t.Errorf("%v, want ResourceExhausted", d.err)
		}
	})
}
