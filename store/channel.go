package store

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

// deafness is after what time without a message a channel is asked whether it still is one.
const deafness = 3 * time.Second

// listen sends to heard when something is said on the channel of a key, until ctx ends. What is said while the channel is
// lost isn't heard.
func (f *far) listen(ctx context.Context, key string, heard chan<- struct{}) {
	for ctx.Err() == nil {
		if !f.fuse(key).blown.Load() {
			p := f.client.Subscribe(ctx, key)
			stop := context.AfterFunc(ctx, func() { _ = p.Close() })
			hear(ctx, p, key, heard)
			stop()
			_ = p.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(askSoon):
		}
	}
}

// hear returns when the connection is no good any more. When nothing comes for a while, it subscribes once more, which is
// answered.
func hear(ctx context.Context, p *redis.PubSub, key string, heard chan<- struct{}) {
	for asked := false; ; {
		_, err := p.ReceiveTimeout(ctx, deafness)
		slow, ok := errors.AsType[net.Error](err)
		switch {
		case err == nil:
			asked = false
			wake(heard)
		case !asked && (ok && slow.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)):
			asked = true
			if p.Subscribe(ctx, key) != nil {
				return
			}
		default:
			return
		}
	}
}

// wake sends to a channel of capacity 1, unless it is full.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
