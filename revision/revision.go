// Package revision keeps the history of a policy: each state that was accepted, with who made it, when and why, and all of
// its files. Of a state only the files that changed are stored, compressed; secrets never are. control and app keep and
// ask for revisions by way of [History]; store has the archives below it.
package revision

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Revision is what the history tells of one state of a policy.
type Revision struct {
	Number  int64     `json:"number"` // counts up
	Hash    string    `json:"hash"`   // of what the files hold: policy.Model.Revision
	Time    time.Time `json:"time"`
	By      string    `json:"by,omitempty"` // who made it, as they say themselves
	Message string    `json:"message,omitempty"`
	Source  Source    `json:"source"`
	Parent  int64     `json:"parent,omitempty"` // the revision that it took the place of
	Of      int64     `json:"of,omitempty"`     // of a rollback: whose files it has
	Forced  bool      `json:"forced,omitempty"` // it may take away more than half of what was served
	Files   int       `json:"files"`            // how many
	Bytes   int64     `json:"bytes"`            // of all files
	Changed int       `json:"changed"`          // files that its parent has not, or has otherwise, or alone

	// Pin is, of a rollback over a policy directory, what [Digest] gives of the directory's files then: the rollback holds
	// until they are others.
	Pin string `json:"pin,omitempty"`

	Manifest string `json:"manifest"` // the name of the blob that lists the files
	Stored   int64  `json:"stored"`   // bytes of the whole history, about
}

// Source is where a revision comes from.
type Source string

// The sources.
const (
	Pushed    Source = "push"
	Directory Source = "directory"
	Rollback  Source = "rollback"
)

var (
	// ErrMoved is that another revision was accepted meanwhile.
	ErrMoved = errors.New("the history has gone on")
	// ErrNone is that there is no such revision, or not any more.
	ErrNone = errors.New("no such revision")
	// ErrDamaged is what is stored and can't be read.
	ErrDamaged = errors.New("stored badly")
	// ErrInvalid is that something can't be kept.
	ErrInvalid = errors.New("invalid revision")
)

// Bounds of what people write.
const (
	MaxBy      = 128  // bytes
	MaxMessage = 2048 // bytes
)

// check tells what is wrong with what people wrote.
func (r Revision) check() error {
	for what, text := range map[string]string{"by": r.By, "message": r.Message} {
		most := MaxBy
		if what == "message" {
			most = MaxMessage
		}
		lines := text
		if what == "message" {
			lines = strings.ReplaceAll(text, "\n", "")
		}
		switch {
		case len(text) > most:
			return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrInvalid, what, len(text), most)
		case !shows(lines):
			return fmt.Errorf("%w: %s has characters that can't be shown", ErrInvalid, what)
		}
	}
	return nil
}

// shows tells whether a terminal shows the text as what it is: nothing in it moves the cursor, or turns the order around.
func shows(text string) bool {
	odd := func(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) }
	return utf8.ValidString(text) && !strings.ContainsFunc(text, odd)
}

// Words that name a revision.
const (
	Head     = "head"     // the last one
	Previous = "previous" // the one before it
)

// ref is the ways to write a revision besides: its number, or the beginning of its hash.
var ref = regexp.MustCompile(`^([1-9][0-9]{0,17}|[0-9a-f]{6,32})$`)

// IsRef tells whether a text may name a revision: 12, 3f9ab2 (at least 6 digits of the hash), head or previous.
func IsRef(text string) bool { return text == Head || text == Previous || ref.MatchString(text) }

// find finds the revision that a text names among those that there are, the last one first.
func find(all []Revision, text string) (Revision, error) {
	if len(all) == 0 {
		return Revision{}, fmt.Errorf("%w %s: there is none at all", ErrNone, strconv.Quote(text))
	}
	switch {
	case text == Head:
		return all[0], nil
	case text == Previous && len(all) < 2:
		return Revision{}, fmt.Errorf("%w: %d is the only one", ErrNone, all[0].Number)
	case text == Previous:
		return all[1], nil
	case !ref.MatchString(text):
		return Revision{}, fmt.Errorf("%w %.64q: want its number, at least 6 digits of its hash, head or previous", ErrNone, text)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		for _, r := range all {
			if r.Number == n {
				return r, nil
			}
		}
	}
	var found []Revision
	for _, r := range all {
		if len(text) >= 6 && strings.HasPrefix(r.Hash, text) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 0:
		return Revision{}, fmt.Errorf("%w %q: the history goes from %d to %d", ErrNone, text, all[len(all)-1].Number, all[0].Number)
	case found[0].Hash != found[len(found)-1].Hash:
		return Revision{}, fmt.Errorf("%w %q: it begins the hashes of %d and %d", ErrNone, text, found[0].Number, found[len(found)-1].Number)
	}
	return found[0], nil // the same files, the last time
}
