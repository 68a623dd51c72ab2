package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"time"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
)

// Where a policy comes from: a directory rules, and a rollback over it holds until it changes; or, without one, the head
// of a history does, of which each revision was accepted whole. What was served is in the history of this process, so that
// a restart without the source serves it again: policy files only, never secrets.

// The sources that [Outcome.Source] tells.
const (
	FromDirectory = "directory"
	FromRevisions = "revisions"
)

// shelf is what a controller knows of its source and of revisions. Loads and pushes alone change it: Controller.loading
// guards its fields, of which served is changed under Controller.mu as well, and may be read under that.
type shelf struct {
	local *revision.History // of this process; nil: it can't be kept
	rules *revision.History // the history whose head rules; nil: a directory does
	close func() error
	head  revision.Revision // of local
	// recalled is the content hash of what this process served before the restart; empty where it is not known.
	recalled string
	served   revision.Revision // what is served, or was before the restart; of rules where there is one

	// Of the last reading of the source.
	read   revision.Revision // the revision that it gave; of number 0: a directory's files as they stand
	files  policy.Files      // of read
	pinned bool              // read is a rollback, over a directory that has not changed since
}

// whole tells that what was read is served whole or not at all: it is a revision, and not files that somebody is writing.
func (s *shelf) whole() bool { return s.read.Number > 0 }

// storeTime is how long the history may take to be read.
const storeTime = 10 * time.Second

// errEmpty is a history without a revision.
var errEmpty = errors.New("no policy has been pushed yet: legation push DIR")

// openShelf opens the history of this process. One that can't be opened costs the history, not the start.
func (c *Controller) openShelf() {
	name := "revisions"
	switch {
	case c.o.Dir != "":
		dir := c.o.Dir
		if absolute, err := filepath.Abs(dir); err == nil {
			dir = absolute // another directory's policy is no fallback for this one
		}
		sum := sha256.Sum256([]byte(dir))
		name += "-" + hex.EncodeToString(sum[:6])
	case c.o.History != nil:
		name = "served"
	}
	path := ""
	if c.o.DataDir != "" {
		path = filepath.Join(c.o.DataDir, name)
	}
	archive, err := store.OpenArchive(path, c.o.Log)
	if err != nil {
		c.o.Log.Warn("revisions not kept", "error", err)
		if archive, err = store.OpenArchive("", c.o.Log); err != nil {
			return
		}
	}
	c.shelf.local, c.shelf.close = revision.New(archive, c.o.Log), archive.Close
	switch {
	case c.o.Dir != "":
	case c.o.History != nil:
		c.shelf.rules = c.o.History
	default:
		c.shelf.rules = c.shelf.local
	}
}

// recallable is how many revisions are looked at, from the last one back, for one that can be served.
const recallable = 10

// recall finds the last revision that this process served and that can still be served, and its model.
func (c *Controller) recall() *policy.Model {
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	all, err := c.shelf.local.List(ctx)
	if err != nil {
		c.o.Log.Warn("last good policy not usable", "error", err)
	}
	if len(all) > 0 {
		c.shelf.head, c.shelf.recalled = all[0], all[0].Hash
	}
	for _, r := range first(all, recallable) {
		files, err := c.shelf.local.Files(ctx, r)
		if err != nil {
			c.o.Log.Warn("last good policy not usable", "revision", r.Number, "error", err)
			continue
		}
		if c.last == nil {
			c.last, c.shelf.served = files, r
		}
		if model, _ := c.withCompanionSecrets().Load(files); model != nil {
			c.last, c.shelf.served = files, r
			return model
		}
	}
	return nil // written by another version; the first load tells what is wrong if it is needed
}

// read reads the source. What is there and can't be read, or is empty all of a sudden, stays as it was served: a file
// that is being written is not one that was deleted.
func (c *Controller) read() (policy.Files, policy.Problems, error) {
	s := &c.shelf
	if s.rules != nil {
		return c.readHead()
	}
	candidate, problems, err := ReadDir(c.o.Dir)
	if head := s.head; head.Pin != "" && (err != nil || head.Pin == revision.Digest(candidate)) {
		if files, failed := c.filesOf(s.local, head); failed == nil {
			s.read, s.files, s.pinned = head, files, true
			return files, nil, err
		}
	}
	s.read, s.files, s.pinned = revision.Revision{}, nil, false
	if err != nil {
		return c.last, nil, err // what is served does not change because the directory went away
	}
	candidate, emptied := withEmptied(candidate, c.last)
	if problems = append(problems, emptied...); len(problems) > 0 {
		candidate = withUnread(candidate, c.last, problems)
	}
	return candidate, problems, nil
}

// readHead reads the head of the history that rules.
func (c *Controller) readHead() (policy.Files, policy.Problems, error) {
	s := &c.shelf
	head, files, err := c.headOf()
	if err != nil {
		s.read, s.files = s.served, c.last
		return c.last, nil, err // nor because the store is away
	}
	s.read, s.files = head, files
	return files, nil, nil
}

