package store

import (
	"errors"
	"time"
)

// batch is what goes to a Redis in one write: the decisions of several callers, in the order in which they came, and what
// is owed from before. A lane has one, and uses it again.
//
// A decision with one hit of a window is counted plainly, by an increment (plain.go); every other by a script (script.go),
// and so are plain ones of a bucket that the script has to do with too. So the two never meet, and the decisions come out
// as if they had been made one after the other.
type batch struct {
	memory  *memory
	metrics *metrics
	cluster bool // scripts may not name buckets of several slots

	decisions []*Decision
	plain     plain
	scripts   scripts
	windows   windows
	repairs   []repair // to be made
	buf       []byte
	timed     bool  // asks for the time
	asked     int64 // µs by the memory's clock: when the batch was made

	owed  []owed   // found in the answers, for the next batch
	found []repair // the same
}

// errCut tells that a reply didn't come.
var errCut = errors.New("the connection broke")

// make makes the commands for the decisions and the repairs that are in the batch.
func (b *batch) make(c *conn) {
	b.asked = b.memory.now()
	b.windows.begin(c.clock.now(b.asked))
	b.plain.begin(len(b.decisions))
	b.scripts.begin()
	b.sort()

	b.buf = b.buf[:0]
	if b.timed = c.clock.due(b.asked); b.timed {
		b.buf = append(b.buf, askTime...)
	}
	for i := range b.repairs {
		b.buf = b.repairs[i].append(b.buf, b.windows.now)
	}
	b.writePlain(c)
	if len(b.scripts.all) > 0 {
		b.writeScripts(evalsha, b.scripts.all)
	}
}

// sort says how each decision is counted.
func (b *batch) sort() {
	scripts := false
	for i, d := range b.decisions {
		if !isPlain(d.Hits) {
			b.plain.group[i], scripts = -1, true
			continue
		}
		b.plain.add(i, &d.Hits[0], b.memory.hash(&d.Hits[0]))
	}
	if !scripts {
		return
	}
	for i, d := range b.decisions {
		if b.plain.group[i] < 0 {
			for j := range d.Hits {
				b.plain.leave(&d.Hits[j], b.memory.hash(&d.Hits[j]))
			}
		}
	}
	for i := range b.decisions {
		if g := b.plain.group[i]; g < 0 || b.plain.groups[g].left {
			b.scripts.add(i)
		}
	}
}

// exchange sends the batch and reads its answers; each decision has its outcomes or its error then. The error is the
// connection's, which is of no use after it.
func (b *batch) exchange(c *conn, deadline time.Time) error {
	_ = c.SetDeadline(deadline) // fails when the connection does
	_, err := c.Write(b.buf)
	if err == nil && b.timed {
		var set bool
		if set, err = c.readTime(b.asked, b.memory.now); set {
			b.metrics.resyncs.Inc()
		}
	}
	for i := range b.repairs {
		if err == nil {
			b.repairs[i].done = true
			_, err = c.next()
		}
	}
	err = b.readPlain(c, err)
	err = b.readScripts(c, err)
	c.used = b.memory.now()
	return err
}

// repair gives a key a time to live that it may lack: one that was incremented after it had ended.
type repair struct {
	key  string
	end  int64 // of its window, µs by Redis' clock
	due  int64 // µs, monotonic: not before
	done bool
}

func (r *repair) append(b []byte, now int64) []byte {
	b = append(b, "*3\r\n$7\r\nPEXPIRE\r\n"...)
	b = appendText(b, r.key)
	return appendNumber(b, max(0, r.end-now)/1000+linger)
}
