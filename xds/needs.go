package xds

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Lack is an extension that the policy uses and an Envoy does not list: one that is too old for it, or was built without.
type Lack struct {
	Type   string `json:"type"`   // of its configuration: envoy.extensions.filters.http.oauth2.v3.OAuth2
	Origin string `json:"origin"` // the first place in the policy that needs it
}

// needs is the extensions that a snapshot uses, with their origins.
type needs struct {
	of   *Snapshot
	list []Lack // by type
}

// needy is the Envoys of a group that are served the same.
type needy struct {
	group  string
	staged bool
}

// extensions of Envoy have their configuration there; other types are in every Envoy.
const extensions = "envoy.extensions."

// lacks compares what the snapshot uses with what an Envoy lists; nil when that lists nothing.
func (t talents) lacks(list []Lack) (lacks []Lack) {
	if t == nil {
		return nil
	}
	for _, l := range list {
		if _, ok := t[l.Type]; !ok {
			lacks = append(lacks, l)
		}
	}
	return lacks
}

// needsOf is made once for each snapshot, when somebody asks.
func (r *roster) needsOf(by needy, s *Snapshot) []Lack {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s == nil {
		delete(r.needs, by)
		return nil
	}
	if n := r.needs[by]; n.of == s {
		return n.list
	}
	first := map[string]string{}
	for _, of := range s.sets {
		for _, e := range of.sorted {
			if kindOf(e.Type).label {
				continue // what refers to one has its type as well
			}
			for _, name := range packed(e.Body.GetValue()) {
				if origin, ok := first[name]; strings.HasPrefix(name, extensions) && (!ok || e.Origin < origin) {
					first[name] = e.Origin
				}
			}
		}
	}
	var list []Lack
	for name, origin := range first {
		list = append(list, Lack{name, origin})
	}
	slices.SortFunc(list, func(a, b Lack) int { return cmp.Compare(a.Type, b.Type) })
	r.needs[by] = needs{s, list}
	return list
}

// packed finds the names of the messages that are packed into others (Any), however deep, without decoding anything: ten
// thousand routes take milliseconds. Each is written as tag, length and URL.
func packed(b []byte) (names []string) {
	const tag = 1<<3 | 2 // type_url of an Any
	prefix := []byte(resource.APITypePrefix)
	for from := 0; ; {
		at := bytes.Index(b[from:], prefix)
		if at < 0 {
			return names
		}
		at += from
		from = at + len(prefix)
		length := 0
		switch {
		case at >= 2 && b[at-2] == tag && b[at-1] < 0x80:
			length = int(b[at-1])
		case at >= 3 && b[at-3] == tag && b[at-2] >= 0x80 && b[at-1] < 0x80:
			length = int(b[at-2]&0x7f) | int(b[at-1])<<7
		}
		if length > len(prefix) && at+length <= len(b) {
			names = append(names, string(b[from:at+length]))
		}
	}
}
