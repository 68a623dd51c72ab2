// Package compression makes answers shorter on their way to clients: the key compression. [envoy.Translate] calls it.
package compression

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key compression.
var Kind = policy.Define[Setting]("compression", policy.Layers, doc)

// Setting is what stands under compression; `true` is all of it by default.
type Setting struct {
	Algorithms   []Algorithm   `policy:"algorithms" doc:"those that are offered, of brotli, gzip and zstd; default: brotli and gzip"`
	MinLength    *policy.Bytes `policy:"minLength" doc:"answers whose content-length is below are left alone; default: 1KiB"`
	ContentTypes []ContentType `policy:"contentTypes" doc:"the media types to compress, without parameters; default: the usual texts"`
}

// Algorithm is a way to compress.
type Algorithm string

// The algorithms.
const (
	brotli Algorithm = "brotli"
	gzip   Algorithm = "gzip"
	zstd   Algorithm = "zstd" // Envoy's holds back what it has until much more or the end has come
)

// Values are the algorithms.
func (Algorithm) Values() []string { return []string{string(brotli), string(gzip), string(zstd)} }

// ContentType is a media type in lower case, such as application/json.
type ContentType string

var mediaType = regexp.MustCompile(`^[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+$`)

// DecodePolicy reads a media type, and refuses those that compression would break.
func (t *ContentType) DecodePolicy(d *policy.Decode, n *policy.Node) {
	text := strings.ToLower(n.Text)
	bare, _, params := strings.Cut(text, ";")
	switch {
	case n.Kind != policy.Scalar:
		d.Errorf(n, "want a media type such as application/json")
	case params && mediaType.MatchString(strings.TrimSpace(bare)):
		d.Errorf(n, "parameters such as charset do not count").Hintf("write %s", strings.TrimSpace(bare))
	case strings.Contains(text, "*"):
		d.Errorf(n, "%q: wildcards are not known", n.Text).Hintf("name the types: text/html, text/css …")
	case !mediaType.MatchString(text):
		d.Errorf(n, "%q is not a media type", n.Text).Hintf("write application/json, text/html …")
	case strings.HasPrefix(text, "application/grpc"):
		d.Errorf(n, "gRPC compresses each message itself")
	default:
		*t = ContentType(text)
	}
}

// PolicySchema describes a media type.
func (*ContentType) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": "^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$", "examples": []string{"application/json"}}
}

// DecodePolicy reads true or a map.
func (s *Setting) DecodePolicy(d *policy.Decode, n *policy.Node) {
	d.TrueOr(n, s, "write compression: true, or off for none")
}

// PolicySchema describes both forms.
func (s *Setting) PolicySchema(schemas *policy.Schemas) map[string]any {
	return policy.TrueOr(schemas.Of(s))
}

// maxMinLength is what fits into Envoy's field; 0 would be 30 there.
const maxMinLength = 1<<32 - 1

const events ContentType = "text/event-stream"

// Check refuses lists that say nothing, and events that would be held back.
func (s *Setting) Check(c *policy.Check) {
	if s.Algorithms != nil && len(s.Algorithms) == 0 {
		c.Errorf("algorithms", "name at least one").Hintf("write `compression: off` for none")
	}
	if s.ContentTypes != nil && len(s.ContentTypes) == 0 {
		c.Errorf("contentTypes", "name at least one").Hintf("write `compression: off` for none")
	}
	if s.MinLength != nil && (*s.MinLength == 0 || *s.MinLength > maxMinLength) {
		c.Errorf("minLength", "want from 1B to less than 4GiB").Hintf("short answers get longer: leave it out for 1KiB")
	}
	if i := slices.Index(s.ContentTypes, events); i >= 0 && slices.Contains(s.Algorithms, zstd) {
		c.Errorf(policy.Item("contentTypes", i), "with zstd events would wait for many others, or for the end").
			Hintf("leave zstd out of algorithms, or %s out of contentTypes", events)
	}
	for i, a := range s.Algorithms {
		if slices.Contains(s.Algorithms[:i], a) {
			c.Errorf(policy.Item("algorithms", i), "%s stands here twice", a)
		}
	}
}
