package rewrite

import "regexp/syntax"

// group is what a group of a pattern can take from a path. The path begins with a slash, and none of its segments is
// empty (but a last one), "." or "..": Envoy has seen to it.
type group struct {
	partial bool // not whole segments
	empty   bool
	slash   bool // begins with a slash
	plain   bool // begins with anything else
	open    bool // ends with a slash
	letters bool // letters, digits, - and _ only
}

// word tells whether the group is harmless text, whatever stands beside it.
func (g group) word() bool { return g.letters && !g.empty }

// groups walks through all ways in which a pattern can match a path. The first of them is the whole match. whole tells
// whether each way takes the whole path.
func groups(pattern string) (found []group, whole bool) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, false
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, false
	}
	whole = true
	for n := range tree.MaxCap() + 1 {
		w := walk{program: program, number: n, seen: make(map[step]bool), group: group{letters: true}}
		if n == 0 {
			w.group = group{slash: true, open: true}
		}
		w.from(step{pc: program.Start})
		found, whole = append(found, w.group), whole && !w.loose
	}
	return found, whole
}

// walk goes through a program for the sake of one group.
type walk struct {
	program *syntax.Prog
	number  int
	seen    map[step]bool
	group   group
	loose   bool // a match may leave some of the path out
}

// step is a place in the program, and what is known of the path so far.
type step struct {
	pc    int
	last  last
	place place
	begun bool // tied to the beginning
	ended bool // tied to the end
}

// last is the character before a step.
type last uint8

const (
	none last = iota
	slash
	other
)

// place is where a step is to the group.
type place uint8

const (
	before place = iota
	opened       // nothing taken yet
	inside
	hollow // closed with nothing taken, and nothing since
	closed // nothing taken since
	after
)

func (w *walk) from(s step) {
	if w.seen[s] {
		return
	}
	w.seen[s] = true
	inst := &w.program.Inst[s.pc]
	next := s
	next.pc = int(inst.Out)
	switch inst.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		w.from(next)
		next.pc = int(inst.Arg)
		w.from(next)
	case syntax.InstNop:
		w.from(next)
	case syntax.InstCapture:
		w.capture(int(inst.Arg), next)
	case syntax.InstEmptyWidth:
		w.tie(syntax.EmptyOp(inst.Arg), next)
	case syntax.InstMatch:
		w.match(s)
	case syntax.InstFail:
	default:
		w.take(inst, next)
	}
}

// capture opens or closes the group.
func (w *walk) capture(bound int, s step) {
	switch {
	case w.number == 0:
	case bound == 2*w.number:
		s.place = opened
	case bound == 2*w.number+1:
		s.place = s.place.close()
	}
	w.from(s)
}

// tie goes on where the path begins or ends; it has one line only.
func (w *walk) tie(op syntax.EmptyOp, s step) {
	if op&(syntax.EmptyBeginText|syntax.EmptyBeginLine) != 0 {
		if s.last != none {
			return
		}
		s.begun = true
	}
	if op&(syntax.EmptyEndText|syntax.EmptyEndLine) != 0 {
		s.ended = true
	}
	w.from(s)
}

func (w *walk) match(s step) {
	w.loose = w.loose || !s.begun || !s.ended
	w.group.empty = w.group.empty || w.number > 0 && (s.place == before || s.place == hollow)
	w.group.open = w.group.open || s.place == closed && s.last == slash
}

// take goes on past one character: a slash first and never after another.
func (w *walk) take(inst *syntax.Inst, s step) {
	if s.ended {
		return
	}
	w.loose = w.loose || !s.begun
	if s.last != slash && inst.MatchRune('/') {
		w.note(s, true, false)
		next := s
		next.last, next.place = slash, s.place.past()
		w.from(next)
	}
	if some, letters := others(inst); s.last != none && some {
		w.note(s, false, letters)
		next := s
		next.last, next.place = other, s.place.past()
		w.from(next)
	}
}

// note keeps what a character says of the group.
func (w *walk) note(s step, isSlash, letters bool) {
	g := &w.group
	switch s.place {
	case opened:
		g.slash, g.plain = g.slash || isSlash, g.plain || !isSlash
		g.letters = g.letters && letters
		g.partial = g.partial || s.last == other && !isSlash
	case inside:
		g.letters = g.letters && letters
	case hollow:
		g.empty = true
	case closed:
		g.partial = g.partial || s.last == other && !isSlash
		g.open = g.open || s.last == slash
	}
}

// past is the place after a character.
func (p place) past() place {
	switch p {
	case opened:
		return inside
	case hollow, closed:
		return after
	}
	return p
}

func (p place) close() place {
	if p == opened {
		return hollow
	}
	return closed
}

// others tells whether an instruction takes anything but a slash, and whether that is letters, digits, - and _ only.
func others(inst *syntax.Inst) (some, letters bool) {
	letters = true
	for r := rune(0); r < 0x100; r++ {
		if r != '/' && inst.MatchRune(r) {
			some, letters = true, letters && letter(r)
		}
	}
	if !some { // beyond Latin-1, or a slash alone
		some = !inst.MatchRune('/')
		letters = false
	}
	return some, letters
}

func letter(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}
