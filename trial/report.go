package trial

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/legation/legation/policy"
)

// Writer writes what comes of a run for people, case by case as they end.
type Writer struct {
	To      io.Writer
	Colour  bool
	Verbose bool         // tells of each request
	Files   policy.Files // once they are known, for the lines of problems
	file    string       // that the last case stood in
}

func (w *Writer) paint(style, s string) string {
	if !w.Colour {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

var styles = map[Verdict]string{Passed: "32", Failed: "31", Skipped: "33"}

// Begin tells on a terminal which case is being run; the row of its result takes the line.
func (w *Writer) Begin(file, name string) {
	if w.Colour {
		fmt.Fprintf(w.To, "\r\x1b[K  %s  %s: %.60s", w.paint("2", "…"), file, name)
	}
}

// Result writes a row, and all that is known of a case that failed.
func (w *Writer) Result(r Result) {
	if w.Colour {
		fmt.Fprint(w.To, "\r\x1b[K")
	}
	if r.File != w.file {
		if w.file != "" {
			fmt.Fprintln(w.To)
		}
		fmt.Fprintln(w.To, w.paint("1", r.File))
		w.file = r.File
	}
	took, why := rounded(r.Took), ""
	if r.Verdict == Skipped {
		took, why = "", w.paint("2", "  ("+r.Why+")")
	}
	fmt.Fprintf(w.To, "  %s  %8s  %s%s\n", w.paint(styles[r.Verdict], fmt.Sprintf("%-7s", r.Verdict)), took, r.Name, why)
	if w.Verbose {
		for _, line := range r.Log {
			fmt.Fprintf(w.To, "%s%s\n", indent, w.paint("2", line))
		}
	}
	if r.Failure != nil {
		w.failure(r.Failure)
	}
}

// indent is that of what stands below a case.
const indent = "           "

func (w *Writer) failure(f *Failure) {
	var b strings.Builder
	_ = f.Problems.Write(&b, w.Files, w.Colour)
	b.WriteString("\n" + w.paint("1", "request:") + " " + f.Asked + "\n")
	if f.Got != "" {
		b.WriteString(w.paint("1", "answer:") + "  " + f.Got + "\n")
	}
	if f.Explain != "" {
		b.WriteString(w.paint("1", "explain:") + " " + strings.ReplaceAll(strings.TrimSpace(f.Explain), "\n", "\n  ") + "\n")
	}
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			line = indent + line
		}
		fmt.Fprintln(w.To, line)
	}
	fmt.Fprintln(w.To)
}

// rounded is a time as people read it.
func rounded(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// maxMissed is how many routes are listed for people that no case reaches.
const maxMissed = 50

// Summary writes which routes no case reached, and how all went.
func (w *Writer) Summary(r *Report, whole bool) {
	if missed := r.Missed(); whole && len(missed) > 0 {
		fmt.Fprintf(w.To, "\n%s\n", w.paint("33", "no case reaches"))
		some, longest := missed[:min(len(missed), maxMissed)], 0
		for _, m := range some {
			longest = max(longest, len(m.Name))
		}
		for _, m := range some {
			fmt.Fprintf(w.To, "  %-*s  %s\n", longest, m.Name, w.paint("2", m.At.String()))
		}
		if more := len(missed) - len(some); more > 0 {
			fmt.Fprintf(w.To, "  … and %d more: -o json lists all\n", more)
		}
	}
	counts := map[Verdict]int{}
	for _, one := range r.Results {
		counts[one.Verdict]++
	}
	parts := []string{}
	for _, v := range []Verdict{Passed, Failed, Skipped} {
		if n := counts[v]; n > 0 {
			parts = append(parts, w.paint(styles[v], fmt.Sprintf("%d %s", n, v)))
		}
	}
	fmt.Fprintf(w.To, "\n%s: %s; ", plural(len(r.Results), "case"), cmp.Or(strings.Join(parts, ", "), "nothing was run"))
	if whole {
		fmt.Fprintf(w.To, "%d of %s reached; ", len(r.Routes)-len(r.Missed()), plural(len(r.Routes), "route"))
	}
	fmt.Fprintf(w.To, "%s\n", rounded(r.Took))
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// Failed tells whether any case failed.
func (r *Report) Failed() bool {
	for _, one := range r.Results {
		if one.Verdict == Failed {
			return true
		}
	}
	return false
}

// Missed is the routes that no case reached.
func (r *Report) Missed() []Route {
	var missed []Route
	for _, route := range r.Routes {
		if route.Reached == 0 {
			missed = append(missed, route)
		}
	}
	return missed
}

// Covered is the share of the routes that cases reached, in percent; 100 where there are none.
func (r *Report) Covered() float64 {
	if len(r.Routes) == 0 {
		return 100
	}
	return 100 * float64(len(r.Routes)-len(r.Missed())) / float64(len(r.Routes))
}
