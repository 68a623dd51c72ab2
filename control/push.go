package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
)

// Change is a policy that somebody wants to be served in the place of the last revision.
type Change struct {
	Parent  string // the revision that it builds on; [NoParent] for the first one
	By      string // who wants it, as they say themselves
	Message string
	Force   bool // it may take away more than half of what is served
}

// NoParent is the parent of the first revision.
const NoParent = "none"

// Accepted is what came of a change.
type Accepted struct {
	revision.Revision
	Unchanged bool            `json:"unchanged,omitempty"` // it was the head already
	Served    bool            `json:"served"`              // by this process, by now
	Staged    []Staged        `json:"staged,omitempty"`    // the groups of which some Envoys get it first
	Released  []string        `json:"released,omitempty"`  // the groups of which all Envoys get it by force: it was on its way, or parked
	Parked    []Parked        `json:"parked,omitempty"`    // the groups that don't get it, as it was refused before
	Problems  policy.Problems `json:"problems"`            // warnings
}

// Refused is a policy with problems.
type Refused struct {
	Problems policy.Problems
	Files    policy.Files // for the source lines
}

func (r *Refused) Error() string {
	errs, _ := r.Problems.Split()
	return fmt.Sprintf("the policy has %d problems: %v", len(errs), errs[0])
}

// ErrDirectory is that a directory rules, so that nothing can be pushed.
var ErrDirectory = errors.New("this process serves a directory, which rules: change its files instead of pushing")

// Push makes files the next revision. They are accepted whole or not at all: [Refused] has the problems, a [Shrink] what
// they take away too much, [revision.ErrMoved] says that they build on another revision than the last one.
func (c *Controller) Push(ctx context.Context, files policy.Files, ch Change) (Accepted, error) {
	files = revision.Kept(files) // what is tried is what others get
	c.loading.Lock()
	defer c.loading.Unlock()
	compiled, problems, err := c.tried(files)
	if err != nil {
		return Accepted{}, err
	}
	if c.shelf.rules == nil {
		return c.approveDirectory(ctx, compiled, ch)
	}
	next := revision.Revision{Source: revision.Pushed, Hash: compiled.Model.Revision}
	return c.accept(ctx, next, settled{files: files, compiled: compiled, problems: problems}, ch)
}

// Rollback makes the files of an earlier revision the next one. Over a directory it holds until that changes.
func (c *Controller) Rollback(ctx context.Context, to string, ch Change) (Accepted, error) {
	h := c.History()
	target, err := h.Find(ctx, to)
	if err != nil {
		return Accepted{}, err
	}
	files, err := h.Files(ctx, target)
	if err != nil {
		return Accepted{}, err
	}
	c.loading.Lock()
	defer c.loading.Unlock()
	compiled, problems, err := c.tried(files)
	if err != nil {
		return Accepted{}, fmt.Errorf("revision %d can't be served any more: %w", target.Number, err)
	}
	next := revision.Revision{Source: revision.Rollback, Hash: compiled.Model.Revision, Of: target.Number}
	if c.shelf.rules == nil {
		candidate, _, err := ReadDir(c.o.Dir)
		if err != nil {
			return Accepted{}, fmt.Errorf("a rollback holds until the directory changes, and it can't be read: %w", err)
		}
		next.Pin = revision.Digest(candidate)
	}
	return c.accept(ctx, next, settled{files: files, compiled: compiled, problems: problems}, ch)
}

// History is the revisions that rule, or over a directory those that were served.
func (c *Controller) History() *revision.History {
	if c.shelf.rules != nil {
		return c.shelf.rules
	}
	return c.shelf.local
}

// tried compiles files as they would be served; a problem is an error.
func (c *Controller) tried(files policy.Files) (*Compiled, policy.Problems, error) {
	read := c.shelf.read
	c.shelf.read = revision.Revision{Number: 1} // whole or not at all
	good := c.settle(files, nil)
	c.shelf.read = read
	switch {
	case good.err != nil:
		return nil, nil, good.err
	case good.problems.HasErrors():
		return nil, nil, &Refused{good.problems, files}
	case good.compiled == nil: // nothing else than is served
		return c.newest(), good.problems, nil
	}
	return good.compiled, good.problems, nil
}

