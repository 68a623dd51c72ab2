package policy

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a regular expression. Envoy refuses what compiles to more than 100 instructions of RE2 (its runtime key
// re2.max_program_size.error_level), and takes seconds over a large expression.
const (
	maxRegex   = 1024
	maxProgram = 100
	maxClasses = 4  // Unicode classes, each of which has hundreds of ranges
	maxEscapes = 64 // escapes and named classes
)

// Regex is a regular expression in RE2's syntax, checked to be one that Envoy takes.
type Regex string

// DecodePolicy reads an expression.
func (r *Regex) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar {
		d.Errorf(n, "want a regular expression, got %s", n.shape())
		return
	}
	if err := CheckRegex(n.Text); err != nil {
		d.Errorf(n, "%v", err)
		return
	}
	*r = Regex(n.Text)
}

// PolicySchema describes an expression.
func (*Regex) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "minLength": 1, "maxLength": maxRegex, "description": "a regular expression in RE2's syntax, for the whole value"}
}

// CheckRegex tells what is wrong with an expression that RE2 cannot run, or that is too large for Envoy.
func CheckRegex(expr string) error {
	switch {
	case expr == "":
		return errors.New("want a regular expression, got nothing")
	case strings.Count(expr, `\p`)+strings.Count(expr, `\P`) > maxClasses:
		return fmt.Errorf("the regular expression has more than %d Unicode classes", maxClasses)
	case strings.Count(expr, `\`)+strings.Count(expr, "[:") > maxEscapes:
		return fmt.Errorf("the regular expression has more than %d escapes", maxEscapes)
	case len(expr) > maxRegex:
		return fmt.Errorf("the regular expression is %d bytes long; want at most %d", len(expr), maxRegex)
	}
	if why := badRunes(expr); why != "" {
		return fmt.Errorf("%s can't be matched: %s", quote(expr), why)
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return fmt.Errorf("%s is no regular expression of RE2: %s", quote(expr), regexWords(err))
	}
	if treeSize(tree) > 10*maxProgram {
		return errors.New("the regular expression is far too large: shorten its repetitions and alternatives")
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return fmt.Errorf("%s is no regular expression of RE2: %w", quote(expr), err)
	}
	if size := programSize(program); size > maxProgram {
		return fmt.Errorf("the regular expression is too large: about %d instructions, Envoy takes %d; shorten its repetitions and alternatives", size, maxProgram)
	}
	return nil
}

func regexWords(err error) string {
	se, ok := errors.AsType[*syntax.Error](err)
	if !ok {
		return err.Error()
	}
	if se.Code == syntax.ErrInvalidPerlOp {
		return "it has no look-around and no back references: " + quote(se.Expr)
	}
	return se.Code.String() + ": " + quote(se.Expr)
}

// treeSize is about what a tree would compile to, so that nothing large is compiled only to be refused.
func treeSize(re *syntax.Regexp) int {
	size := 1
	for _, sub := range re.Sub {
		size += treeSize(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		size = len(re.Rune)
	case syntax.OpRepeat:
		size *= max(re.Min, re.Max, 1)
	}
	return min(size, 1<<20)
}

// badRunes says what Envoy's RE2 would take otherwise than written: it compares bytes (Latin-1), not characters.
func badRunes(expr string) string {
	for _, r := range expr {
		if r >= utf8.RuneSelf {
			return fmt.Sprintf("Envoy compares bytes: write the character %q escaped as a request has it (%%XX), or as \\xHH for each byte", r)
		}
	}
	for rest := expr; ; {
		_, after, ok := strings.Cut(rest, `\x{`)
		if !ok {
			return ""
		}
		digits, _, _ := strings.Cut(after, "}")
		if n, err := strconv.ParseUint(digits, 16, 32); err == nil && n > 0xff {
			return fmt.Sprintf(`Envoy compares bytes: \x{%s} is none`, digits)
		}
		rest = after
	}
}

// programSize estimates the instructions of RE2, rather above than below (a test holds it against Envoy's figures).
func programSize(program *syntax.Prog) int {
	size := programBase
	for _, inst := range program.Inst {
		switch inst.Op {
		case syntax.InstFail, syntax.InstMatch:
		case syntax.InstRune:
			size += rangesSize(inst.Rune)
		case syntax.InstRuneAnyNotNL:
			size += 2
		default:
			size++
		}
	}
	return size
}

// programBase is what every program of RE2 has besides.
const programBase = 4

// rangesSize counts the ranges of a class that bytes can be in.
func rangesSize(runes []rune) int {
	size := 0
	for i := 0; i < len(runes); i += 2 {
		if runes[i] <= 0xff {
			size++
		}
	}
	return max(size, 1)
}
