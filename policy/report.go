package policy

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// stage is the step of loading that found a problem. Isolation mends the earlier ones first: what they break, the
// later ones complain of.
type stage uint8

const (
	parsing   stage = iota // the file cannot be read
	shaping                // sections and names
	decoding               // types, and settings on their own
	resolving              // references, and what several files say together
)

// Bounds of what is reported, so that a hostile file cannot make the answer large.
const (
	maxFileProblems = 200
	maxProblems     = 2_000 // of all files, and as many warnings; after that only the first of each further file is told
	maxCulprits     = 64
	maxGuesses      = 100_000 // names compared for hints
)

// reporter gathers problems, each once.
type reporter struct {
	stage    stage
	problems Problems
	seen     map[told]*Problem
	perFile  map[tally]int
	shown    map[bool]int // of all files, warnings apart
	errs     int          // told so far, repeated ones too
	told     int          // the same with warnings
	guesses  int
	// curtailed is set once there are so many problems that not all of a file are told.
	curtailed bool
}

// tally is what is counted of a file: its errors, and apart from them its warnings, which hold nothing up however many.
type tally struct {
	file    string
	warning bool
}

type told struct {
	pos     Pos
	message string
}

// report tells of a problem at rel below n, or at its nearest written parent.
func (r *reporter) report(n *Node, rel string, warning bool, format string, args ...any) *Problem {
	if r.perFile[tally{n.Pos.File, warning}] > maxFileProblems {
		return r.untold(warning)
	}
	at, left := n.find(rel)
	return r.add(&Problem{Pos: at.Pos, Path: join(at.Path(), left), Warning: warning, Message: fmt.Sprintf(format, args...)})
}

// reportKey is report at the key of a map instead of its value.
func (r *reporter) reportKey(key *Node, format string, args ...any) *Problem {
	if r.full(key.Pos.File) {
		return r.untold(false)
	}
	return r.add(&Problem{Pos: key.Pos, Path: key.Path(), Message: fmt.Sprintf(format, args...)})
}

// untold counts a problem of a file that has too many already.
func (r *reporter) untold(warning bool) *Problem {
	r.told++
	if !warning {
		r.errs++
	}
	return &Problem{Warning: warning}
}

func (r *reporter) add(p *Problem) *Problem {
	r.told++
	if !p.Warning {
		r.errs++
	}
	key := told{p.Pos, p.Message}
	if first := r.seen[key]; first != nil {
		first.Warning = first.Warning && p.Warning
		return first
	}
	p.stage = r.stage
	of := tally{p.Pos.File, p.Warning}
	r.perFile[of]++
	switch n := r.perFile[of]; {
	case n > maxFileProblems+1:
		return p
	case n > 1 && r.shown[of.warning] >= maxProblems:
		r.curtail()
		r.perFile[of] = maxFileProblems + 1
		return p
	case n == maxFileProblems+1:
		r.problems = append(r.problems, of.rest(r.stage))
		return p
	}
	r.seen[key] = p
	r.shown[of.warning]++
	r.problems = append(r.problems, p)
	return p
}

// rest stands for what is not told.
func (t tally) rest(s stage) *Problem {
	what := "problems"
	if t.warning {
		what = "warnings"
	}
	return &Problem{
		Pos: Pos{File: t.file}, stage: s, Warning: t.warning,
		Message: fmt.Sprintf("more than %d %s: the rest is not shown", maxFileProblems, what),
	}
}

// curtail tells, once, that not all is told of every file.
func (r *reporter) curtail() {
	if !r.curtailed {
		r.curtailed = true
		r.problems = append(r.problems, &Problem{
			Pos: Pos{File: "."}, stage: r.stage, Warning: true,
			Message: fmt.Sprintf("more than %d problems: of some files only the first is shown", maxProblems),
		})
	}
}

// full tells whether no more errors are told of a file: what is left of it need not be looked at.
func (r *reporter) full(file string) bool { return r.perFile[tally{file, false}] > maxFileProblems }

func (r *reporter) done() Problems {
	r.problems.sort()
	for _, p := range r.problems {
		slices.SortFunc(p.Also, Pos.compare)
		p.Also = slices.Compact(p.Also)
	}
	return r.problems
}

