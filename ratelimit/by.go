package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/legation/legation/store"
)

// By is one part of the value that a limit counts by.
type By struct {
	Kind ByKind `json:",omitzero"`
	Name string `json:",omitzero"` // of the header, the claim or the cookie; the text of the CEL expression
	Bits uint8  `json:",omitzero"` // IP: how much of an IPv6 address counts; 0 is 64
}

// Entry is the key of the descriptor entry that carries this part.
func (b By) Entry() string {
	switch b.Kind {
	case Header:
		return "header:" + strings.ToLower(b.Name)
	case Claim, Cookie:
		return b.Kind.String() + ":" + b.Name
	case CEL:
		sum := sha256.Sum256([]byte(b.Name))
		return "cel:" + hex.EncodeToString(sum[:4])
	}
	return b.Kind.String()
}

// String gives the part in the words of policies: ip /56, header x-team.
func (b By) String() string {
	switch {
	case b.Kind.named():
		return b.Kind.String() + " " + b.Name
	case b.Bits > 0:
		return fmt.Sprintf("%s /%d", b.Kind, b.Bits)
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
	Cookie
	Path // without the query, as Envoy routes by it
	Route
	Method
	Host // lower case, without the port
	CEL  // an expression that gives a string, a number or a bool; see [CheckCEL]
)

var kindNames = [...]string{"ip", "consumer", "header", "claim", "cookie", "path", "route", "method", "host", "cel"}

// String gives the name that policies use.
func (k ByKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("by(%d)", uint8(k))
}

// named tells whether parts of the kind have a Name.
func (k ByKind) named() bool { return k == Header || k == Claim || k == Cookie || k == CEL }

// defaultBits of an IPv6 address count: its client has the rest to choose from.
const defaultBits = 64

// validate tells what makes the part impossible, but for what an expression says.
func (b By) validate() error {
	switch {
	case b.Kind > CEL || (b.Name != "") != b.Kind.named():
		return fmt.Errorf("no such part: %s %q", b.Kind, b.Name)
	case b.Bits > 0 && b.Kind != IP:
		return fmt.Errorf("%s has no bits", b.Kind)
	case b.Bits > 128:
		return fmt.Errorf("an address has 128 bits, not %d", b.Bits)
	}
	return nil
}

// normal is the value that a part counts by, of the value as it came: what a client can write in more than one way for
// the same thing falls into one bucket.
func (b By) normal(value string) string {
	switch b.Kind {
	case Path:
		if i := strings.IndexAny(value, "?#"); i >= 0 {
			return value[:i]
		}
	case Host:
		return hostname(value)
	}
	return value
}

// hostname is the host in lower case, without the port and a dot at the end.
func hostname(host string) string {
	if end := strings.LastIndexByte(host, ']'); strings.HasPrefix(host, "[") && end > 0 {
		host = host[:end+1]
	} else if i := strings.IndexByte(host, ':'); i >= 0 && i == strings.LastIndexByte(host, ':') {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// appendText appends the part of a counter's key for a normal value. What may be a credential, because a client wrote it,
// is told to the store as a digest.
func (b By) appendText(key []byte, value string) []byte {
	if value != "" && (b.Kind == Header || b.Kind == Cookie || b.Kind == CEL) {
		return store.AppendDigest(key, value)
	}
	return store.AppendPart(key, value)
}

// appendAddress is appendText for an address: the part of it that a client can't change at will.
func (b By) appendAddress(key []byte, a netip.Addr) []byte {
	var room [64]byte
	text := room[:0]
	a = a.Unmap().WithZone("")
	if bits := b.bits(); a.Is4() || bits == 128 {
		text = a.AppendTo(text)
	} else {
		p, _ := a.Prefix(bits) // an IPv6 address has that many
		text = p.AppendTo(text)
	}
	return store.AppendPart(key, string(text))
}

func (b By) bits() int {
	if b.Bits == 0 {
		return defaultBits
	}
	return int(b.Bits)
}
