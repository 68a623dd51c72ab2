package patch

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// message is one of Envoy's messages, with the fields of it that a policy may write. What is not listed is refused, so
// that a field which Envoy gets one day is refused until somebody has looked at it.
type message struct {
	name    string // of the part of the patch
	zero    proto.Message
	allowed []field
	refused []refusal // what people are likely to try, with the reason
}

// field is a field that may be written, and all that is below it.
type field struct {
	path     string        // protobuf's names from the top of the message, without the places in lists
	key      string        // the key that is about the same matter: where a gateway locks it, the field is refused
	needs    bool          // the field is a detail of what that key makes
	least    uint64        // bounds of a number; 0 for none
	most     uint64        //
	shortest time.Duration // bounds of a time span
	longest  time.Duration // 0: a year
}

// refusal is why a field, and all that is below it, may not be written, and what to do.
type refusal struct{ path, why, hint string }

// allowedAt is the entry that lets a path be written, itself or above it; nil where there is none.
func (m *message) allowedAt(path string) *field {
	i := slices.IndexFunc(m.allowed, func(f field) bool { return within(path, f.path) })
	if i < 0 {
		return nil
	}
	return &m.allowed[i]
}

// leads tells whether something below a path may be written.
func (m *message) leads(path string) bool {
	return slices.ContainsFunc(m.allowed, func(f field) bool { return within(f.path, path) })
}

// refusedAt is the longest refusal that covers a path.
func (m *message) refusedAt(path string) *refusal {
	var found *refusal
	for i, r := range m.refused {
		if within(path, r.path) && (found == nil || len(r.path) > len(found.path)) {
			found = &m.refused[i]
		}
	}
	return found
}

// below is the names of the fields of a message that may be written, or lead to one, as JSON has them.
func (m *message) below(path string, d protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if at := join(path, string(f.Name())); m.allowedAt(at) != nil || m.leads(at) {
			names = append(names, f.JSONName())
		}
	}
	return names
}

// within tells whether a path is another one or below it.
func within(path, above string) bool {
	return path == above || strings.HasPrefix(path, above+".")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
