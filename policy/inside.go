package policy

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Inside is the place in the file of a character of the text at path, such as that of an error in an expression. line
// and column count from 1, in the text as it was read, column in characters. Where it can't be told it is the text's own.
func (c *Check) Inside(path string, line, column int) Pos {
	n, left := c.set.Node.find(path)
	if n.Kind != Scalar || left != "" && left[0] == '[' {
		return n.Pos
	}
	before := offset(n.Text, line, column)
	return inside(c.load.files[n.Pos.File], n, utf8.RuneCountInString(n.Text[:before]))
}

// offset is where a character of a text stands in it, in bytes; its end where there is no such character.
func offset(text string, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		end := strings.IndexByte(text[at:], '\n')
		if end < 0 {
			return len(text)
		}
		at += end + 1
	}
	for ; column > 1 && at < len(text) && text[at] != '\n'; column-- {
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return at
}

// inside finds the character of a scalar, of which some characters stand before it. YAML folds and indents white space in
// more ways than one; all else stands in the file in the order of the text, but for escapes. So that is what is compared.
func inside(file []byte, n *Node, before int) Pos {
	s := source{rest: file, at: Pos{File: n.Pos.File, Line: 1, Col: 1}}
	if n.Pos.Col > maxInside || !s.toLine(n.Pos.Line) {
		return n.Pos
	}
	for s.at.Col < n.Pos.Col {
		if s.next() == utf8.RuneError {
			return n.Pos
		}
	}
	s.open()
	last := n.Pos // of the character before
	for _, want := range n.Text {
		if before--; unicode.IsSpace(want) {
			if before < 0 {
				last.Col++
				return last
			}
			continue
		}
		s.skip()
		at := s.at
		if s.char() != want {
			return n.Pos
		}
		if last = at; before < 0 {
			return at
		}
	}
	last.Col++
	return last
}

// source is what is left of a file.
type source struct {
	rest  []byte
	at    Pos
	quote byte // that the scalar stands in; 0 for none
}

// maxInside is how far into a line a place is looked for: nobody reads beyond.
const maxInside = 10_000

// toLine goes on to the beginning of a line; false when there is none.
func (s *source) toLine(line int) bool {
	for s.at.Line < line {
		end := bytes.IndexByte(s.rest, '\n')
		if end < 0 {
			return false
		}
		s.rest = s.rest[end+1:]
		s.at.Line++
	}
	return true
}

// next reads one character; it is [utf8.RuneError] at the end.
func (s *source) next() rune {
	r, size := utf8.DecodeRune(s.rest)
	s.rest = s.rest[size:]
	if s.at.Col++; r == '\n' {
		s.at.Line, s.at.Col = s.at.Line+1, 1
	}
	return r
}

// open reads the quote before a scalar, or the line of a block's | or >.
func (s *source) open() {
	switch {
	case len(s.rest) == 0:
	case s.rest[0] == '\'' || s.rest[0] == '"':
		s.quote = s.rest[0]
		s.next()
	case s.rest[0] == '|' || s.rest[0] == '>':
		for len(s.rest) > 0 && s.next() != '\n' {
		}
	}
}

// skip reads white space, escaped or not.
func (s *source) skip() {
	for {
		r, _ := utf8.DecodeRune(s.rest)
		switch {
		case len(s.rest) > 1 && s.quote == '"' && r == '\\' && bytes.IndexByte([]byte("nrtv \t\n\r"), s.rest[1]) >= 0:
			s.next()
			s.next()
		case len(s.rest) > 0 && unicode.IsSpace(r):
			s.next()
		default:
			return
		}
	}
}

// char reads a character of the text; of the escapes those that stand for themselves and the quote.
func (s *source) char() rune {
	r := s.next()
	if s.quote == '\'' && r == '\'' || s.quote == '"' && r == '\\' {
		return s.next()
	}
	return r
}
