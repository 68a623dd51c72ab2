package main

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// pageWidth is how many columns a page takes, but for examples.
const pageWidth = 100

// page is text for a terminal. It reads as much of Markdown as the reference of the keys is written in: paragraphs, lists,
// tables and examples.
type page struct {
	text   strings.Builder
	colour bool
}

func (p *page) paint(style, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

func (p *page) heading(s string) { p.text.WriteString(p.paint("1", s) + "\n\n") }

// markdown adds a text.
func (p *page) markdown(text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for len(lines) > 0 {
		n := 1
		for n < len(lines) && !starts(lines[n-1], lines[n]) {
			n++
		}
		switch first := lines[0]; {
		case first == "":
			p.text.WriteString("\n")
		case strings.HasPrefix(first, "```"):
			for n = 1; n < len(lines) && !strings.HasPrefix(lines[n], "```"); n++ {
				p.text.WriteString(strings.TrimRight("    "+lines[n], " ") + "\n")
			}
			n = min(n+1, len(lines))
		case strings.HasPrefix(first, "|"):
			p.table(lines[:n])
		case item.MatchString(first):
			mark := item.FindString(first)
			lines[0] = strings.TrimPrefix(first, mark)
			p.wrapped(mark, lines[:n])
		default:
			p.wrapped("", lines[:n])
		}
		lines = lines[n:]
	}
	p.text.WriteString("\n")
}

var item = regexp.MustCompile(`^(?:-|\d+\.) `)

// starts tells whether a line begins another block than that of the line before.
func starts(before, line string) bool {
	return line == "" || before == "" || strings.HasPrefix(line, "```") || item.MatchString(line) ||
		strings.HasPrefix(line, "|") != strings.HasPrefix(before, "|")
}

// table writes the rows of a table as a list of what the first column has.
func (p *page) table(rows []string) {
	head := cells(rows[0])
	widest := 0
	var all [][]string
	for _, row := range rows[min(2, len(rows)):] {
		all = append(all, cells(row))
		if n := utf8.RuneCountInString(all[len(all)-1][0]); n <= 28 {
			widest = max(widest, n)
		}
	}
	for _, row := range all {
		mark := "  " + row[0] + "  "
		if n := utf8.RuneCountInString(row[0]); n <= widest {
			mark += strings.Repeat(" ", widest-n)
		} else {
			p.text.WriteString(p.inline("  "+row[0]) + "\n")
			mark = strings.Repeat(" ", widest+4)
		}
		lines := row[1:2]
		for i := 2; i < len(row) && i < len(head); i++ {
			if row[i] != "" {
				lines = append(lines, "; "+head[i]+": "+row[i])
			}
		}
		p.wrapped(mark, []string{strings.Join(lines, "")})
	}
}

func cells(row string) []string {
	parts := strings.Split(strings.Trim(strings.ReplaceAll(row, `\|`, "\x01"), "| "), "|")
	for i := range parts {
		parts[i] = strings.ReplaceAll(strings.TrimSpace(parts[i]), "\x01", "|")
	}
	return append(parts, "")
}

var (
	span   = regexp.MustCompile("`[^`]+`")
	inside = regexp.MustCompile(`\[([^\]]+)\]\([^():\s\x01]*\.md[^():\s\x01]*\)|\[([^\]]+)\]\(#[^()\s\x01]*\)`)
	linked = regexp.MustCompile(`\[([^\]]+)\]\((https://[^()\s\x01]*)\)`)
)

// plainly takes links and bold type out of a paragraph. What is set as code stays as it is, and whole: without spaces to break at.
func plainly(text string) string {
	var b strings.Builder
	for _, code := range append(span.FindAllString(text, -1), "") {
		before, after, _ := strings.Cut(text, code)
		if code == "" {
			before = text
		}
		b.WriteString(strings.ReplaceAll(before, "**", "") + strings.ReplaceAll(code, " ", "\x01"))
		text = after
	}
	return linked.ReplaceAllString(inside.ReplaceAllString(b.String(), "$1$2"), "$1 ($2)")
}

// wrapped writes a paragraph after a mark, below which its further lines are indented.
func (p *page) wrapped(mark string, lines []string) {
	text := plainly(strings.Join(lines, " "))
	indent := strings.Repeat(" ", utf8.RuneCountInString(mark))
	line, started := mark, false
	for _, word := range strings.Fields(text) {
		if started && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > pageWidth {
			p.text.WriteString(p.inline(line) + "\n")
			line, started = indent, false
		}
		if started {
			line += " "
		}
		line, started = line+strings.ReplaceAll(word, "\x01", " "), true
	}
	p.text.WriteString(p.inline(strings.TrimRight(line, " ")) + "\n")
}

// inline marks what is set as code: with a colour, or as it is written.
func (p *page) inline(line string) string {
	return span.ReplaceAllStringFunc(line, func(s string) string { return p.paint("36", s) })
}
