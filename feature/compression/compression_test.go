package compression_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature/compression"
	"github.com/legation/legation/feature/golden"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", compression.Kind) }

const live = `
gateways: {edge: {listeners: {http: {port: 10000}}}}
services: {web: {endpoints: [%q]}}
routes:
  usual: {hostnames: [a.test], match: {path: /usual}, backends: {web: 1}, compression: true}
  all: {hostnames: [a.test], match: {path: /all}, backends: {web: 1}, compression: {algorithms: [zstd, brotli, gzip]}}
  gzip: {hostnames: [a.test], match: {path: /gzip}, backends: {web: 1}, compression: {algorithms: [gzip], minLength: 8KiB, contentTypes: [image/bmp]}}
  events: {hostnames: [a.test], match: {path: /events}, backends: {web: 1}, compression: {contentTypes: [text/event-stream]}}
  off: {hostnames: [a.test], match: {path: /off}, backends: {web: 1}}
`

// page is what backends answer, 5000 bytes.
var page = strings.Repeat("well compressed texts say a lot often. ", 125)[:4875] + strings.Repeat(".", 125)

// told answers with the page, and with headers that the test's request names: x-answer-etag becomes etag.
func told(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for name, values := range r.Header {
		if name, ok := strings.CutPrefix(name, "X-Answer-"); ok {
			w.Header().Set(name, values[0])
		}
	}
	status, _ := strconv.Atoi(w.Header().Get("Status"))
	w.WriteHeader(max(status, 200))
	body := page
	if n, err := strconv.Atoi(w.Header().Get("Content-Length")); err == nil {
		body = strings.Repeat("x", n)
	}
	io.WriteString(w, body)
}

func TestClientsGetWhatTheyLikeBest(t *testing.T) {
	edge := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, told)), compression.Kind)
	for _, tt := range []struct{ path, accept, want string }{
		{"/usual", "gzip, deflate, br, zstd", "br"}, // browsers
		{"/usual", "br, gzip, deflate", "br"},
		{"/usual", "gzip", "gzip"},
		{"/usual", "gzip;q=1.0, br;q=0.9", "gzip"},
		{"/usual", "gzip;q=0.5, br;q=0.8", "br"},
		{"/usual", "br;q=0, gzip", "gzip"},
		{"/usual", "*", "br"},
		{"/usual", "zstd", ""},
		{"/usual", "deflate", ""},
		{"/usual", "identity", ""},
		{"/usual", "gzip;q=0", ""},
		{"/all", "gzip, deflate, br, zstd", "zstd"}, // browsers
		{"/all", "gzip, deflate, br", "br"},
		{"/all", "zstd, br, gzip", "br"},
		{"/all", "zstd;q=1, br;q=0.9", "zstd"},
		{"/all", "zstd", "zstd"},
		{"/gzip", "gzip, br", ""}, // another media type
		{"/off", "gzip, br, zstd", ""},
	} {
		got := edge.Ask(t, "GET", "a.test", tt.path, "Accept-Encoding", tt.accept)
		if got.Status != 200 || got.Header.Get("Content-Encoding") != tt.want || (len(got.Body) < 500) != (tt.want != "") {
			t.Errorf("%s, %q: got %d %q, %d bytes, want %q", tt.path, tt.accept, got.Status, got.Header.Get("Content-Encoding"), len(got.Body), tt.want)
		}
	}
}

func TestGzipReadsAsBefore(t *testing.T) {
	edge := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, told)), compression.Kind)
	got := edge.Ask(t, "GET", "a.test", "/usual", "Accept-Encoding", "gzip")
	r, err := gzip.NewReader(strings.NewReader(got.Body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if diff := cmp.Diff(page, string(text)); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestWhatIsLeftAlone(t *testing.T) {
	edge := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, told)), compression.Kind)
	for _, tt := range []struct {
		name, path     string
		answer         []string // headers of the backend's answer
		encoding, etag string
	}{
		{"plain", "/usual", nil, "gzip", ""},
		{"json", "/usual", []string{"Content-Type", "application/json;charset=utf-8"}, "gzip", ""},
		{"upper case", "/usual", []string{"Content-Type", "TEXT/HTML"}, "gzip", ""},
		{"strong etag", "/usual", []string{"Etag", `"a"`}, "gzip", `W/"a"`},
		{"weak etag", "/usual", []string{"Etag", `W/"a"`}, "gzip", `W/"a"`},
		{"an error", "/usual", []string{"Status", "500"}, "gzip", ""},
		{"encoded", "/usual", []string{"Content-Encoding", "br", "Etag", `"a"`}, "br", `"a"`},
		{"no-transform", "/usual", []string{"Cache-Control", "public, no-transform"}, "", ""},
		{"a part", "/usual", []string{"Status", "206", "Content-Range", "bytes 0-4999/9000"}, "", ""},
		{"an image", "/usual", []string{"Content-Type", "image/png"}, "", ""},
		{"events", "/usual", []string{"Content-Type", "text/event-stream"}, "", ""},
		{"no type", "/usual", []string{"Content-Type", ""}, "", ""},
		{"short", "/usual", []string{"Content-Length", "1023"}, "", ""},
		{"long enough", "/usual", []string{"Content-Length", "1024"}, "gzip", ""},
		{"short for the route", "/gzip", []string{"Content-Type", "image/bmp", "Content-Length", "8191"}, "", ""},
		{"long enough for the route", "/gzip", []string{"Content-Type", "image/bmp", "Content-Length", "8192"}, "gzip", ""},
	} {
		headers := []string{"Accept-Encoding", "gzip"}
		for i := 0; i < len(tt.answer); i += 2 {
			headers = append(headers, "X-Answer-"+tt.answer[i], tt.answer[i+1])
		}
		got := edge.Ask(t, "GET", "a.test", tt.path, headers...)
		if encoding, etag := got.Header.Get("Content-Encoding"), got.Header.Get("Etag"); encoding != tt.encoding || etag != tt.etag {
			t.Errorf("%s: got encoding %q, etag %q, want %q, %q", tt.name, encoding, etag, tt.encoding, tt.etag)
		}
	}
}

func TestCachesKeepEncodingsApart(t *testing.T) {
	edge := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, told)), compression.Kind)
	for _, accept := range []string{"gzip", "identity"} {
		got := edge.Ask(t, "GET", "a.test", "/usual", "Accept-Encoding", accept, "X-Answer-Vary", "origin")
		if diff := cmp.Diff([]string{"origin, Accept-Encoding"}, got.Header["Vary"]); diff != "" {
			t.Errorf("%s: vary (-want +got):\n%s", accept, diff)
		}
	}
}

// The backend goes on only once the client has got the first event.
func TestEventsGoOutAtOnce(t *testing.T) {
	for _, accept := range []string{"gzip", "br"} {
		arrived := make(chan struct{})
		edge := golden.Serve(t, fmt.Sprintf(live, golden.Backend(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			select {
			case <-arrived:
				io.WriteString(w, "data: 2\n\n")
			case <-r.Context().Done():
			}
		})), compression.Kind)
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+edge.Address(t, "http")+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "a.test"
		req.Header.Set("Accept-Encoding", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("Content-Encoding"); got != accept {
			t.Errorf("got %q, want %s", got, accept)
		}
		first := make([]byte, 100)
		if n, err := resp.Body.Read(first); n == 0 {
			t.Errorf("%s: nothing came (%v)", accept, err)
		}
		close(arrived)
		if rest, err := io.ReadAll(resp.Body); len(rest) == 0 || err != nil {
			t.Errorf("%s: the second event did not come (%v)", accept, err)
		}
	}
}
