package policy

import "testing"

func TestEndOfAWord(t *testing.T) {
	for _, row := range []struct {
		line string
		col  int
		want int
	}{
		{"routes:", 1, 7},
		{"  auth: idp", 9, 12},
		{"timeouts: {request: 5}", 21, 22},
		{"backoff: {base: 10 seconds}  # long", 17, 27},
		{"by: {header: x-a, max: 1}", 14, 17},
		{`path: "a: \"b\", c"  # d`, 7, 20},
		{"path: 'it''s'", 7, 14},
		{"jwks: https://id.test/keys#1", 7, 29},
		{"größe: süß", 8, 11},
		{"name: x   ", 7, 8},
		{"cors: {allowOrigins: []}", 7, 0},
		{"origins: [a]", 10, 0},
		{"body: |", 7, 0},
		{`body: "goes on`, 7, 0},
		{"- a", 1, 0},
		{"a", 9, 0},
		{"a", 0, 0},
	} {
		files := Files{"p.yaml": []byte("\ufeff# first\r\n" + row.line + "\r\n")}
		if got := files.End(Pos{File: "p.yaml", Line: 2, Col: row.col}); got != row.want {
			t.Errorf("%s from column %d: got %d, want %d", row.line, row.col, got, row.want)
		}
	}
	if got := (Files{"p.yaml": []byte("a: b\n")}).End(Pos{File: "p.yaml", Line: 7, Col: 1}); got != 0 {
		t.Errorf("of a line that there is not: got %d", got)
	}
	if got := Files(nil).End(Pos{File: "p.yaml"}); got != 0 {
		t.Errorf("of a file that is not known: got %d", got)
	}
}
