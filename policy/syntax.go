package policy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// sane refuses bytes that have no place in a policy file, before they reach the YAML parser.
func (p *parser) sane(content []byte) bool {
	if len(content) > maxFile {
		p.lose(0, 0, "larger than %d KiB", maxFile>>10).Hint = "split the file"
		return false
	}
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		p.lose(1, 1, "this file is UTF-16: save it as UTF-8")
		return false
	}
	if at, what := oddByte(content); at >= 0 {
		line, col := lineCol(content, at)
		p.lose(line, col, "%s", what)
		return false
	}
	if bytes.Count(content, []byte{'#'}) > maxComments {
		p.lose(0, 0, "more than about %d comments in one file", maxComments).Hint = "split the file"
		return false
	}
	if separators(content) > maxSeparators {
		p.lose(0, 0, "more than about %d values in one file", maxSeparators).Hint = "split the file"
		return false
	}
	return true
}

// separators counts what may begin a value.
func separators(content []byte) int {
	n := 0
	for _, sep := range []string{",", "[", "{", ":", "- ", "-\n", "? "} {
		n += bytes.Count(content, []byte(sep))
	}
	return n
}

// oddByte finds the first byte that is not the text of a policy file, and says what it is.
func oddByte(content []byte) (int, string) {
	for i := 0; i < len(content); {
		b := content[i]
		if b >= ' ' && b < 0x7f || b == '\n' || b == '\t' {
			i++
			continue
		}
		if b == '\r' && i+1 < len(content) && content[i+1] == '\n' {
			i++
			continue
		}
		r, size := utf8.DecodeRune(content[i:])
		switch {
		case b == 0:
			return i, "a NUL byte: this is no text file"
		case r == utf8.RuneError && size == 1:
			return i, fmt.Sprintf("the byte 0x%02x is not UTF-8: save the file as UTF-8", b)
		case b == '\r':
			return i, "a carriage return without a line feed: save the file with LF or CRLF line ends"
		case r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return i, fmt.Sprintf(`the invisible character U+%04X: write it as an escape in double quotes ("\u%04X")`, r, r)
		}
		i += size
	}
	return -1, ""
}

// lineCol gives the place of a byte, columns counted in characters.
func lineCol(content []byte, at int) (line, col int) {
	start := bytes.LastIndexByte(content[:at], '\n') + 1
	return 1 + bytes.Count(content[:start], []byte{'\n'}), 1 + utf8.RuneCount(content[start:at])
}

// syntaxWords says in the words of somebody who writes policy files what the YAML parser means.
var syntaxWords = []struct{ yaml, message, hint string }{
	{"did not find expected key", "a key is expected here", "check the indentation of this line and of those above it"},
	{"mapping values are not allowed", "a key and its colon can't stand here", "check the indentation, or put a text with \": \" into quotes"},
	{"did not find expected '-' indicator", "another list item (\"- \") is expected here", "all items of a list begin in the same column"},
	{"block sequence entries are not allowed", "a list item (\"- \") can't stand here", "put it on its own line, or put the text into quotes"},
	{"did not find expected ',' or ']'", "a comma or the end of the list (]) is expected here", "a list that begins with [ ends with ]"},
	{"did not find expected ',' or '}'", "a comma or the end of the map (}) is expected here", "a map that begins with { ends with }"},
	{"could not find expected ':'", "the colon after a key is missing", "write key: value"},
	{"found unexpected end of stream", "the quotes that begin here are never closed", "close them"},
	{"found unexpected document indicator", "the quotes that begin here are never closed", "close them"},
	{"found character that cannot start any token", "a text can't begin with this character", "put it into quotes"},
	{"found unknown escape character", "double quotes have no such escape", "write the backslash twice, or use single quotes"},
	{"did not find expected hexdecimal number", "the escape needs hexadecimal digits", "write the backslash twice, or use single quotes"},
	{"found a tab character", "a tab can't indent", "use spaces"},
	{"unknown anchor", "aliases (*name) are not part of the policy language", "write the value out, or put a text that begins with * into quotes"},
	{"exceeded max depth", fmt.Sprintf("more than %d levels deep", maxDepth), ""},
	{"did not find expected <document start>", "more text after the end of the document", "documents are separated by a line ---"},
	{"did not find expected alphabetic or numeric character", "a text can't begin with this character", "put it into quotes"},
	{"did not find expected node content", "a value is expected here", "check for a comma or bracket too many"},
	{"did not find expected comment or line break", "only a comment can follow here", "put the text on the next line"},
	{"directive", "directives (%) are not part of the policy language", "remove the line, or put the text into quotes"},
	{"tag", "tags (!) are not part of the policy language", "put a text that begins with ! into quotes"},
}

