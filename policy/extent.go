package policy

import (
	"bytes"
	"strings"
)

// End is the column after the last character of the word or text that begins at a place; 0 where it isn't known, such as
// that of a map or of a text of several lines.
func (fs Files) End(p Pos) int {
	line := lineOf(fs[p.File], p.Line)
	if p.Col < 1 || p.Col > len(line) {
		return 0
	}
	if n := extent(line[p.Col-1:]); n > 0 {
		return p.Col + n
	}
	return 0
}

// lineOf is the characters of a line, which count from 1.
func lineOf(content []byte, number int) []rune {
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	for line := range bytes.Lines(content) {
		if number--; number == 0 {
			return []rune(strings.TrimRight(string(line), "\r\n"))
		}
	}
	return nil
}

// extent is how many characters a scalar has that a line goes on with.
func extent(rest []rune) int {
	switch rest[0] {
	case '"', '\'':
		return quoted(rest)
	case '{', '[', '|', '>', '}', ']', ',', ' ', '-':
		return 0
	}
	end := len(rest)
	for i, r := range rest {
		last := i+1 == len(rest)
		ends := r == ',' || r == ']' || r == '}' || r == '#' && i > 0 && rest[i-1] == ' '
		if ends || r == ':' && (last || rest[i+1] == ' ') {
			end = i
			break
		}
	}
	return len([]rune(strings.TrimRight(string(rest[:end]), " \t")))
}

// quoted is extent for a scalar in quotes, and them; 0 where it goes on below.
func quoted(rest []rune) int {
	quote := rest[0]
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && quote == '"':
			i++
		case rest[i] == quote && quote == '\'' && i+1 < len(rest) && rest[i+1] == quote:
			i++
		case rest[i] == quote:
			return i + 1
		}
	}
	return 0
}
