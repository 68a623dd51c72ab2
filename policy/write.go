package policy

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// width is how many columns of a source line are shown.
const width = 120

// Write shows problems to people: the message, the line that it is about with a caret under its column, what to do,
// and the other places of a conflict. The lines come from files, which may be nil.
func (ps Problems) Write(w io.Writer, files Files, colour bool) error {
	var out bytes.Buffer
	paint := painter(colour)
	lines := make(map[string][][]byte)
	secret := ps.secrets(files)
	var v view
	for i, p := range ps {
		if i > 0 {
			out.WriteByte('\n')
		}
		p.write(&out, &v, paint, secret[p.Pos.start()], func(name string) [][]byte {
			if text, there := files[name]; there && lines[name] == nil {
				lines[name] = bytes.Split(bytes.TrimPrefix(text, []byte("\ufeff")), []byte{'\n'})
			}
			return lines[name]
		})
	}
	_, err := w.Write(out.Bytes())
	return err
}

func (p *Problem) write(out *bytes.Buffer, v *view, paint func(style, s string) string, hide bool, lines func(string) [][]byte) {
	label := ""
	style := red
	if p.Warning {
		label, style = "warning: ", yellow
	}
	out.WriteString(paint(bold, escape(p.Pos.String()+":")) + " ")
	if p.Path != "" {
		label += p.Path + ": "
	}
	out.WriteString(paint(style, escape(label+p.Message)) + "\n")
	switch {
	case hide && p.Pos.Line > 0:
		fmt.Fprintf(out, "%s\n", paint(dim, fmt.Sprintf("  %d | (not shown: it may hold a secret)", p.Pos.Line)))
	case p.Pos.Line > 0:
		if all := lines(p.Pos.File); p.Pos.Line <= len(all) {
			source, caret := v.snippet(all[p.Pos.Line-1], p.Pos)
			gutter := strconv.Itoa(p.Pos.Line)
			fmt.Fprintf(out, "%s %s\n", paint(dim, "  "+gutter+" |"), source)
			fmt.Fprintf(out, "%s %s\n", paint(dim, "  "+strings.Repeat(" ", len(gutter))+" |"), paint(style, caret))
		}
	}
	if p.Hint != "" {
		out.WriteString("  " + paint(green, "hint:") + " " + escape(p.Hint) + "\n")
	}
	for _, at := range p.Also {
		out.WriteString("  " + paint(dim, "also:") + " " + escape(at.String()) + "\n")
	}
}

// view is where the last snippet began: hundreds of problems may stand in one line of a megabyte.
type view struct {
	of   Pos // the line
	col  int // characters before
	from int // the same in bytes
}

// skip is the line without its first col characters.
func (v *view) skip(line []byte, at Pos, col int) []byte {
	if v.of != at.start() || v.col > col {
		*v = view{of: at.start()}
	}
	for v.col < col && v.from < len(line) {
		_, size := utf8.DecodeRune(line[v.from:])
		v.from += size
		v.col++
	}
	return line[v.from:]
}

// snippet gives a source line as it can be shown, and the line with the caret below it.
func (v *view) snippet(line []byte, pos Pos) (source, caret string) {
	var cells []string
	var at, used int // cell and columns of the caret
	line, col := bytes.TrimSuffix(line, []byte("\r")), pos.Col
	if from := col - 1 - width/2; from > 0 && len(firstRunes(line, width+1)) > width {
		line, col = v.skip(line, pos, from), col-from
		cells = append(cells, "…")
	}
	runes := firstRunes(line, width+1)
	more := len(runes) > width
	for i, r := range runes[:min(len(runes), width)] {
		if i == col-1 {
			at = len(cells)
		}
		cells = append(cells, cell(r))
	}
	if col-1 >= len(runes) || at == 0 && col > 1 {
		at = len(cells)
	}
	for _, c := range cells[:min(at, len(cells))] {
		used += columns(c)
	}
	if more {
		cells = append(cells, "…")
	}
	return strings.TrimRight(strings.Join(cells, ""), " "), strings.Repeat(" ", used) + "^"
}

// firstRunes is as many of the first characters of a line as there are, n at most.
func firstRunes(line []byte, n int) []rune {
	runes := []rune(string(line[:min(len(line), n*utf8.UTFMax)]))
	return runes[:min(len(runes), n)]
}

// cell is one character as a terminal may be told it.
func cell(r rune) string {
	switch {
	case r == '\t':
		return "    "
	case r == unicode.ReplacementChar || !unicode.IsPrint(r) && r != ' ':
		return fmt.Sprintf("<%02X>", r)
	}
	return string(r)
}

// columns is the width of a cell on a terminal.
func columns(c string) int {
	n := 0
	for _, r := range c {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case slices.ContainsFunc(wide, func(w [2]rune) bool { return r >= w[0] && r <= w[1] }):
			n += 2
		default:
			n++
		}
	}
	return n
}

// wide are the blocks whose characters take two columns (Unicode's East Asian Width, W and F).
var wide = [][2]rune{
	{0x1100, 0x115f},
	{0x2e80, 0x303e},
	{0x3041, 0x33ff},
	{0x3400, 0x4dbf},
	{0x4e00, 0x9fff},
	{0xa000, 0xa4cf},
	{0xac00, 0xd7a3},
	{0xf900, 0xfaff},
	{0xfe30, 0xfe4f},
	{0xff00, 0xff60},
	{0xffe0, 0xffe6},
	{0x1f300, 0x1f64f},
	{0x1f680, 0x1f6ff},
	{0x1f900, 0x1f9ff},
	{0x20000, 0x3fffd},
}

// escape keeps control bytes of what somebody wrote from reaching the terminal.
func escape(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var out strings.Builder
	for _, r := range s {
		if r == '\t' {
			out.WriteByte(' ')
			continue
		}
		out.WriteString(cell(r))
	}
	return out.String()
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func painter(colour bool) func(style, s string) string {
	if !colour {
		return func(_, s string) string { return s }
	}
	return func(style, s string) string { return "\x1b[" + style + "m" + s + "\x1b[0m" }
}
