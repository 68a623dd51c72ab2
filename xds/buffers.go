package xds

import (
	"math/bits"
	"sync"
)

// buffers are what gRPC reads frames into. They are given out as they came back: grpc-go's own pool clears each first,
// which is work for nothing, as all of it is overwritten. Of a reconnecting fleet that was a sixth of the processor time.
type buffers struct {
	pools [largestBuffer + 1]sync.Pool // by the power of two that is the capacity
}

// The powers of two that are pooled: grpc-go does not ask for less than 1 KiB, and its frames have 16 KiB at most. What is
// larger is rare, and left to the garbage collector.
const (
	smallestBuffer = 10
	largestBuffer  = 14
)

// Get implements mem.BufferPool.
func (p *buffers) Get(length int) *[]byte {
	size := max(smallestBuffer, bits.Len(uint(max(length, 1)-1)))
	if size > largestBuffer {
		return new(make([]byte, length))
	}
	b, ok := p.pools[size].Get().(*[]byte)
	if !ok {
		b = new(make([]byte, 1<<size))
	}
	*b = (*b)[:length]
	return b
}

// Put implements mem.BufferPool. It takes what Get gave, or a part of it that has its whole capacity.
func (p *buffers) Put(b *[]byte) {
	size := bits.Len(uint(cap(*b))) - 1
	if size >= smallestBuffer && size <= largestBuffer && cap(*b) == 1<<size {
		p.pools[size].Put(b)
	}
}
