// Package directresponse answers without a backend: the key directResponse. [envoy.Translate] calls it.
package directresponse

import (
	"bytes"
	"cmp"
	_ "embed"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key directResponse.
var Kind = policy.Define[Setting]("directResponse", policy.InRoute, doc)

// Setting is what stands under directResponse. Envoy's DirectResponseAction.
type Setting struct {
	Status      *uint32           `policy:"status" doc:"the status of the answer, 200 to 599; default: 200"`
	Body        string            `policy:"body" doc:"the text of the answer, at most 64 KiB; default: none"`
	File        string            `policy:"file" doc:"a file beside the policy file that holds the body, at most 64 KiB"`
	ContentType string            `policy:"contentType" doc:"the type of the body; default: by the file's ending, else text/plain; charset=utf-8"`
	Headers     map[string]string `policy:"headers" doc:"further headers of the answer"`

	content []byte // of File
}

// maxBody is what our route tables let Envoy answer, in bytes.
const maxBody = 64 << 10

// Answers tells that the route needs no backend.
func (*Setting) Answers() bool { return true }

// Check reads the file, and refuses what can't be answered.
func (s *Setting) Check(c *policy.Check) {
	s.checkStatus(c)
	s.checkBody(c)
	s.checkHeaders(c)
	if r := c.Route(); r != nil && len(r.Backends) > 0 {
		c.Errorf("", "the route has backends too, which would get no request").Hintf("take backends away, or directResponse")
	}
}

func (s *Setting) checkStatus(c *policy.Check) {
	switch status := s.status(); {
	case status < 200 || status > 599:
		c.Errorf("status", "want a status from 200 to 599, got %d", status)
	case status >= 301 && status <= 303 || status == 307 || status == 308:
		c.Errorf("status", "%d sends the client elsewhere", status).Hintf("write `redirect` in place of directResponse")
	case bodyless(status) && (s.Body != "" || s.File != ""):
		c.Errorf("status", "an answer with the status %d has no body", status).Hintf("take the body away, or write another status")
	}
}

// bodyless tells of the statuses whose answers end after the headers, whatever they announce.
func bodyless(status uint32) bool { return status == 204 || status == 205 || status == 304 }

func (s *Setting) checkBody(c *policy.Check) {
	switch {
	case s.Body != "" && s.File != "":
		c.Errorf("file", "the body stands in two places: body and file").Hintf("take one of them away")
	case len(s.Body) > maxBody:
		c.Errorf("body", "%d bytes, more than 64 KiB", len(s.Body)).Hintf("what is larger belongs on a backend")
	case s.File != "":
		s.read(c)
	}
	switch {
	case s.ContentType == "":
	case s.Body == "" && s.File == "":
		c.Errorf("contentType", "is the type of a body, and there is none").Hintf("write body or file")
	case !isType(s.ContentType):
		c.Errorf("contentType", "%q is not a content type", s.ContentType).Hintf("such as application/json")
	}
}

// read reads the file. What else lies in the policy directory, such as keys, is not for clients.
func (s *Setting) read(c *policy.Check) {
	if types[path.Ext(s.File)] == "" {
		c.Errorf("file", "%s is not a kind of file that is answered", path.Base(s.File)).
			Hintf("the endings are %s", strings.Join(slices.Sorted(maps.Keys(types)), ", "))
		return
	}
	content, ok := c.File("file", s.File)
	switch {
	case !ok:
	case len(content) == 0:
		c.Errorf("file", "%s is empty", s.File).Hintf("leave file out for an answer without a body")
	case len(content) > maxBody:
		c.Errorf("file", "%s has %d bytes, more than 64 KiB", s.File, len(content)).Hintf("what is larger belongs on a backend")
	case !bytes.Equal(content, s.content): // whoever has read it before may be reading what is there
		s.content = content
	}
}

// isType tells whether a text is type/subtype, with whatever parameters.
func isType(text string) bool {
	name, parameters, _ := strings.Cut(text, ";")
	top, sub, _ := strings.Cut(strings.TrimRight(name, " "), "/")
	return policy.IsToken(top) && policy.IsToken(sub) && !strings.ContainsFunc(parameters, notVisible)
}

func notVisible(r rune) bool { return r < ' ' || r > '~' }

// Headers that belong to the connection or to its framing; Envoy writes them itself.
var hopByHop = []string{
	"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// maxValue is the most bytes that Envoy's HeaderValue takes.
const maxValue = 16384

func (s *Setting) checkHeaders(c *policy.Check) {
	seen := map[string]bool{} // lower-case names
	for _, name := range sorted(s.Headers) {
		at, lower, value := "headers."+name, strings.ToLower(name), s.Headers[name]
		switch {
		case strings.HasPrefix(name, ":"):
			c.Errorf(at, "%s is not a header but part of the status line", name).Hintf("write status")
		case !policy.IsToken(name):
			c.Errorf(at, "%q is not a header name", name).Hintf("letters, digits and dashes")
		case lower == "content-type":
			c.Errorf(at, "the type of the body has a key of its own").Hintf("write contentType")
		case slices.Contains(hopByHop, lower):
			c.Errorf(at, "%s belongs to one connection; Envoy writes it itself", lower)
		case strings.HasPrefix(lower, "x-envoy-"):
			c.Errorf(at, "x-envoy- headers are Envoy's own").Hintf("use another name")
		case seen[lower]:
			c.Errorf(at, "%s stands here twice: case does not count", lower)
		case strings.ContainsFunc(value, control):
			c.Errorf(at, "the value holds a control character").Hintf("headers are one line of plain text")
		case strings.TrimSpace(value) != value:
			c.Errorf(at, "the value begins or ends with a space, which HTTP drops")
		case len(escape(value)) > maxValue:
			c.Errorf(at, "the value is longer than Envoy's %d bytes", maxValue)
		}
		seen[lower] = true
	}
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// Route makes the answer. Its headers stand on the route, as Envoy wants it.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	var headers []*corev3.HeaderValueOption
	body := s.body()
	if body != nil {
		headers = append(headers, header("content-type", s.contentType()))
	}
	for _, name := range sorted(s.Headers) {
		headers = append(headers, header(strings.ToLower(name), s.Headers[name]))
	}
	return envoy.RouteParts{Route: &routev3.Route{
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: s.status(),
			Body:   body,
		}},
		ResponseHeadersToAdd: headers,
	}}
}

