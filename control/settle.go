package control

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// settled is the set of files that can be served.
type settled struct {
	files    policy.Files
	compiled *Compiled       // nil: nothing can, or nothing else than is served
	problems policy.Problems // of the candidate
	err      error           // what is no problem of a file
}

// attempts bounds how often a file that Envoy can't be told falls back. The first try is among them.
const attempts = 8

// settle finds what of the candidate can be served. A file whose content is good and can't be said to Envoy falls back
// as one does that is wrong by itself. Held is files that stand in the candidate as they were served, and what they hold
// by now; nil where that is not known.
func (c *Controller) settle(candidate, held policy.Files) settled {
	if c.o.Secrets == nil {
		return c.settleWith(c.loader, candidate, held)
	}
	var s settled
	for range rereads {
		secrets := c.o.Secrets.Read()
		if s = c.settleWith(c.loader.WithSecrets(secrets, c.o.Secrets.Kinds...), candidate, held); secrets.Still() {
			break
		}
	}
	return s
}

// rereads bounds how often a policy is loaded anew because its secrets were changed meanwhile; the watch tells of the
// last change in any case.
const rereads = 3

func (c *Controller) settleWith(loader *policy.Loader, candidate, held policy.Files) settled {
	var told policy.Problems
	for range attempts {
		files, model, problems := loader.Holding(held).Isolate(candidate, c.fallback(candidate), c.serving()...)
		s := settled{files: files, problems: append(told, problems...)}
		if model == nil || model.Revision == c.outcome.Load().Revision && sameSecrets(model.Secrets, c.serving()) {
			return s // a poll of a directory that rests costs no translation
		}
		var err error
		if s.compiled, err = c.compiler.compile(model); err == nil {
			err = c.validate(files, s.compiled)
		}
		if err == nil {
			return s
		}
		refused := Problems(err)
		if len(refused) == 0 {
			s.compiled, s.err = nil, err
			return s
		}
		wrong, _ := problems.Split() // these files have fallen back; warnings are told again of what is loaded next
		told = slices.Concat(told, wrong, refused)
		next := fallBack(files, c.fallback(files), refused)
		if maps.EqualFunc(next, files, bytes.Equal) {
			break
		}
		held = withHeld(held, candidate, next)
		candidate = next
	}
	return settled{problems: told}
}

// serving is the secrets that are served.
func (c *Controller) serving() []*policy.Secret {
	if m := c.outcome.Load().Model; m != nil {
		return m.Secrets
	}
	return nil
}

// sameSecrets compares what secrets hold. They are no part of a revision, which everybody may see.
func sameSecrets(a, b []*policy.Secret) bool { return slices.EqualFunc(a, b, sameSecret) }

func sameSecret(a, b *policy.Secret) bool {
	return a.ID() == b.ID() && bytes.Equal(a.Value, b.Value) && bytes.Equal(a.Key, b.Key)
}

// rotates tells whether a model has other secrets than what is served. Where nothing is yet, there are none to compare.
func (c *Controller) rotates(m *policy.Model) bool {
	return c.outcome.Load().Model != nil && !sameSecrets(m.Secrets, c.serving())
}

// rotated is the IDs of the secrets that differ between two models of one revision.
func rotated(before, after *policy.Model) []string {
	if before == nil || before.Revision != after.Revision {
		return nil
	}
	var ids []string
	for _, s := range after.Secrets {
		if old := before.Secret(s.ID()); old == nil || !sameSecret(old, s) {
			ids = append(ids, s.ID())
		}
	}
	return ids
}

// withHeld adds to held what the files of candidate hold that fall back in next.
func withHeld(held, candidate, next policy.Files) policy.Files {
	all := maps.Clone(held)
	for name, data := range candidate {
		if to, ok := next[name]; ok && bytes.Equal(to, data) {
			continue
		}
		if _, known := all[name]; !known {
			if all == nil {
				all = make(policy.Files)
			}
			all[name] = data
		}
	}
	return all
}

// fallBack gives the files that are to blame their last version, and leaves out those that have none.
func fallBack(files, last policy.Files, blamed policy.Problems) policy.Files {
	next := maps.Clone(files)
	for _, p := range blamed {
		for _, at := range append([]policy.Pos{p.Pos}, p.Also...) {
			if data, ok := last[at.File]; ok {
				next[at.File] = data
			} else {
				delete(next, at.File)
			}
		}
	}
	return next
}

// withEmptied gives back to policy files that have nothing in them any more what was served of them: editors and
// copies empty a file before they fill it, and some never get there.
func withEmptied(candidate, last policy.Files) (policy.Files, policy.Problems) {
	files := candidate
	var problems policy.Problems
	for _, name := range slices.Sorted(maps.Keys(last)) {
		data, there := candidate[name]
		if !there || !policy.IsPolicy(name) || !blank(data) || blank(last[name]) {
			continue
		}
		if len(problems) == 0 {
			files = maps.Clone(candidate)
		}
		files[name] = last[name]
		p := &policy.Problem{Pos: policy.Pos{File: name}, Message: "the file is empty: what it held before stays"}
		problems = append(problems, p.Hintf("delete the file if nothing of it shall be served"))
	}
	return files, problems
}

// blank tells whether a policy file holds nothing but comments.
func blank(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && string(line) != "---" {
			return false
		}
	}
	return true
}

// withUnread adds to candidate the last version of the files, and of what is below the folders, that are there and
// can't be read.
func withUnread(candidate, last policy.Files, problems policy.Problems) policy.Files {
	files := maps.Clone(candidate)
	if files == nil {
		files = policy.Files{}
	}
	for name, data := range last {
		unread := func(p *policy.Problem) bool {
			return p.Pos.File == "." || name == p.Pos.File || strings.HasPrefix(name, p.Pos.File+"/")
		}
		if slices.ContainsFunc(problems, unread) {
			files[name] = data
		}
	}
	return files
}

// unknown is the files and folders of which these problems say that it can't be known what they hold.
func unknown(last policy.Files, problems policy.Problems) policy.Files {
	held := make(policy.Files)
	for _, p := range problems {
		if _, served := last[p.Pos.File]; !served || policy.IsPolicy(p.Pos.File) {
			held[p.Pos.File] = nil
		}
	}
	return held
}
