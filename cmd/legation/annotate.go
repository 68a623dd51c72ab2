package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
)

// writeAnnotations tells the problems as workflow commands of GitHub Actions, which shows them at their lines; the count
// goes to the log.
func writeAnnotations(w io.Writer, f finding) error {
	var err error
	say := func(format string, args ...any) {
		_, failed := fmt.Fprintf(w, format+"\n", args...)
		err = errors.Join(err, failed)
	}
	for _, p := range f.report().Problems {
		where := []string{"file=" + property(f.fromHere(p.File))}
		for _, number := range []struct {
			name  string
			value int
		}{{"line", p.Line}, {"col", p.Column}, {"endColumn", p.EndColumn}} {
			if number.value > 0 {
				where = append(where, fmt.Sprintf("%s=%d", number.name, number.value))
			}
		}
		where = append(where, "title="+property("legation: "+p.Rule))
		say("::%s %s::%s", p.Severity, strings.Join(where, ","), data(f.text(p)))
	}
	if f.err != nil {
		say("::error title=legation::%s", data(f.err.Error()))
	}
	if f.ok() {
		say("ok: %s, revision %s", counts(f.compiled.Model), f.compiled.Model.Revision)
	} else {
		say("%s", tally(f.all()))
	}
	return errors.Join(err, f.bad())
}

// text is a problem in words, without its place.
func (f finding) text(p reported) string {
	text := p.Message
	if p.Path != "" {
		text = p.Path + ": " + text
	}
	if p.Hint != "" {
		text += "\nhint: " + p.Hint
	}
	for _, at := range p.Also {
		text += fmt.Sprintf("\nalso: %s:%d:%d", f.fromHere(at.File), at.Line, at.Column)
	}
	return text
}

// fromHere is the path of a policy file from the working directory, which annotations are relative to.
func (f finding) fromHere(file string) string {
	return path.Join(filepath.ToSlash(f.dir), file)
}

// data and property keep what somebody wrote from ending a command, or beginning another.
func data(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func property(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}