func (s *Setting) status() uint32 {
	return policy.Or(s.Status, 200)
}

// body is nil for none: Envoy takes no empty text.
func (s *Setting) body() *corev3.DataSource {
	switch {
	case s.Body != "":
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s.Body}}
	case s.content == nil:
		return nil
	case utf8.Valid(s.content):
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(s.content)}}
	default:
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: s.content}}
	}
}

const plain = "text/plain; charset=utf-8"

// types are those of the files that can be answered, by their endings. The system's own table differs from machine to
// machine, and the answer must not.
var types = map[string]string{
	".css":         "text/css; charset=utf-8",
	".csv":         "text/csv; charset=utf-8",
	".gif":         "image/gif",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/x-icon",
	".jpg":         "image/jpeg",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".txt":         plain,
	".webmanifest": "application/manifest+json",
	".webp":        "image/webp",
	".xml":         "application/xml",
}

func (s *Setting) contentType() string { return cmp.Or(s.ContentType, types[path.Ext(s.File)], plain) }

func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:         &corev3.HeaderValue{Key: name, Value: escape(value)},
		AppendAction:   corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		KeepEmptyValue: value == "", // else Envoy drops the header
	}
}

// escape keeps Envoy from reading %…% in a value as one of its variables.
func escape(value string) string { return strings.ReplaceAll(value, "%", "%%") }

// sorted gives the names in the order of their lower case.
func sorted(m map[string]string) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
	})
}
