package xds

import "testing"

func TestBuffersHaveTheRoomThatIsAskedFor(t *testing.T) {
	t.Parallel()
	var p buffers
	for _, n := range []int{0, 1, 1 << smallestBuffer, 1<<smallestBuffer + 1, 5000, 1 << largestBuffer, 1<<largestBuffer + 1, 1 << 20} {
		for range 2 { // from the pool, the second time, if it is not collected meanwhile
			b := p.Get(n)
			if len(*b) != n {
				t.Errorf("%d bytes, want %d", len(*b), n)
			}
			*b = (*b)[:n/2]
			p.Put(b)
		}
	}
	p.Put(new(make([]byte, 3000))) // not one of its own
	if b := p.Get(4000); len(*b) != 4000 {
		t.Errorf("%d bytes, want 4000", len(*b))
	}
}
