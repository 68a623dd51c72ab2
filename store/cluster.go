package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// slots of a Cluster.
const slots = 16384

// ways lead to where buckets are: one lane, or on a Cluster one to each primary.
type ways struct {
	lanes  []*lane
	slots  []uint16 // of a Cluster: the lane of each slot
	reason string   // why there are no lanes
}

// cluster is what a store knows of a Cluster.
type cluster struct {
	stale atomic.Bool // a node said that a slot isn't its own
}

// survey looks up the primaries of all slots: when one said that a slot has moved, each 500 ms while one is down, whose
// slots another may take over, and each 10 s. It is called each 100 ms.
func (s *redisStore) survey(ctx context.Context, c *redis.ClusterClient, down bool, n int) {
	stale := s.cluster.stale.Swap(false)
	if !stale && n%100 != 0 && (!down || n%5 != 0) {
		return
	}
	c.ReloadState(ctx) // a node that is gone doesn't tell who took its slots
	old := s.ways.Load()
	lanes := map[string]*lane{}
	for _, l := range old.lanes {
		lanes[l.link.options.Addr] = l
	}
	w := &ways{slots: make([]uint16, slots)}
	for slot, bucket := range slotBuckets() {
		node, err := c.MasterForKey(ctx, string(appendTag(nil, bucket)))
		if err != nil {
			s.cluster.stale.Store(true)
			if len(old.lanes) == 0 {
				s.ways.Store(&ways{reason: reason(err)})
			}
			return
		}
		addr := node.Options().Addr
		at := slices.IndexFunc(w.lanes, func(l *lane) bool { return l.link.options.Addr == addr })
		if at < 0 {
			at = len(w.lanes)
			l := lanes[addr]
			if l == nil {
				l = s.newLane(node.Options(), bucket)
			}
			l.probe.Store(&bucket)
			w.lanes = append(w.lanes, l)
		}
		w.slots[slot] = uint16(at)
	}
	s.ways.Store(w)
	for _, l := range old.lanes {
		if !slices.Contains(w.lanes, l) {
			l.link.close()
		}
	}
}

// slotBuckets is a bucket in each slot.
var slotBuckets = sync.OnceValue(func() []string {
	buckets := make([]string, slots)
	for i, found := 0, 0; found < slots; i++ {
		b := fmt.Sprintf("probe-%d", i)
		if at := slot(b); buckets[at] == "" {
			buckets[at] = b
			found++
		}
	}
	return buckets
})

// parted is a decision whose hits are in several slots.
type parted struct {
	whole *Decision
	parts []part
}

// part is the hits of a decision that are in one slot. Those that give back only ask at first: it can't be undone exactly,
// since they give back as far as there are.
type part struct {
	slot  int
	index []int // of hits
	Decision
	later Decision // the hits that give back, when the whole passes
}

// decideCluster makes decisions on a Cluster, which can't run a script over several slots. Each slot takes all or none of
// its part; when one refuses or fails, the others give back what they took. So no limit is ever exceeded; but for the time
// of two trips others may be refused for hits that are given back, and when a node fails in between they stay counted until
// the window ends.
func (s *redisStore) decideCluster(decisions []*Decision) {
	w := s.ways.Load()
	if len(w.lanes) == 0 {
		for _, d := range decisions {
			d.Err = fmt.Errorf("no node of the cluster is known: %s", w.reason)
		}
		return
	}
	asked := s.memory.now()
	trips := make([]trip, len(w.lanes))
	var several []parted
	send := func(slot int, d *Decision) {
		t := &trips[w.slots[slot]] // of the trips that are being made up
		t.decisions = append(t.decisions, d)
	}
	for _, d := range decisions {
		parts := split(d.Hits)
		if len(parts) == 1 {
			send(parts[0].slot, d)
			continue
		}
		for i := range parts {
			send(parts[i].slot, &parts[i].Decision)
		}
		several = append(several, parted{d, parts})
	}
	s.each(w, trips)
	trips = make([]trip, len(w.lanes))
	for i := range several {
		p := &several[i]
		if passes := p.judge(w, asked, trips); !passes {
			continue
		}
		for j := range p.parts {
			if part := &p.parts[j]; len(part.later.Hits) > 0 {
				send(part.slot, &part.later)
			}
		}
	}
	s.each(w, trips)
	for i := range several {
		several[i].join()
	}
}

// each makes the trips at once, those too that are only for what is owed, and follows slots that have moved.
func (s *redisStore) each(w *ways, trips []trip) {
	var wg sync.WaitGroup
	last := -1
	for i := range trips {
		if len(trips[i].decisions) == 0 && !trips[i].settles {
			continue
		}
		trips[i].lead = make(chan bool, 1)
		if last >= 0 {
			first := last
			wg.Go(func() { w.lanes[first].run(&trips[first]) })
		}
		last = i
	}
	if last >= 0 {
		w.lanes[last].run(&trips[last])
	}
	wg.Wait()
	for i := range trips {
		for _, d := range trips[i].decisions {
			if d.Err != nil && moved(d.Err) {
				s.redirect(w.lanes[i], d)
			}
		}
	}
}

