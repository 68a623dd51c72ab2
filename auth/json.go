package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of tokens and key sets; the outermost object is 1. Real ones reach 5.
const maxDepth = 16

var errJSON = errors.New("not one strict JSON object")

// strictObject reads b as exactly one JSON object: valid UTF-8, no name twice at any depth, bounded depth, no broken
// surrogates. Numbers stay as they are written.
func strictObject(b []byte) (map[string]any, error) {
	if !utf8.Valid(b) || !json.Valid(b) { // the token reader below accepts more than JSON
		return nil, errJSON
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := strictValue(d, 0)
	if err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errJSON
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errJSON
	}
	return o, nil
}

func strictValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errJSON
	}
	switch t := t.(type) {
	case json.Delim:
		if depth == maxDepth {
			return nil, errJSON
		}
		if t == '{' {
			return strictMembers(d, depth+1)
		}
		return strictElements(d, depth+1)
	case string:
		return t, strictString(t)
	default:
		return t, nil
	}
}

func strictMembers(d *json.Decoder, depth int) (map[string]any, error) {
	o := map[string]any{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok || strictString(name) != nil {
			return nil, errJSON
		}
		if _, twice := o[name]; twice {
			return nil, errJSON
		}
		if o[name], err = strictValue(d, depth); err != nil {
			return nil, err
		}
	}
	return o, closed(d)
}

func strictElements(d *json.Decoder, depth int) ([]any, error) {
	a := []any{}
	for d.More() {
		v, err := strictValue(d, depth)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	return a, closed(d)
}

func closed(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errJSON
	}
	return nil
}

// strictString refuses the replacement character: it is what encoding/json makes of a lone surrogate, and two names
// that differ in their broken part would become equal.
func strictString(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return errJSON
	}
	return nil
}
