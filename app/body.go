package app

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode"
	"unicode/utf8"

	"github.com/legation/legation/policy"
)

// filed is a body that holds the files of a policy.
type filed interface{ held() *policy.Files }

func (c *Candidate) held() *policy.Files { return &c.Files }
func (p *Push) held() *policy.Files      { return &p.Files }

// presized is the most that is made room for before it comes.
const presized = 16 << 20

// decodeFiled reads a body of JSON.
func decodeFiled(r *http.Request, into filed) error {
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), presized)+bytes.MinRead))
	if _, err := body.ReadFrom(http.MaxBytesReader(nil, r.Body, maxCandidate)); err != nil {
		return err
	}
	if files, rest, ok := filesFirst(body.Bytes()); ok {
		err := decodeStrictly(rest, into)
		if _, there := (*into.held())[""]; err == nil && there && len(*into.held()) == 1 {
			*into.held() = files
			return nil
		}
		*into.held() = nil // they stand there twice, or something else is wrong, which is told as it would be of any body
	}
	return decodeStrictly(body.Bytes(), into)
}

func decodeStrictly(body []byte, into any) error {
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	err := in.Decode(into)
	if err == nil {
		if _, end := in.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something comes after it")
		}
	}
	return err
}

// filesFirst reads the files of a body that begins with them, as the verbs write it, and gives the body with a file without a name in
// their place. That is
// several times as fast as encoding/json, which looks at each of millions of bytes twice. A body that is written in any other
// way, or is wrong, is none of its business.
func filesFirst(body []byte) (files policy.Files, rest []byte, ok bool) {
	s := jsonText{rest: body}
	if !s.take('{') {
		return nil, nil, false
	}
	if key, ok := s.text(); !ok || string(key) != "files" || !s.take(':') || !s.take('{') {
		return nil, nil, false
	}
	files = policy.Files{}
	for first := true; !s.take('}'); first = false {
		if !first && !s.take(',') {
			return nil, nil, false
		}
		name, named := s.text()
		if !named || !utf8.Valid(name) || bytes.ContainsFunc(name, unicode.IsControl) || !s.take(':') {
			return nil, nil, false
		}
		text, there := s.text()
		content := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(content, text)
		if !there || err != nil {
			return nil, nil, false
		}
		files[string(name)] = content[:n:n]
	}
	return files, fmt.Appendf(nil, `{"files":{"":""}%s`, s.rest), true
}

// jsonText is what is still to be read.
type jsonText struct{ rest []byte }

// take takes a mark, and the space before it.
func (s *jsonText) take(mark byte) bool {
	s.rest = bytes.TrimLeft(s.rest, " \t\r\n")
	if len(s.rest) == 0 || s.rest[0] != mark {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// text takes a text without escapes.
func (s *jsonText) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 {
		return nil, false
	}
	text := s.rest[:end]
	for _, mark := range []byte("\\\n\r") { // base64 would pass over the ends of lines
		if bytes.IndexByte(text, mark) >= 0 {
			return nil, false
		}
	}
	s.rest = s.rest[end+1:]
	return text, true
}