func split(hits []Hit) []part {
	parts := make([]part, 0, len(hits))
	for i := range hits {
		n := slot(hits[i].Key)
		at := slices.IndexFunc(parts, func(p part) bool { return p.slot == n })
		if at < 0 {
			at = len(parts)
			parts = append(parts, part{slot: n})
		}
		p := &parts[at]
		h := hits[i]
		if h.Hits < 0 {
			p.later.Hits = append(p.later.Hits, h)
			p.later.Outcomes = append(p.later.Outcomes, Outcome{})
			h.Hits, h.Beyond = 0, true // and refuse nothing
		}
		p.index = append(p.index, i)
		p.Hits = append(p.Hits, h)
		p.Outcomes = append(p.Outcomes, Outcome{})
	}
	return parts
}

// judge tells whether all parts pass. When they don't, what was taken in vain is owed, and the trips are told to settle it.
func (p *parted) judge(w *ways, asked int64, trips []trip) (passes bool) {
	passes = true
	for i := range p.parts {
		part := &p.parts[i]
		if part.Err != nil {
			p.whole.Err = part.Err
		}
		for j, at := range part.index { // to give back is never refused
			if o := &part.Outcomes[j]; p.whole.Hits[at].Hits < 0 {
				o.Allowed, o.RetryAfter = true, 0
			}
		}
		passes = passes && part.Err == nil && !refuses(part.Hits, part.Outcomes)
	}
	for i := range p.parts {
		part := &p.parts[i]
		if !passes && part.Err == nil && !refuses(part.Hits, part.Outcomes) {
			at := w.slots[part.slot]
			trips[at].settles = w.lanes[at].refund(part, asked) || trips[at].settles
		}
	}
	return passes
}

// join makes one answer of those of the parts.
func (p *parted) join() {
	for i := range p.parts {
		part := &p.parts[i]
		if part.later.Err != nil {
			p.whole.Err = part.later.Err
		}
		back := 0
		for j, at := range part.index {
			p.whole.Outcomes[at] = part.Outcomes[j]
			if p.whole.Hits[at].Hits < 0 {
				if o := part.later.Outcomes[back]; o.Limit > 0 { // it was made
					p.whole.Outcomes[at] = o
				}
				back++
			}
		}
	}
}

// refuses tells whether a hit is refused that the others depend on.
func refuses(hits []Hit, out []Outcome) bool {
	for i := range hits {
		if !out[i].Allowed && !hits[i].Beyond {
			return true
		}
	}
	return false
}

// refund gives back what p took, with the next write; what fails to be given back stays counted.
func (l *lane) refund(p *part, asked int64) (owing bool) {
	now := l.link.now()
	l.mu.Lock()
	for i := range p.Hits {
		h, o := p.Hits[i], &p.Outcomes[i]
		ends := asked + o.Reset.Microseconds() // no later than the window does
		if h.Hits <= 0 || h.windowed() && now >= ends {
			continue
		}
		h.Hits = -h.Hits
		debt := owed{decision: &Decision{Hits: []Hit{h}, Outcomes: make([]Outcome, 1)}}
		if h.windowed() {
			debt.end = h.windowEnd(l.redisTime(now))
		}
		l.owed = append(l.owed, debt)
		owing = true
		o.Count = max(0, o.Count-p.Hits[i].Hits)
		o.Remaining = max(0, o.Limit-o.Count)
	}
	l.mu.Unlock()
	return owing
}

// moved tells that a decision wasn't made since its slot is another node's, or on its way there.
func moved(err error) bool {
	return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK") || redis.HasErrorPrefix(err, "TRYAGAIN")
}

// once is a command that is never sent twice.
type once struct{ *redis.Cmd }

// NoRetry keeps go-redis from sending the command again when the connection broke after it was sent.
func (once) NoRetry() bool { return true }

// redirect makes a decision where go-redis is sent to.
func (s *redisStore) redirect(l *lane, d *Decision) {
	s.cluster.stale.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	b := batch{memory: s.memory, metrics: s.metrics, decisions: []*Decision{d}, asked: s.memory.now()}
	b.windows.begin(l.redisTime(b.asked))
	b.writeRun(eval, []int32{0})
	cmd := once{redis.NewCmd(ctx, words(b.buf)...)}
	cmd.SetFirstKeyPos(3)
	_ = s.client.Process(ctx, cmd) // the command holds the error
	answer, err := cmd.Slice()
	if err == nil {
		err = b.take(d, answer)
	}
	d.Err = err
	if err == nil {
		b.learn(d, 0)
	}
}

// words is a command that a batch wrote, as go-redis takes it.
func words(command []byte) []any {
	r := newReader(bytes.NewReader(command))
	var out []any
	for head, err := r.next(); err == nil; head, err = r.next() {
		if head.kind == text {
			out = append(out, string(head.text))
		}
	}
	return out
}

// take is readRun for one decision and an answer that go-redis read.
func (b *batch) take(d *Decision, answer []any) error {
	if len(answer) != 4*len(d.Hits) {
		return errReply
	}
	for i := range d.Hits {
		var v [4]int64
		for j := range v {
			n, ok := answer[4*i+j].(int64)
			if !ok {
				return errReply
			}
			v[j] = n
		}
		d.Outcomes[i] = b.outcome(&d.Hits[i], v)
	}
	return nil
}
