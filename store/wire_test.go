package store

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// said is a reply that outlives the next one.
type said struct {
	Kind   kind
	Number int64
	Text   string
}

func readAll(r reader) (all []said, err error) {
	for {
		one, err := r.next()
		if err != nil {
			return all, err
		}
		all = append(all, said{one.kind, one.number, string(one.text)})
	}
}

func TestReplies(t *testing.T) {
	long := strings.Repeat("x", 40_000)
	in := "+OK\r\n-ERR no\r\n:-7\r\n:9223372036854775807\r\n:-9223372036854775808\r\n$3\r\na\r\n\r\n$0\r\n\r\n$-1\r\n*-1\r\n*2\r\n:1\r\n$40000\r\n" + long + "\r\n"
	want := []said{
		{Kind: status, Text: "OK"},
		{Kind: failure, Text: "ERR no"},
		{Kind: integer, Number: -7},
		{Kind: integer, Number: math.MaxInt64},
		{Kind: integer, Number: math.MinInt64},
		{Kind: text, Text: "a\r\n"},
		{Kind: text},
		{Kind: absent},
		{Kind: absent},
		{Kind: array, Number: 2},
		{Kind: integer, Number: 1},
		{Kind: text, Text: long},
	}
	for name, from := range map[string]io.Reader{"whole": strings.NewReader(in), "by bytes": iotest.OneByteReader(strings.NewReader(in))} {
		got, err := readAll(newReader(from))
		if d := cmp.Diff(want, got); d != "" || !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
}

func TestRepliesThatAreNone(t *testing.T) {
	for _, in := range []string{
		"\r\n", "x\r\n", "OK\n", ":\r\n", ":1x\r\n", ":99999999999999999999\r\n", ":9223372036854775808\r\n", "$-2\r\n", "$70000\r\n",
		"$1\r\nab\r\n", "*9999999\r\n", "_\r\n", "#t\r\n", "\n", "+" + strings.Repeat("x", 2*maxReplyText),
	} {
		if _, err := readAll(newReader(strings.NewReader(in))); !errors.Is(err, errReply) {
			t.Errorf("%.20q: got %v, want %v", in, err, errReply)
		}
	}
}

// FuzzReplies reads the same whether bytes come together or one by one, and nothing that was not sent.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("+OK\r\n:1\r\n$3\r\nabc\r\n*1\r\n$-1\r\n"))
	f.Add([]byte("*2\r\n:1\r\n-ERR\r\n"))
	f.Add([]byte("$5\r\nabc"))
	f.Add([]byte(":9223372036854775808\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := readAll(newReader(bytes.NewReader(in)))
		parts, partly := readAll(newReader(iotest.OneByteReader(bytes.NewReader(in))))
		if d := cmp.Diff(whole, parts); d != "" || errors.Is(err, errReply) != errors.Is(partly, errReply) {
			t.Errorf("%v and %v\n%s", err, partly, d)
		}
		n := 0
		for _, s := range whole {
			n += len(s.Text) + 3
		}
		if n > len(in)+2*len(whole) {
			t.Errorf("%d bytes of replies in %d", n, len(in))
		}
	})
}

// FuzzCommand holds that what is written is what Redis reads: commands are arrays of texts, as replies may be.
func FuzzCommand(f *testing.F) {
	f.Add("SET", "a b\r\n$1\r\nx", int64(-1))
	f.Add("", "\x00\xff", int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, a, b string, n int64) {
		buf := appendCommand(nil, 3)
		buf = appendText(buf, a)
		buf = appendText(buf, []byte(b))
		buf = appendNumber(buf, n)
		got, err := readAll(newReader(bytes.NewReader(buf)))
		if len(a) > maxReplyText || len(b) > maxReplyText {
			return
		}
		if !errors.Is(err, io.EOF) || len(got) != 4 || got[0].Number != 3 || got[1].Text != a || got[2].Text != b {
			t.Fatalf("%q gives %v, %v", buf, got, err)
		}
		if back, ok := number([]byte(got[3].Text)); !ok || back != n {
			t.Errorf("%d came back as %d", n, back)
		}
	})
}
