package trial

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/legation/legation/policy"
)

// The elements of JUnit's XML, as CI systems read it.
type (
	suites struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Skipped  int      `xml:"skipped,attr"`
		Time     string   `xml:"time,attr"`
		Suites   []*suite `xml:"testsuite"`
	}
	suite struct {
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Time     string     `xml:"time,attr"`
		Cases    []testcase `xml:"testcase"`
		took     time.Duration
	}
	testcase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		File    string   `xml:"file,attr"`
		Line    int      `xml:"line,attr,omitempty"`
		Time    string   `xml:"time,attr"`
		Failure *message `xml:"failure"`
		Error   *message `xml:"error"`
		Skipped *message `xml:"skipped"`
	}
	message struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes what came of a run as JUnit's XML: a suite for each file. What is wrong with the policy or the cases, or
// kept the run from its end, is a case of its own that has an error: cause is nil where nothing did.
func (r *Report) WriteJUnit(w io.Writer, cause error) error {
	all := &suites{Name: "legation test", Time: seconds(r.Took)}
	for _, one := range r.Results {
		c := testcase{Name: printable(one.Name), Class: one.File, File: one.Path, Line: one.At.Line, Time: seconds(one.Took)}
		switch one.Verdict {
		case Failed:
			c.Failure = r.failed(one.Failure)
		case Skipped:
			c.Skipped = &message{Message: printable(one.Why)}
		}
		all.add(one.File, c, one.Took)
	}
	errs, _ := r.Problems.Split()
	for _, p := range errs {
		var text strings.Builder
		_ = policy.Problems{p}.Write(&text, r.Files, false)
		c := testcase{Name: printable(p.Pos.String()), Class: p.Pos.File, File: p.Pos.File, Line: p.Pos.Line, Time: "0.000"}
		c.Error = &message{Message: printable(p.Message), Text: printable(text.String())}
		all.add(p.Pos.File, c, 0)
	}
	if cause != nil {
		text := printable(cause.Error())
		first, _, _ := strings.Cut(text, "\n")
		all.add("legation test", testcase{Name: "the run", Class: "legation test", Time: "0.000", Error: &message{Message: first, Text: text}}, 0)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (all *suites) add(name string, c testcase, took time.Duration) {
	if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != name {
		all.Suites = append(all.Suites, &suite{Name: name})
	}
	s := all.Suites[len(all.Suites)-1]
	s.Cases = append(s.Cases, c)
	s.took += took
	s.Time = seconds(s.took)
	s.Tests, all.Tests = s.Tests+1, all.Tests+1
	switch {
	case c.Failure != nil:
		s.Failures, all.Failures = s.Failures+1, all.Failures+1
	case c.Error != nil:
		s.Errors, all.Errors = s.Errors+1, all.Errors+1
	case c.Skipped != nil:
		s.Skipped, all.Skipped = s.Skipped+1, all.Skipped+1
	}
}

func (r *Report) failed(f *Failure) *message {
	var text strings.Builder
	_ = f.Problems.Write(&text, r.Files, false)
	fmt.Fprintf(&text, "\nrequest: %s\nanswer: %s\n\n%s", f.Asked, f.Got, f.Explain)
	return &message{Message: printable(f.Problems[0].Error()), Text: printable(text.String())}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// printable leaves out what XML can't say.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\t' || c == 0xfffe || c == 0xffff {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}
