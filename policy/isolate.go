package policy

import (
	"bytes"
	"maps"
	"slices"
)

// Isolate finds the set of files that can be served: the candidate where it is good; a blamed file (and a deleted one
// that blamed files still need) as in last, the set that is being served. What has gone from another file meanwhile, and
// may have moved into one that is held back so, stays: that file is as in last, too. It returns that set, its model, and
// the problems of the candidate. With no last set the candidate is served whole or not at all (nil model). A secret that
// may not be used any more stays as it was among those being served; where it is none of them, the files that refer to
// it are to blame.
func (l *Language) Isolate(candidate, last Files, serving ...*Secret) (Files, *Model, Problems) {
	known := make(trees)
	load := func(files Files, kept map[string]*Secret) (*Model, Problems) {
		return l.begin(files, kept).whole(known)
	}
	return isolate(load, &isolation{candidate: candidate, last: last, known: known}, serving)
}

// isolate is [Language.Isolate] by whatever loads.
func isolate(load func(Files, map[string]*Secret) (*Model, Problems), s *isolation, serving []*Secret) (Files, *Model, Problems) {
	model, problems := load(s.candidate, nil)
	if len(s.last) == 0 || model != nil && len(s.held) == 0 {
		return s.candidate, model, problems
	}
	s.files, s.serving, s.kept = maps.Clone(s.candidate), make(map[string]*Secret), make(map[string]*Secret)
	if s.files == nil {
		s.files = make(Files)
	}
	for _, secret := range serving {
		s.serving[secret.ID()] = secret
	}
	for found := problems; ; model, found = load(s.files, s.kept) {
		if model == nil && !s.step(found) {
			break
		}
		if model != nil && !s.stay() {
			return s.files, model, append(problems, s.stayed...)
		}
	}
	model, _ = load(s.last, s.serving)
	return s.last, model, problems
}

// isolation is a set of files on its way from the candidate towards the last good one. Each step takes at least one
// file or secret back to its last version, so that it ends after as many steps as there are of them.
type isolation struct {
	candidate, last, files Files
	held                   Files // see [Loader.Holding]
	known                  trees
	serving, kept          map[string]*Secret // by ID: all that are served, and those that stay as they are
	stayed                 Problems           // warnings
}

// step takes back what the earliest stage of loading blames; false when nothing is left to take back.
func (s *isolation) step(found Problems) bool {
	found = earliest(found)
	changed := false
	for _, p := range found {
		if s.keep(p.secret) {
			changed = true
			continue
		}
		for _, name := range p.files() {
			changed = s.restore(name) || changed
		}
	}
	if changed {
		return true
	}
	for _, p := range found { // all the blamed are at their last version: something else has changed below them
		for _, name := range append(s.definers(p.Missing), p.culprits...) {
			changed = s.restore(name) || changed
		}
	}
	return changed
}

// keep has a secret stay as it is served; false when it does already, or can't.
func (s *isolation) keep(id string) bool {
	if s.serving[id] == nil || s.kept[id] != nil {
		return false
	}
	s.kept[id] = s.serving[id]
	return true
}

func earliest(found Problems) Problems {
	first := resolving
	for _, p := range found {
		if !p.Warning {
			first = min(first, p.stage)
		}
	}
	return slices.DeleteFunc(slices.Clone(found), func(p *Problem) bool { return p.Warning || p.stage > first })
}

// files are those that are to blame first.
func (p *Problem) files() []string {
	files := []string{p.Pos.File}
	for _, pos := range p.Also {
		files = append(files, pos.File)
	}
	return append(files, p.blames...)
}

// restore puts a file back to its last version, or takes it out when it has none; false when it stood there already.
func (s *isolation) restore(name string) bool {
	was, had := s.last[name]
	is, has := s.files[name]
	switch {
	case had == has && bytes.Equal(was, is):
		return false
	case had:
		s.files[name] = was
	default:
		delete(s.files, name)
	}
	return true
}

// definers are the files that had an entry which is missing now.
func (s *isolation) definers(target *Target) []string {
	if target == nil {
		return nil
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.last)) {
		if IsPolicy(name) && s.defines(name, target) {
			names = append(names, name)
		}
	}
	return names
}

func (s *isolation) defines(name string, target *Target) bool {
	for _, root := range s.roots(s.last, name) {
		if target.in(root.Get(target.Section)) || target.Section == "gateways" && target.in(root.Get("sidecars")) {
			return true
		}
	}
	return false
}

// roots are the documents of a file.
func (s *isolation) roots(files Files, name string) []*Node {
	return s.known.parse(files, []string{name})[0].roots
}

func (t *Target) in(section *Node) bool {
	if section == nil || section.Kind != Map {
		return false
	}
	return t.Name == "" && len(section.Keys) > 0 || section.Get(t.Name) != nil
}