// guess is hint, as long as there are not too many names to compare.
func (r *reporter) guess(name string, candidates []string) string {
	if r.guesses += len(candidates); r.guesses > maxGuesses {
		return ""
	}
	return hint(name, candidates)
}

func (p *Problem) suspect(files ...string) *Problem {
	for _, f := range files {
		if len(p.culprits) < maxCulprits && !slices.Contains(p.culprits, f) {
			p.culprits = append(p.culprits, f)
		}
	}
	return p
}

// also names another place of a conflict.
func (p *Problem) also(at Pos) *Problem {
	if at != p.Pos && len(p.Also) < maxCulprits {
		p.Also = append(p.Also, at)
	}
	return p
}

// has tells whether section has an entry of that name. While a file is unreadable its entries are unknown, and every
// name passes: the file's own problem stands for them.
func (l *loader) has(section, name string) bool {
	return l.entry(section, name) != nil || l.unreadable
}

// refer notes that something depends on an entry to be there, where entries may come and go between two loads.
func (l *loader) refer(section, name string) {
	if section == "services" || section == "routes" {
		m := l.meets()
		m.names = append(m.names, Target{section, name})
	}
}

// missing reports a reference to what is not there.
func (l *loader) missing(n *Node, rel, section, name string) *Problem {
	return l.absent(l.report(n, rel, false, "there is no %s %s", singular(section), quote(name)), section, name)
}

func (l *loader) absent(p *Problem, section, name string) *Problem {
	p.Missing, p.stage = &Target{Section: section, Name: name}, resolving
	if p.Hint == "" {
		p.Hint = l.guess(name, l.namesOf(section))
	}
	return p
}

// namesOf gives the names of a section's entries, sorted once.
func (l *loader) namesOf(section string) []string {
	if l.sorted[section] == nil {
		l.sorted[section] = slices.Sorted(maps.Keys(l.raw[section]))
	}
	return l.sorted[section]
}

func singular(section string) string {
	switch section {
	case "auth":
		return "auth entry"
	case "rateLimits":
		return "domain"
	}
	return strings.TrimSuffix(section, "s")
}

// file finds what the policy refers to; it gives the full name too, also of what is not there.
func (l *loader) file(n *Node, rel, name string) ([]byte, string, *Problem) {
	at, _ := n.find(rel)
	full := path.Join(path.Dir(at.Pos.File), name)
	if name == "" || path.IsAbs(name) {
		return nil, full, l.outside(n, rel, name)
	}
	content, p := l.fileAt(n, rel, full)
	return content, full, p
}

func (l *loader) outside(n *Node, rel, name string) *Problem {
	return l.report(n, rel, false, "%s is not a file of the policy directory", quote(name)).
		Hintf("put the file into the policy directory and write its path relative to this file's folder")
}

// fileAt is file by its full name.
func (l *loader) fileAt(n *Node, rel, full string) ([]byte, *Problem) {
	if full == ".." || strings.HasPrefix(full, "../") || strings.Contains(full, `\`) {
		return nil, l.outside(n, rel, full)
	}
	content, ok := l.files[full]
	if !ok {
		p := l.report(n, rel, false, "there is no file %s in the policy directory", quote(full))
		switch {
		case p.Hint != "":
		case !slices.Contains(referable, path.Ext(full)):
			p.Hintf("files that policy refers to end in %s", strings.Join(referable, ", "))
		default:
			p.Hint = cmp.Or(l.guess(full, l.others()), fmt.Sprintf("put it there; its path begins at the folder of this file, and one that is larger than %d KiB is not read", maxFile>>10))
		}
		return nil, p
	}
	m := l.meets()
	m.files = append(m.files, full)
	return content, nil
}

// others names the files that are not policy.
func (l *loader) others() []string {
	if l.sorted[besides] == nil {
		for name := range l.files {
			if !IsPolicy(name) {
				l.sorted[besides] = append(l.sorted[besides], name)
			}
		}
		slices.Sort(l.sorted[besides])
	}
	return l.sorted[besides]
}

// besides stands among the sections for the files that are not policy.
const besides = ""
