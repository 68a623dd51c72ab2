package app

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A body is read as encoding/json would read it, however it is written.
func TestBodiesWithFiles(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"files":{"a.yaml":"YQ==","b/c.yaml":"","Ω":"YmI="},"parent":"3","by":"ci","force":true}`,
		" {\n\t\"files\" : { \"a\" : \"YQ==\" , \"b\":\"Yg==\" } , \"parent\" : \"none\" }\n",
		`{"files":{}}`, `{"files":null}`, `{"files":{"a":null}}`, `{"parent":"1","files":{"a":"YQ=="}}`, `{}`, `null`,
		`{"files":{"\u0061":"YQ\u003d="},"parent":"1"}`, `{"files":{"a":"YQ==","a":"Yg=="}}`, `{"Files":{"a":"YQ=="}}`,
		`{"files":{"a":"YQ=="},"files":{"b":"Yg=="}}`, `{"files":{"a":"YQ=="},"FILES":{"a":"Yg=="}}`, `{"files":{"a":"YQ=="},"files":null}`,
		// What is wrong.
		``, `{`, `[]`, `{"files"`, `{"files":`, `{"files":{`, `{"files":{"a"`, `{"files":{"a":`, `{"files":{"a":"YQ==`, `{"files":{"a":"YQ=="`, `{"files":{"a":"YQ=="}`,
		`{"files":{"a":"YQ==",}}`, `{"files":{,"a":"YQ=="}}`, `{"files":{"a":"YQ="}}`, `{"files":{"a":"Y Q=="}}`, "{\"files\":{\"a\":\"YQ\n==\"}}", "{\"files\":{\"a\nb\":\"\"}}",
		`{"files":{"a":1}}`, `{"files":{"a":["YQ=="]}}`, `{"files":[]}`, `{"files":{}}}`, `{"files":{}} {}`, `{"files":{}"parent":"1"}`, `{"files":{},"nobody":1}`,
		"{\"files\":{\"\xff\":\"YQ==\"}}", "{\"files\":{\"\x01\":\"\"}}", `{"files":{"a":"YQ=="} "parent":"1"}`,
	} {
		var got, want Push
		in := json.NewDecoder(strings.NewReader(body))
		in.DisallowUnknownFields()
		wrong := in.Decode(&want) != nil
		if _, err := in.Token(); !errors.Is(err, io.EOF) {
			wrong = true
		}
		err := decodeFiled(httptest.NewRequest("POST", "/revisions", strings.NewReader(body)), &got)
		if (err != nil) != wrong {
			t.Errorf("%q: got error %v, encoding/json one: %v", body, err, wrong)
			continue
		}
		if d := cmp.Diff(want, got); !wrong && d != "" {
			t.Errorf("%q (-encoding/json +got):\n%s", body, d)
		}
	}
}
