package rewrite

import (
	"regexp"
	"regexp/syntax"
	"strings"
)

// keepsSlash tells whether every path still begins with a slash after the replacement, as far as can be proved.
// Otherwise a client could choose what the request line to the backend begins with, such as http:.
func keepsSlash(pattern, substitution string) bool {
	if strings.HasPrefix(substitution, "/") {
		return true
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return true // reported where it was read
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil || !takesSlash(program, program.Start, map[int]bool{}) {
		return true
	}
	return strings.HasPrefix(substitution, `\1`) && leads(tree)
}

// takesSlash tells whether a match can begin with a slash, or be empty, from an instruction on.
func takesSlash(program *syntax.Prog, pc int, seen map[int]bool) bool {
	if seen[pc] {
		return false
	}
	seen[pc] = true
	inst := &program.Inst[pc]
	switch inst.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		return takesSlash(program, int(inst.Out), seen) || takesSlash(program, int(inst.Arg), seen)
	case syntax.InstCapture, syntax.InstEmptyWidth, syntax.InstNop:
		return takesSlash(program, int(inst.Out), seen)
	case syntax.InstMatch, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	case syntax.InstRune, syntax.InstRune1:
		return inst.MatchRune('/')
	default:
		return false
	}
}

// leads tells whether every match begins with the first group, and the group with a character.
func leads(tree *syntax.Regexp) bool {
	for tree.Op == syntax.OpConcat {
		first := 0
		for first < len(tree.Sub)-1 && (tree.Sub[first].Op == syntax.OpBeginText || tree.Sub[first].Op == syntax.OpBeginLine) {
			first++
		}
		tree = tree.Sub[first]
	}
	if tree.Op != syntax.OpCapture || tree.Cap != 1 {
		return false
	}
	empty, err := regexp.MatchString("^(?:"+tree.Sub[0].String()+")$", "")
	return err == nil && !empty
}