// accept appends a revision and has it served.
func (c *Controller) accept(ctx context.Context, next revision.Revision, good settled, ch Change) (Accepted, error) {
	h := c.History()
	head, err := h.Head(ctx)
	if err != nil {
		return Accepted{}, err
	}
	if err := c.builds(ctx, ch.Parent, head); err != nil {
		return Accepted{}, err
	}
	if head.Number > 0 && head.Hash == next.Hash && (next.Pin == "" || next.Pin == head.Pin) {
		var released []string
		if ch.Force {
			released, err = c.retry(ctx)
		}
		a := c.accepted(head, true, good)
		a.Released = released
		return a, err
	}
	if !ch.Force && !c.o.AllowShrink {
		if s := c.tooSmall(good.compiled); s != nil {
			s.Cure = "if it is meant, say --force"
			return Accepted{}, s
		}
	}
	next.Parent, next.By, next.Message, next.Forced, next.Time = head.Number, ch.By, ch.Message, ch.Force, time.Now().UTC().Round(0) // as it is read again
	next, err = h.Append(ctx, next, good.files)
	if err != nil {
		return Accepted{}, err
	}
	c.o.Log.Info("revision accepted", "revision", next.Number, "hash", next.Hash, "source", next.Source, "by", next.By, "message", next.Message,
		"changed", next.Changed, "forced", next.Forced)
	c.adopt(next, good)
	return c.accepted(next, false, good), nil
}

// adopt serves what was just accepted, as it was compiled then. Where a later one is served, which the history has lost,
// that stays.
func (c *Controller) adopt(r revision.Revision, good settled) {
	if s := &c.shelf; s.rules == nil {
		s.head = r
		s.pinned = true
	} else if s.served.Number >= r.Number && s.served.Time.After(r.Time) {
		return
	}
	c.shrink, c.shelf.read, c.shelf.files = nil, r, good.files
	if o := c.outcome.Load(); o.Revision == r.Hash && sameSecrets(good.compiled.Model.Secrets, c.serving()) {
		good.compiled = nil // it is what is served
	}
	good.problems = append(policy.Problems{}, good.problems...)
	c.conclude(good.files, good)
}

// accepted is the answer to a change.
func (c *Controller) accepted(r revision.Revision, unchanged bool, good settled) Accepted {
	o := c.outcome.Load()
	return Accepted{
		Revision: r, Unchanged: unchanged, Problems: append(policy.Problems{}, good.problems...), Staged: o.stagedOf(r.Hash),
		Parked: o.parkedOf(r.Hash), Served: o.Accepted != nil && o.Accepted.Number == r.Number,
	}
}

// builds tells what is wrong with a parent that is not the head.
func (c *Controller) builds(ctx context.Context, parent string, head revision.Revision) error {
	if parent == NoParent {
		if head.Number == 0 {
			return nil
		}
		return fmt.Errorf("%w: revision %d is there, and this one builds on none", revision.ErrMoved, head.Number)
	}
	on, err := c.History().Find(ctx, parent)
	switch {
	case errors.Is(err, revision.ErrNone) && head.Number > 0:
		return fmt.Errorf("%w: revision %d is the last one, and this one builds on %.64q, which is not known", revision.ErrMoved, head.Number, parent)
	case err != nil:
		return err
	case on.Number != head.Number:
		return fmt.Errorf("%w: revision %d is the last one, and this one builds on %d", revision.ErrMoved, head.Number, on.Number)
	}
	return nil
}

// approveDirectory has what the directory holds served though it takes away much, or is parked: who pushes the very same
// files with force has seen it.
func (c *Controller) approveDirectory(ctx context.Context, compiled *Compiled, ch Change) (Accepted, error) {
	o := c.outcome.Load()
	var released []string
	switch hash := compiled.Model.Revision; {
	case ch.Force && o.Shrink != nil && o.Shrink.Revision == hash:
		c.approved = hash
		c.o.Log.Info("directory approved though it takes away much", "revision", hash, "by", ch.By)
		c.load()
	case ch.Force && o.Revision == hash:
		var err error
		if released, err = c.retry(ctx); err != nil {
			return Accepted{}, err
		}
	default:
		return Accepted{}, ErrDirectory
	}
	if o = c.outcome.Load(); o.Accepted == nil || o.Revision != compiled.Model.Revision {
		return Accepted{}, ErrDirectory // it has changed meanwhile
	}
	return Accepted{
		Revision: *o.Accepted, Unchanged: true, Served: true, Staged: o.stagedOf(o.Revision), Released: released, Parked: o.parkedOf(o.Revision),
		Problems: policy.Problems{},
	}, nil
}
