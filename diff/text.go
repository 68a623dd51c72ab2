package diff

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// named is how many names a change of many entries is told with, and longest how many characters of a value.
const (
	named   = 3
	longest = 80
)

// Write tells the difference to people.
func (d *Diff) Write(w io.Writer, colour bool) error {
	var out bytes.Buffer
	p := printer{out: &out, colour: colour}
	switch {
	case d.Empty() && d.Before == d.After:
		fmt.Fprintf(&out, "no difference: revision %s\n", d.After)
	case d.Empty():
		fmt.Fprintf(&out, "no difference but in how it is written: revision %s → %s\n", d.Before, d.After)
	default:
		fmt.Fprintf(&out, "revision %s → %s\n", d.Before, d.After)
	}
	p.entries(d.Entries)
	p.changes(d.Changes)
	p.files(d.Files)
	p.effects(d.Envoy)
	p.counters(d.Counters)
	_, err := w.Write(out.Bytes())
	return err
}

type printer struct {
	out    *bytes.Buffer
	colour bool
}

func (p printer) title(text string) { fmt.Fprintf(p.out, "\n%s\n", p.paint("1", text)) }

func (p printer) paint(style, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// mark is a sign for what comes, goes or changes.
func (p printer) mark(change string) string {
	switch change {
	case Added:
		return p.paint("32", "+")
	case Removed:
		return p.paint("31", "-")
	}
	return p.paint("33", "~")
}

func (p printer) entries(all []Entry) {
	if len(all) == 0 {
		return
	}
	p.title("Comes and goes")
	for _, e := range all {
		fmt.Fprintf(p.out, "  %s %s %s  %s\n", p.mark(e.Change), e.Kind, e.Name, p.paint("2", e.At.String()))
	}
}

func (p printer) changes(all []Change) {
	if len(all) == 0 {
		return
	}
	p.title("Changes")
	last := ""
	for _, c := range all {
		if subject := c.subject(); subject != last {
			fmt.Fprintf(p.out, "  %s %s\n", p.mark(Changed), subject)
			last = subject
		}
		fmt.Fprintf(p.out, "      %s: %s → %s  %s\n", printable(c.Path), c.From.words(), c.To.words(), p.paint("2", where(c.From, c.To)))
	}
}

// subject is whom a change is about.
func (c Change) subject() string {
	n := len(c.Names)
	if n == 1 {
		return c.Kind + " " + c.Names[0]
	}
	text := fmt.Sprintf("%d %ss: %s", n, c.Kind, strings.Join(c.Names[:min(n, named)], ", "))
	if n > named {
		text += fmt.Sprintf(" and %d more", n-named)
	}
	return text
}

func (v *Value) words() string {
	switch {
	case v == nil:
		return "(nothing)"
	case v.Hidden && v.Text == "":
		return "(not shown: it may hold a secret)"
	case v.Text == "":
		return `""`
	}
	text := []rune(printable(v.Text))
	if len(text) > longest {
		text = append(text[:longest], '…')
	}
	if v.Hidden {
		return string(text) + " (not shown whole)"
	}
	return string(text)
}

// where is the places of both values, one where they are the same.
func where(from, to *Value) string {
	var all []string
	for _, v := range []*Value{from, to} {
		if v != nil {
			all = append(all, v.At.String())
		}
	}
	return strings.Join(slices.Compact(all), " → ")
}

// printable keeps control bytes of what somebody wrote from reaching the terminal.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}

func (p printer) files(all []File) {
	if len(all) == 0 {
		return
	}
	p.title("Files that the policy refers to")
	for _, f := range all {
		fmt.Fprintf(p.out, "  %s %s\n", p.mark(f.Change), printable(f.Name))
	}
}

// words is what kinds of resources are called.
var words = map[string]string{
	"listener": "listener", "routeTable": "route table", "host": "host", "cluster": "cluster", "endpoints": "endpoints of", "secret": "secret",
}

func (p printer) effects(all []Effect) {
	last := ""
	for _, e := range all {
		if e.Gateway != last {
			p.title("Envoys of " + e.Gateway)
			last = e.Gateway
		}
		fmt.Fprintf(p.out, "  %s %s %s %s  %s\n", p.mark(e.Change), cmp.Or(words[e.Kind], e.Kind), e.Name, e.means(), p.paint("2", e.At.String()))
	}
}

func (p printer) counters(all []Counter) {
	if len(all) == 0 {
		return
	}
	p.title("Counters")
	for _, c := range all {
		what := "counts stay as far as they can be read the new way"
		if c.Anew {
			what = "counts begin at zero"
		}
		name := c.Limit
		if c.Plan != "" {
			name += " of the plan " + c.Plan
		}
		fmt.Fprintf(p.out, "  %s %s: %s → %s: %s  %s\n", p.mark(Changed), name, c.From, c.To, what, p.paint("2", c.At.String()))
	}
}