func (c *Controller) headOf() (revision.Revision, policy.Files, error) {
	s := &c.shelf
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	head, err := s.rules.Head(ctx)
	if err == nil && head.Number < s.served.Number && head.Time.Before(s.served.Time) {
		head, err = c.restore(ctx, head)
	}
	switch {
	case err != nil:
		return head, nil, err
	case head.Number == 0:
		return head, nil, errEmpty
	}
	files, err := c.filesOf(s.rules, head)
	return head, files, err
}

// restore gives the store back what it has lost, as a Redis that was restarted without its data, or whose replica took
// over too early: numbers only ever grow with time. Of several processes that do so the one that knows most wins.
func (c *Controller) restore(ctx context.Context, head revision.Revision) (revision.Revision, error) {
	lost := c.shelf.served
	lost.Parent = head.Number
	restored, err := c.shelf.rules.Append(ctx, lost, c.last)
	if errors.Is(err, revision.ErrMoved) {
		return c.shelf.rules.Head(ctx)
	}
	if err == nil {
		c.o.Log.Warn("revision written back: the store had lost it", "revision", lost.Number, "found", head.Number)
	}
	return restored, err
}

// filesOf gives the files of a revision; those that were read last are at hand.
func (c *Controller) filesOf(h *revision.History, r revision.Revision) (policy.Files, error) {
	if r.Manifest == c.shelf.read.Manifest && c.shelf.files != nil {
		return c.shelf.files, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	return h.Files(ctx, r)
}

// fallback is the files that a bad part of the candidate falls back to: those of a revision to none.
func (c *Controller) fallback(candidate policy.Files) policy.Files {
	if c.shelf.whole() {
		return candidate
	}
	return c.last
}

// pick finds what of the candidate is to be served. Where that is nothing, and nothing is served yet, what was served
// before the restart takes its place; the problems are the candidate's. Held is as for settle.
func (c *Controller) pick(candidate, held policy.Files) settled {
	if c.shelf.rules != nil && len(candidate) == 0 {
		return settled{} // nothing has been pushed
	}
	good := c.settle(candidate, held)
	if good.compiled != nil && !c.shelf.whole() && len(c.last) > 0 {
		if good.err = c.refusal(good.compiled); good.err != nil {
			good.compiled = nil
		}
	}
	if good.compiled != nil || len(c.last) == 0 || c.outcome.Load().Revision != "" {
		return good
	}
	read := c.shelf.read
	c.shelf.read = c.shelf.served // it was served: whole or not at all
	before := c.settle(c.last, nil)
	if c.shelf.read = read; before.compiled != nil {
		c.shelf.read = c.shelf.served
	}
	before.problems, before.err = good.problems, errors.Join(good.err, before.err)
	return before
}

// keep notes what is served now: in the history of this process, unless it is there.
func (c *Controller) keep(files policy.Files, m *policy.Model) {
	s := &c.shelf
	s.served = s.read
	if s.local == nil || s.rules == s.local || m.Revision == s.head.Hash && s.head.Number > 0 {
		if s.rules == nil {
			s.served = s.head
		}
		return
	}
	r := s.read // of a history that others share: under its own number, where that is free
	r.Parent = s.head.Number
	if s.rules == nil {
		r = revision.Revision{Source: revision.Directory, Hash: m.Revision, Time: time.Now(), Parent: s.head.Number}
	} else if r.Number <= r.Parent {
		r.Number = 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	kept, err := s.local.Append(ctx, r, files)
	if err != nil {
		c.o.Log.Warn("revision not kept", "error", err)
		return
	}
	if s.head = kept; s.rules == nil {
		s.served = kept
	}
}

// follow loads each new head of the history that rules, until ctx ends.
func (c *Controller) follow(ctx context.Context) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.shelf.rules.Changed():
		case <-tick.C:
		}
		if c.behind(ctx) {
			c.Load()
		}
	}
}

// behind tells whether there is something to load: a history that rests costs one look at it.
func (c *Controller) behind(ctx context.Context) bool {
	c.loading.Lock() // what is being pushed is about to be served
	defer c.loading.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	head, err := c.shelf.rules.Head(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.outcome.Load()
	return err != nil || o.Error != "" || o.Revision == "" || head != c.shelf.served
}

// source names where the policy comes from.
func (c *Controller) source() string {
	if c.o.Dir == "" {
		return FromRevisions
	}
	return FromDirectory
}

// tell completes an outcome with how it stands with revisions.
func (c *Controller) tell(o *Outcome) {
	s := &c.shelf
	if s.whole() && s.read.Hash == o.Revision {
		s.served = s.read // the same policy under another number
	}
	o.Accepted, o.Pinned, o.Shrink = nil, false, c.shrink
	if s.served.Number > 0 && s.served.Hash == o.Revision {
		o.Accepted = new(s.served)
		o.Pinned = s.pinned
	}
	c.tellParked(o)
}

// tellParked completes an outcome with what Envoys refuse, and what only some of them have yet.
func (c *Controller) tellParked(o *Outcome) {
	o.Parked, o.Staged = c.fleet.parked(), c.fleet.staged()
	c.metrics.parked.Reset()
	for _, p := range o.Parked {
		c.metrics.parked.WithLabelValues(p.Group).Set(1)
	}
	c.metrics.staged.Reset()
	for _, s := range o.Staged {
		c.metrics.staged.WithLabelValues(s.Group).Set(float64(len(s.Canaries)))
	}
}
