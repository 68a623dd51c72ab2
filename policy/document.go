package policy

import (
	"reflect"
	"strings"
)

// ReadDocument reads a YAML file that is no policy, such as one of a process's own settings, by the rules of policy files:
// nothing unknown, nothing twice, every problem at its place. What into points to is a struct with policy tags; when there are
// errors it is not to be used.
func ReadDocument(file string, content []byte, into any) Problems {
	l := New().begin(Files{file: content}, nil)
	keys := fieldsOf(reflect.TypeOf(into).Elem()).names
	p := &parser{file: file, out: &parsed{}, begin: "begin with one of " + strings.Join(keys, ":, ") + ":"}
	out := p.parse(content)
	for _, problem := range out.problems {
		l.add(problem)
	}
	l.stage = decoding
	switch {
	case len(out.problems) > 0:
	case len(out.roots) == 0:
		l.add(&Problem{Pos: Pos{File: file}, Message: "the file is empty", Hint: p.begin})
	case len(out.roots) > 1:
		l.add(&Problem{Pos: out.roots[1].Pos, Message: "a second document can't follow", Hint: "have all in one, without ---"})
	default:
		(&Decode{load: l}).Decode(out.roots[0], into)
	}
	return l.done()
}