// syntax tells of an error of the YAML parser.
func (p *parser) syntax(content []byte, err error) {
	le, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		p.lose(0, 0, "%s", cut(err.Error()))
		return
	}
	line, col := le.Mark.Line, max(le.Mark.Column, 1)
	if line == 0 {
		line = le.ContextMark.Line
	}
	switch at := charAt(content, line, col); {
	case at == '\t':
		p.lose(line, col, "a tab can't stand here").Hint = "indent with spaces"
		return
	case (at == ']' || at == '}') && strings.Contains(le.Message, "expected key"):
		p.lose(line, col, "this %c closes nothing", at).Hint = "remove it, or begin before it what it ends"
		return
	case at == 0 && strings.Contains(le.Message, "expected node content"):
		if open := unclosed(content); open >= 0 {
			line, col = lineCol(content, open)
			p.lose(line, col, "what begins with this %c is never closed", content[open]).Hintf("close it with %c", closing[content[open]])
			return
		}
	}
	if strings.Contains(le.ContextMsg, "quoted scalar") && strings.HasPrefix(le.Message, "found unexpected") {
		line, col, le.ContextMark.Line = le.ContextMark.Line, le.ContextMark.Column, 0
	}
	problem := p.lose(line, col, "%s", le.Message)
	for _, w := range syntaxWords {
		if strings.Contains(le.Message, w.yaml) {
			problem.Message, problem.Hint = w.message, w.hint
			break
		}
	}
	if m := le.ContextMark; m.Line > 0 && m.Line < line && strings.Contains(le.ContextMsg, "while") {
		problem.Message += fmt.Sprintf(" (it belongs to what begins at %d:%d)", m.Line, max(m.Column, 1))
	}
}

// closing is what ends a list and a map in brackets.
var closing = map[byte]byte{'[': ']', '{': '}'}

// unclosed finds the innermost bracket that is open where the file ends, -1 for none. Quotes and comments are passed over.
func unclosed(content []byte) int {
	var open []int
	before := byte('\n')
	for i := 0; i < len(content); i++ {
		c := content[i]
		starts := bytes.IndexByte([]byte(" \t\n[{,:"), before) >= 0
		switch {
		case c == '#' && starts && before != ':':
			for i+1 < len(content) && content[i+1] != '\n' {
				i++
			}
		case (c == '"' || c == '\'') && starts:
			for i++; i < len(content) && content[i] != c; i++ {
				if c == '"' && content[i] == '\\' {
					i++
				}
			}
		case (c == '[' || c == '{') && (starts || len(open) > 0):
			open = append(open, i)
		case (c == ']' || c == '}') && len(open) > 0:
			open = open[:len(open)-1]
		}
		before = c
	}
	if len(open) == 0 {
		return -1
	}
	return open[len(open)-1]
}

func charAt(content []byte, line, col int) rune {
	for range line - 1 {
		_, rest, ok := bytes.Cut(content, []byte{'\n'})
		if !ok {
			return 0
		}
		content = rest
	}
	row, _, _ := bytes.Cut(content, []byte{'\n'})
	if runes := []rune(string(row)); col >= 1 && col <= len(runes) {
		return runes[col-1]
	}
	return 0
}
