package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// finding is what check has found of a directory.
type finding struct {
	loaded
	dir     string
	refused policy.Problems // by the real Envoy
	err     error           // that the policy could not be read, or Envoy not be asked
}

// formats is the forms in which a finding is told. Each ends with the error that makes the exit status.
var formats = map[string]func(io.Writer, finding) error{
	"text": writeText, "json": writeJSONReport, "sarif": writeSARIF, "github": writeAnnotations,
}

func (f finding) ok() bool { return f.err == nil && f.compiled != nil && len(f.refused) == 0 }

// all is every problem, Envoy's last.
func (f finding) all() policy.Problems {
	return slices.Concat(policy.Problems{}, f.problems, f.refused)
}

// bad is errBad unless all is well; what is wrong has been told.
func (f finding) bad() error {
	if f.ok() {
		return nil
	}
	if wrong, ok := errors.AsType[usage](f.err); ok {
		return wrong
	}
	return errBad
}

// writeText is for people.
func writeText(w io.Writer, f finding) error {
	f.all().Write(w, f.files, colour(w))
	switch {
	case f.err != nil:
		return f.err
	case !f.ok():
		fmt.Fprintf(w, "\n%s\n", tally(f.all()))
		return errBad
	}
	m := f.compiled.Model
	fmt.Fprintf(w, "ok: %s, revision %s\n", counts(m), m.Revision)
	notes(w, m)
	noteUnknown(w, f.unknown)
	return nil
}

// report is a finding as JSON has it.
type report struct {
	OK          bool       `json:"ok"`
	Revision    string     `json:"revision,omitempty"` // of a good policy
	Problems    []reported `json:"problems"`
	NotLookedUp []string   `json:"notLookedUp,omitempty"` // the IDs of secrets
	Error       string     `json:"error,omitempty"`       // that the policy could not be read, or Envoy not be asked
}

// reported is one problem.
type reported struct {
	place
	Path     string         `json:"path,omitempty"` // routes.orders.timeouts.request
	Severity string         `json:"severity"`       // error or warning
	Rule     string         `json:"rule"`
	Message  string         `json:"message"`
	Hint     string         `json:"hint,omitempty"` // what to do
	Also     []place        `json:"also,omitempty"` // the other places of a conflict
	Missing  *policy.Target `json:"missing,omitempty"`
}

// place is where something stands. Lines and columns count from 1, columns in characters. Without a line it is the whole
// file; the end is left out where it isn't known.
type place struct {
	File      string `json:"file"`
	Line      int    `json:"line,omitempty"`
	Column    int    `json:"column,omitempty"`
	EndColumn int    `json:"endColumn,omitempty"` // of the first character after it
}

// placeOf is a place in files.
func placeOf(at policy.Pos, files policy.Files) place {
	return place{at.File, at.Line, at.Col, files.End(at)}
}

// reportedOf is problems of files.
func reportedOf(problems policy.Problems, files policy.Files) []reported {
	all, rules := []reported{}, newRules()
	for _, p := range problems {
		one := reported{
			place: placeOf(p.Pos, files), Path: p.Path, Severity: severity(p), Rule: rules.of(p),
			Message: p.Message, Hint: p.Hint, Missing: p.Missing,
		}
		for _, at := range p.Also {
			one.Also = append(one.Also, placeOf(at, files))
		}
		all = append(all, one)
	}
	return all
}

func (f finding) report() report {
	r := report{OK: f.ok(), Problems: reportedOf(f.all(), f.files), NotLookedUp: f.unknown}
	if r.OK {
		r.Revision = f.compiled.Model.Revision
	}
	if f.err != nil {
		r.Error = f.err.Error()
	}
	for i := range r.Problems[len(f.problems):] {
		r.Problems[len(f.problems)+i].Rule = "envoy"
	}
	return r
}

func severity(p *policy.Problem) string {
	if p.Warning {
		return "warning"
	}
	return "error"
}

func writeJSONReport(w io.Writer, f finding) error {
	return errors.Join(writeJSON(w, f.report()), f.bad())
}

// rules tells what kind of thing a problem is about: the key of the language, else the section; stable, so that a program
// can count, or leave some out.
type rules map[string]string // what each is about

// newRules knows the rules that don't go by the policy, and those of the sections and the keys.
func newRules() rules {
	r := rules{
		"envoy":     "What the real Envoy refuses, and nothing else can tell.",
		"file":      "What is wrong with a file as a whole, or is no YAML of the policy language.",
		"reference": "A name that nothing in the policy has.",
		"cases":     "What a case of legation test expects, or how it is written.",
	}
	for _, section := range sections {
		r[section] = "The section `" + section + "` of the policy."
	}
	for _, own := range structure {
		r[own] = "The key `" + own + "` of the policy language."
	}
	for _, k := range feature.All() {
		r[k.Key], _, _ = strings.Cut(k.Doc, "\n")
	}
	return r
}

// sections and structure are the language's own words, which no feature defines.
var (
	sections  = []string{"gateways", "sidecars", "services", "routes", "auth", "consumers", "plans", "rateLimits"}
	structure = []string{
		"backends", "certificates", "defaults", "dns", "endpoints", "hostnames", "listeners", "locked", "match",
	}
)

// of is the rule of a problem, by its path: the outermost key of a feature, else the innermost word of the language.
func (r rules) of(p *policy.Problem) string {
	words := strings.FieldsFunc(p.Path, func(c rune) bool { return c == '.' || c == '[' || c == ']' })
	switch {
	case p.Missing != nil:
		return "reference"
	case len(words) > 0 && words[0] == "cases":
		return "cases"
	case len(words) == 0 || !slices.Contains(sections, words[0]):
		return "file"
	}
	rule := words[0]
	for i, word := range words {
		if i < 2 || r[word] == "" || slices.Contains(sections, word) && word != "auth" {
			continue // the section, and the name of the entry
		}
		if rule = word; !slices.Contains(structure, word) {
			break
		}
	}
	return rule
}
