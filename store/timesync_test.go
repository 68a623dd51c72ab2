package store

import (
	"math/rand/v2"
	"testing"
)

func TestRedisClockNarrowsAndFollows(t *testing.T) {
	const ahead = 3600 * second // Redis is an hour ahead of this process
	var c redisClock
	if !c.due(0) {
		t.Error("a clock that was never read isn't due")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	now := int64(0)
	for i := range 200 {
		there, back := 20+rnd.Int64N(3000), 20+rnd.Int64N(3000)
		if c.learn(now+there+ahead, now, now+there+back) {
			t.Fatal("taken to have been set")
		}
		if off := c.now(now) - now - ahead; i > 20 && max(off, -off) > 1500 {
			t.Errorf("%d µs off after %d answers", off, i)
		}
		if c.due(now + there + back) {
			t.Error("due at once")
		}
		now += resync
	}
	if !c.due(now + resync) {
		t.Error("never due again")
	}
	if !c.learn(now+50, now, now+100) {
		t.Error("an hour back: want it told")
	}
	if off := c.now(now) - now; off < -100 || off > 100 {
		t.Errorf("%d µs off after it was set", off)
	}
}

// TestRedisClockDrifts has Redis' clock gain 100 µs a second.
func TestRedisClockDrifts(t *testing.T) {
	var c redisClock
	for now := int64(0); now < 3600*second; now += second {
		redis := now + now/10_000
		if c.learn(redis+100, now, now+200) {
			t.Fatalf("taken to have been set after %d s", now/second)
		}
		if off := c.now(now) - redis; off < -500 || off > 500 {
			t.Fatalf("%d µs off after %d s", off, now/second)
		}
	}
}
