package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Pos is a place in a policy file. Line and Col count from 1, Col in characters; the zero Line means the file as a whole.
type Pos struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// start is the beginning of the line.
func (p Pos) start() Pos { return Pos{File: p.File, Line: p.Line} }

func (p Pos) compare(o Pos) int {
	return cmp.Or(cmp.Compare(p.File, o.File), cmp.Compare(p.Line, o.Line), cmp.Compare(p.Col, o.Col))
}

// Problem is something wrong with the policy files, at its place.
type Problem struct {
	Pos     Pos     `json:"pos"`
	Path    string  `json:"path,omitempty"` // routes.orders.cors.allowOrigins[0]
	Message string  `json:"message"`
	Hint    string  `json:"hint,omitempty"` // what to do about it
	Also    []Pos   `json:"also,omitempty"` // the other places of a conflict; their files are to blame too
	Warning bool    `json:"warning,omitempty"`
	Missing *Target `json:"missing,omitempty"` // the entry that a reference does not find
	Secret  bool    `json:"secret,omitempty"`  // the line may hold a secret: it is not shown

	stage    stage
	blames   []string // files that policy files refer to, to blame as well
	culprits []string // files that may have caused it, blamed when those above have not changed
	secret   string   // the ID of the secret that is to blame before any file
}

// Target names an entry of a section.
type Target struct {
	Section string `json:"section"` // gateways where a sidecar would do as well
	Name    string `json:"name"`    // "" for any
}

// clone is a problem that can be told in another load.
func (p *Problem) clone() *Problem {
	again := *p
	again.Also, again.blames, again.culprits = slices.Clone(p.Also), slices.Clone(p.blames), slices.Clone(p.culprits)
	return &again
}

// Error gives the problem on one line: "edge.yaml:8:5: routes.orders.cors.allowOrigins: name at least ...".
func (p *Problem) Error() string {
	s := p.Pos.String() + ": "
	if p.Path != "" {
		s += p.Path + ": "
	}
	return s + p.Message
}

// Hintf says what to do about the problem.
func (p *Problem) Hintf(format string, args ...any) *Problem {
	p.Hint = fmt.Sprintf(format, args...)
	return p
}

// Hide keeps the source line from being shown, since it holds a secret.
func (p *Problem) Hide() *Problem {
	p.Secret = true
	return p
}

// Problems is everything wrong with a set of files, in order of file, line and column.
type Problems []*Problem

// clone is the problems for somebody who may change them.
func (ps Problems) clone() Problems {
	var all Problems
	for _, p := range ps {
		all = append(all, p.clone())
	}
	return all
}

// HasErrors tells whether there is a problem that is not a warning.
func (ps Problems) HasErrors() bool {
	return slices.ContainsFunc(ps, func(p *Problem) bool { return !p.Warning })
}

// Split tells the problems that are not warnings from those that are.
func (ps Problems) Split() (errs, warnings Problems) {
	for _, p := range ps {
		if p.Warning {
			warnings = append(warnings, p)
		} else {
			errs = append(errs, p)
		}
	}
	return errs, warnings
}

// Err joins the problems that are not warnings, nil when there is none.
func (ps Problems) Err() error {
	var all []error
	errs, _ := ps.Split()
	for _, p := range errs {
		all = append(all, p)
	}
	return errors.Join(all...)
}

// hide marks the problems whose lines are not to be shown.
func (ps Problems) hide(files Files) {
	secret := ps.secrets(files)
	for _, p := range ps {
		p.Secret = secret[p.Pos.start()]
	}
}

// secrets tells which lines with problems are not to be shown: those that hold secrets by their text, and those that
// one of the problems calls secret.
func (ps Problems) secrets(files Files) map[Pos]bool {
	secret := make(map[Pos]bool)
	for _, p := range ps {
		at := p.Pos.start()
		secret[at] = secret[at] || p.Secret
	}
	for file := range ps.files() {
		secretLines(files[file], func(line int) {
			at := Pos{File: file, Line: line}
			if _, told := secret[at]; told {
				secret[at] = true
			}
		})
	}
	return secret
}

// files are those that the problems stand in.
func (ps Problems) files() map[string]bool {
	names := make(map[string]bool)
	for _, p := range ps {
		names[p.Pos.File] = true
	}
	return names
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		return cmp.Or(a.Pos.compare(b.Pos), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
}
