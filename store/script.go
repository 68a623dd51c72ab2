package store

import (
	"cmp"
	"crypto/sha1"
	_ "embed" // the script
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed count.lua
var countSource string

// countDigest is what Redis calls the script.
var countDigest = func() string {
	sum := sha1.Sum([]byte(countSource))
	return hex.EncodeToString(sum[:])
}()

// scripts are the decisions of a batch that the script makes: all in one run of it, or on a Cluster in one for each slot.
type scripts struct {
	all   []int32 // decisions, in order
	runs  []run
	again []int32 // those that Redis didn't know the script for
	args  []byte
}

// run is one run of the script.
type run struct {
	decisions []int32
	slot      int
}

func (s *scripts) begin() { s.all, s.again = s.all[:0], s.again[:0] }

func (s *scripts) add(i int) { s.all = append(s.all, int32(i)) }

type command string

const (
	evalsha command = "EVALSHA"
	eval    command = "EVAL"
)

func (b *batch) writeScripts(how command, decisions []int32) {
	s := &b.scripts
	s.runs = append(s.runs[:0], run{decisions: decisions})
	if b.cluster {
		s.runs = b.bySlot(s.runs[:0], decisions)
	}
	for _, r := range s.runs {
		b.writeRun(how, r.decisions)
	}
}

// bySlot has a run for each slot.
func (b *batch) bySlot(runs []run, decisions []int32) []run {
	of := func(i int32) int { return slot(b.decisions[i].Hits[0].Key) }
	slices.SortStableFunc(decisions, func(x, y int32) int { return cmp.Compare(of(x), of(y)) })
	start := 0
	for i := range decisions {
		if i+1 == len(decisions) || of(decisions[i+1]) != of(decisions[i]) {
			runs = append(runs, run{decisions[start : i+1], of(decisions[i])})
			start = i + 1
		}
	}
	return runs
}

// writeRun appends a command: its arguments are in the first lines of count.lua.
func (b *batch) writeRun(how command, decisions []int32) {
	hits := 0
	args, n := packArray(b.scripts.args[:0]), 0
	for _, i := range decisions {
		d := b.decisions[i]
		hits += len(d.Hits)
		args, n = pack(args, int64(len(d.Hits))), n+1
		for j := range d.Hits {
			var more int
			args, more = b.packHit(args, &d.Hits[j])
			n += more
		}
	}
	packLength(args, n)
	b.scripts.args = args
	b.buf = appendCommand(b.buf, 4+hits)
	b.buf = appendText(b.buf, string(how))
	if how == eval { // it brings the script along, so that no flush comes between
		b.buf = appendText(b.buf, countSource)
	} else {
		b.buf = appendText(b.buf, countDigest)
	}
	b.buf = appendNumber(b.buf, int64(hits))
	for _, i := range decisions {
		for j := range b.decisions[i].Hits {
			b.plain.keyed = b.appendKey(b.plain.keyed[:0], &b.decisions[i].Hits[j])
			b.buf = appendText(b.buf, b.plain.keyed)
		}
	}
	b.buf = appendText(b.buf, args)
}

// appendKey appends the key of the bucket of h.
func (b *batch) appendKey(key []byte, h *Hit) []byte {
	key = appendTag(key, h.Key)
	if h.windowed() {
		return append(key, b.windows.of(h).suffix...)
	}
	if h.Algorithm == GCRA {
		return append(key, ":gcra"...)
	}
	n, unit := shortest(h.Window)
	key = strconv.AppendInt(append(key, ':'), n, 10)
	key = append(key, unit...)
	return append(key, "/log"...)
}

// countsBeyond marks hits that are counted even when they are refused.
const countsBeyond = 8

func (b *batch) packHit(args []byte, h *Hit) ([]byte, int) {
	kind := int64(h.Algorithm)
	if h.windowed() {
		kind = int64(FixedWindow)
	}
	if h.Beyond {
		kind += countsBeyond
	}
	args = pack(args, kind)
	args = pack(args, h.Hits)
	args = pack(args, h.Limit)
	switch {
	case h.windowed():
		return pack(args, b.windows.of(h).ttl), 4
	case h.Algorithm == GCRA:
		args = pack(args, h.Window.Microseconds())
		return pack(args, h.Burst), 5
	}
	return pack(args, h.Window.Microseconds()), 4
}

// packArray begins an array of MessagePack, whose length packLength sets.
func packArray(b []byte) []byte { return append(b, 0xdd, 0, 0, 0, 0) }

func packLength(b []byte, n int) { binary.BigEndian.PutUint32(b[1:], uint32(n)) }

// pack appends a number.
func pack(b []byte, n int64) []byte {
	switch {
	case 0 <= n && n < 128:
		return append(b, byte(n))
	case 0 <= n && n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(n))
}

// readScripts gives every decision of the script its outcomes, or err from where it comes. What Redis doesn't know the
// script for wasn't done, and is sent once more with the script.
func (b *batch) readScripts(c *conn, err error) error {
	s := &b.scripts
	if len(s.all) == 0 {
		return err
	}
	err = b.readRuns(c, err)
	if len(s.again) == 0 {
		return err
	}
	b.buf = b.buf[:0]
	b.writeScripts(eval, slices.Clone(s.again))
	s.again = s.again[:0]
	if err == nil {
		_, err = c.Write(b.buf)
	}
	return b.readRuns(c, err)
}

func (b *batch) readRuns(c *conn, err error) error {
	for _, r := range b.scripts.runs {
		var refused error
		if err == nil {
			refused, err = b.readRun(c, r.decisions)
		}
		switch failed := cmp.Or(err, refused); {
		case failed == nil:
		case err == nil && strings.HasPrefix(refused.Error(), "NOSCRIPT"):
			b.scripts.again = append(b.scripts.again, r.decisions...)
		default:
			for _, i := range r.decisions {
				if d := b.decisions[i]; d.Err == nil {
					d.Err = failed
				}
			}
		}
	}
	return err
}

// readRun reads the answer of a run: four integers for each hit.
func (b *batch) readRun(c *conn, decisions []int32) (refused, err error) {
	head, err := c.next()
	if err != nil {
		return nil, err
	}
	if head.kind == failure {
		return head.err(array), nil
	}
	hits := 0
	for _, i := range decisions {
		hits += len(b.decisions[i].Hits)
	}
	if head.kind != array || head.number != int64(4*hits) {
		return nil, errReply
	}
	for _, i := range decisions {
		d := b.decisions[i]
		for j := range d.Hits {
			var v [4]int64
			for k := range v {
				r, err := c.next()
				if err == nil {
					err = r.err(integer)
				}
				if err != nil {
					return nil, err
				}
				v[k] = r.number
			}
			d.Outcomes[j] = b.outcome(&d.Hits[j], v)
		}
		b.learn(d, c.number)
	}
	return nil, nil
}

// outcome makes an outcome of what the script says of a hit.
func (b *batch) outcome(h *Hit, v [4]int64) Outcome {
	o := Outcome{Allowed: v[0] == 1, Limit: h.size(), Count: v[1]}
	o.Reset, o.RetryAfter = time.Duration(v[2])*time.Microsecond, time.Duration(v[3])*time.Microsecond
	switch {
	case h.windowed():
		o.Reset = time.Duration(max(0, b.windows.of(h).end-b.windows.now)) * time.Microsecond
		if !o.Allowed {
			o.RetryAfter = o.Reset
		}
	case h.Algorithm == GCRA:
		o.Remaining = min(max(0, v[1]), h.Burst)
		o.Count = min(max(0, h.Burst-v[1]), MaxCount)
		return o
	}
	o.Remaining = max(0, h.Limit-o.Count)
	return o
}

// learn keeps what the script said of the buckets of d.
func (b *batch) learn(d *Decision, held uint32) {
	if refuses(d.Hits, d.Outcomes) && twice(d.Hits) {
		return // the second was told what the first would have left
	}
	for i := range d.Hits {
		h, o := &d.Hits[i], &d.Outcomes[i]
		switch {
		case h.windowed():
			b.remember(h, b.memory.hash(h), o.Count, b.windows.of(h).end, held)
		case h.Algorithm == GCRA:
			b.memory.keepGCRA(h, o, b.asked)
		default:
			b.memory.keepSliding(h, o, b.asked)
		}
	}
}
