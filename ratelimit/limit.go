package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/store"
)

// Limit is one limit of the table; immutable.
type Limit struct {
	Name      string // "route/orders/0": layer, name and position; part of every counter's key
	By        []By   // parts of the value that it counts by; none: one bucket for all
	Requests  int64  // per Window
	Window    time.Duration
	Burst     int64 // GCRA: the size of the bucket
	Algorithm store.Algorithm
	OnError   OnError
}

// ID is what callouts carry: the name and a hash over the whole limit, so that a companion that has another version of
// the limit loaded doesn't count by it.
func (l Limit) ID() string {
	j, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(j)
	return l.Name + "@" + hex.EncodeToString(sum[:6])
}

// Validate tells what makes the limit impossible to count.
func (l Limit) Validate() error {
	if l.Name == "" || strings.Contains(l.Name, "@") {
		return fmt.Errorf("limit %q: want a name without @", l.Name)
	}
	for _, b := range l.By {
		if b.Kind > Claim || (b.Name == "") != (b.Kind == IP || b.Kind == Consumer) {
			return fmt.Errorf("limit %s: no such part: %s %q", l.Name, b.Kind, b.Name)
		}
	}
	if err := l.hit("", 1).Validate(); err != nil {
		return fmt.Errorf("limit %s: %w", l.Name, err)
	}
	return nil
}

func (l *Limit) hit(key string, hits int64) store.Hit {
	return store.Hit{Key: key, Algorithm: l.Algorithm, Limit: l.Requests, Window: l.Window, Burst: l.Burst, Hits: hits}
}

// By is one part of the value that a limit counts by.
type By struct {
	Kind ByKind
	Name string // of the header or the claim
}

// Entry is the key of the descriptor entry that carries this part.
func (b By) Entry() string {
	switch b.Kind {
	case Header:
		return "header:" + strings.ToLower(b.Name)
	case Claim:
		return "claim:" + b.Name
	}
	return b.Kind.String()
}

// ByKind says where a part of the value comes from.
type ByKind uint8

// The kinds of By.
const (
	IP ByKind = iota
	Consumer
	Header
	Claim
)

// String gives the name that policies use.
func (k ByKind) String() string {
	switch k {
	case IP:
		return "ip"
	case Consumer:
		return "consumer"
	case Header:
		return "header"
	case Claim:
		return "claim"
	}
	return fmt.Sprintf("by(%d)", uint8(k))
}

// OnError says what becomes of a request when the store can't answer.
type OnError uint8

// The choices of OnError.
const (
	Local OnError = iota // count in this process
	Allow
	Deny
)

// String gives the name that policies use.
func (e OnError) String() string {
	switch e {
	case Local:
		return "local"
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	}
	return fmt.Sprintf("onError(%d)", uint8(e))
}

// Attributes are what a request can be counted by. Nil functions give the empty value.
type Attributes struct {
	// Anonymous is a request that auth refuses: only limits by IP and nothing else count it, so that callers without a
	// token don't use up what those with one share.
	Anonymous bool
	IP        netip.Addr
	Consumer  string
	Header    func(name string) string
	Claim     func(name string) string
}

// byAddress tells whether the limit counts by where requests come from and by nothing else.
func (l *Limit) byAddress() bool {
	return len(l.By) > 0 && !slices.ContainsFunc(l.By, func(b By) bool { return b.Kind != IP })
}

func (a *Attributes) value(b By) string {
	switch {
	case b.Kind == IP:
		return addressValue(a.IP)
	case b.Kind == Consumer:
		return a.Consumer
	case b.Kind == Header && a.Header != nil:
		return a.Header(b.Name)
	case b.Kind == Claim && a.Claim != nil:
		return a.Claim(b.Name)
	}
	return ""
}

// keyPart is the part of the counter's key for a value. What a client wrote in a header may be a credential: Redis gets
// its digest.
func (b By) keyPart(value string) string {
	switch {
	case b.Kind == IP:
		if a, err := netip.ParseAddr(value); err == nil {
			return addressValue(a)
		}
	case b.Kind == Header && value != "":
		return store.Digest(value)
	}
	return value
}

// addressValue is the address that a client can't change at will: an IPv6 client has a /64 of them.
func addressValue(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return ""
	}
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a.String()
	}
	return p.String()
}
