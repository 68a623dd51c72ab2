package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/legation/legation/store"
)

// Revocation stops credentials that look good. Its name says which, by one of these kinds:
//
//	token:HASH           one token, see [TokenRevocation]
//	jti:ENTRY/JTI        the tokens of an entry of auth with that jti
//	subject:ENTRY/VALUE  whatever one identity was given up to Since, and what doesn't tell when it was given
//	consumer:NAME        all that a consumer has, old and new
//	key:ENTRY/ID         one API key
//	session:ID           one login
type Revocation struct {
	Name   string    `json:"name"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is undone
	Note   string    `json:"note,omitempty"` // what the policy served here says against it
}

// The errors of revoking, which callers tell apart.
var (
	ErrNoBoard    = errors.New("nothing can be revoked here: the process keeps no revocations")
	ErrNotRevoked = errors.New("there is no such revocation")
	ErrRevocation = errors.New("not a revocation")
)

// lasting is how long a revocation of each kind stands unless it is said: as long as what it stops, as far as that is
// known. Zero is until it is undone. Of a token whose end isn't known it is taken that it lives no longer.
var lasting = map[string]time.Duration{
	"token": 30 * 24 * time.Hour, "jti": 30 * 24 * time.Hour, "session": 30 * 24 * time.Hour,
	"subject": 0, "consumer": 0, "key": 0,
}

// Lasting is how long a revocation of that name stands unless it is said; zero: until it is undone. The error wraps
// [ErrRevocation].
func Lasting(name string) (time.Duration, error) {
	kind, value, _ := strings.Cut(name, ":")
	lasts, ok := lasting[kind]
	entry, rest, two := strings.Cut(value, "/")
	switch {
	case !ok || value == "" || len(name) > maxRevocation || !utf8.ValidString(name):
		return 0, fmt.Errorf("%w: %.300q: want token:HASH, jti:ENTRY/JTI, subject:ENTRY/VALUE, consumer:NAME, key:ENTRY/ID or session:ID", ErrRevocation, name)
	case slices.Contains([]string{"jti", "subject", "key"}, kind) && (!two || entry == "" || rest == ""):
		return 0, fmt.Errorf("%w: %.300q: want %s:ENTRY/VALUE, with an entry of the policy's auth", ErrRevocation, name, kind)
	case kind == "consumer" && two:
		return 0, fmt.Errorf("%w: %.300q: no consumer's name has a slash; an identity is subject:ENTRY/VALUE", ErrRevocation, name)
	case kind == "token" && !isHash(value):
		return 0, fmt.Errorf("%w: want token: and the hash of a token, 64 hex digits", ErrRevocation) // it may be a token
	}
	return lasts, nil
}

// The bounds of a revocation, in bytes.
const (
	maxRevocation = 4096
	maxReason     = 1024
)

func isHash(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

// TokenRevocation is the revocation of a token, which nobody needs to know for it: its name has a hash. It stands until
// the token has ended for any reader; Until is zero for a token that doesn't tell.
func TokenRevocation(raw string) Revocation {
	r := Revocation{Name: tokenMark(raw)}
	t, err := parseToken(raw)
	if err != nil {
		return r
	}
	c, err := strictObject(t.payload)
	if err != nil {
		return r
	}
	if exp, set, ok := claims(c).date("exp"); set && ok {
		r.Until = exp.Add(maxSkew)
	}
	return r
}

// tokenMark is the name of the revocation of a token. It leaves a signature out: of an ECDSA signature anyone can make
// another that is valid too.
func tokenMark(raw string) string {
	if strings.Count(raw, ".") == 2 {
		raw = raw[:strings.LastIndexByte(raw, '.')+1]
	}
	sum := sumOf(raw)
	return "token:" + hex.EncodeToString(sum[:])
}

// revocations is what isn't good any more, for the consumers of one table.
type revocations struct {
	board    store.Board // nil: nothing ever is revoked
	consumer func(identity string) consumer
	now      atomic.Pointer[stamp]
}

// stamp stands for the revocations as they were at a time: a grant that has the present one need not be looked up again.
type stamp struct{ version uint64 }

var (
	errRevoked        = newRefusal("revoked", "the credentials have been revoked").tell()
	denyNoRevocations = newDenial(503, codes.Unavailable, "revocations_unknown", "what was revoked is not known here yet", resultUnavailable)
)

// check finds out whether a grant is still good. Those in a cache are looked up anew after each change of the board.
func (r *revocations) check(g *grant) error {
	if r.board == nil {
		return nil
	}
	now := r.stamp()
	if g.fine.Load() == now {
		return nil
	}
	switch {
	case !r.board.Known():
		return denyNoRevocations
	case r.stops(g):
		return errRevoked
	}
	g.fine.Store(now)
	return nil
}

// stamp reads the version first: what changes while a grant is looked up has it looked up again.
func (r *revocations) stamp() *stamp {
	version := r.board.Version()
	if s := r.now.Load(); s != nil && s.version == version {
		return s
	}
	s := &stamp{version}
	r.now.Store(s)
	return s
}

func (r *revocations) stops(g *grant) bool {
	if e, ok := r.board.Get("subject:" + g.identity); ok && !g.issued.After(e.Written) {
		return true
	}
	if _, ok := r.board.Get("consumer:" + cmp.Or(g.consumer, r.consumer(g.identity).name)); ok {
		return true
	}
	return slices.ContainsFunc(g.marks, func(name string) bool {
		_, ok := r.board.Get(name)
		return ok
	})
}

// Revoke returns when the revocation is kept, and holds here; other processes know of it within a second. Zero in Until
// is for ever. The error wraps [ErrNoBoard], [ErrRevocation], or what the store says.
func (s *Service) Revoke(ctx context.Context, r Revocation) (Revocation, error) {
	if s.o.Revoked == nil {
		return r, ErrNoBoard
	}
	if _, err := Lasting(r.Name); err != nil {
		return r, err
	}
	if len(r.Reason) > maxReason || !cleanValue(r.Reason) {
		return r, fmt.Errorf("%w: a reason is a line of at most %d bytes", ErrRevocation, maxReason)
	}
	if !r.Until.IsZero() && !r.Until.After(time.Now()) {
		return r, fmt.Errorf("%w: it would have ended at %s", ErrRevocation, r.Until.UTC().Format(time.RFC3339))
	}
	if err := revoked(ctx, s.o.Revoked, r.Name, r.Reason, r.Until); err != nil {
		return r, err
	}
	if e, ok := s.o.Revoked.Get(r.Name); ok {
		r = revocationOf(e)
	}
	r.Note = s.table.Load().doubt(r.Name)
	return r, nil
}

func revoked(ctx context.Context, b store.Board, name, reason string, until time.Time) error {
	return b.Put(ctx, store.Entry{Name: name, Value: []byte(reason), Expires: until})
}

// Unrevoke takes a revocation back.
func (s *Service) Unrevoke(ctx context.Context, name string) (Revocation, error) {
	if s.o.Revoked == nil {
		return Revocation{}, ErrNoBoard
	}
	e, ok := s.o.Revoked.Get(name)
	if !ok {
		return Revocation{}, ErrNotRevoked
	}
	return revocationOf(e), s.o.Revoked.Put(ctx, store.Entry{Name: name, Expires: time.Unix(1, 0)}) // one that is over takes it away
}

// Revocations are all that hold, the latest first.
func (s *Service) Revocations() ([]Revocation, error) {
	if s.o.Revoked == nil {
		return nil, ErrNoBoard
	}
	var all []Revocation
	for e := range s.o.Revoked.Entries() {
		all = append(all, revocationOf(e))
	}
	slices.SortFunc(all, func(a, b Revocation) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Name, b.Name))
	})
	return all, nil
}

func revocationOf(e store.Entry) Revocation {
	return Revocation{Name: e.Name, Reason: string(e.Value), Since: e.Written, Until: e.Expires}
}

// doubt tells of a revocation that stops nothing that this table accepts: its name may be misspelt.
func (t *table) doubt(name string) string {
	kind, value, _ := strings.Cut(name, ":")
	switch kind {
	case "jti", "subject", "key":
		entry, _, _ := strings.Cut(value, "/")
		for _, p := range t.providers {
			if p.name == entry {
				return ""
			}
		}
		return fmt.Sprintf("no route of the policy served here takes callers by an entry of auth called %q", entry)
	case "consumer":
		for _, c := range t.consumers {
			if c.name == value {
				return ""
			}
		}
		return fmt.Sprintf("the policy served here has no consumer %q with an identity", value)
	}
	return ""
}
