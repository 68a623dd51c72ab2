package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Bounds of hashes: a request waits for one, and Envoy for no longer than 200 ms.
const (
	maxCost       = 11 // of bcrypt: some 100 ms
	maxBcrypt     = 72 // bytes of a password; bcrypt leaves out what follows
	maxMemory     = 64 << 10
	maxArgonWork  = 192 << 10 // KiB × passes
	maxArgonLanes = 16
)

var errHashForm = errors.New("want a hash by bcrypt ($2y$…) or Argon2id ($argon2id$…): make one with htpasswd -nB -C 10 NAME")

// checkPasswordHash tells why a hash of a password can't be used.
func checkPasswordHash(hash string) error {
	if strings.HasPrefix(hash, "$argon2id$") {
		_, err := parseArgon(hash)
		return err
	}
	if !strings.HasPrefix(hash, "$2a$") && !strings.HasPrefix(hash, "$2b$") && !strings.HasPrefix(hash, "$2y$") {
		return errHashForm
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || len(hash) != 60 {
		return errors.New("the hash is cut off, or none of bcrypt")
	}
	if cost > maxCost {
		return fmt.Errorf("bcrypt with cost %d takes longer than a request may wait: make the hash with a cost of 10", cost)
	}
	return nil
}

// argon is a hash by Argon2id.
type argon struct {
	passes, memory uint32 // memory in KiB
	lanes          uint8
	salt, sum      []byte
}

// parseArgon reads $argon2id$v=19$m=65536,t=3,p=4$SALT$HASH.
func parseArgon(hash string) (a argon, err error) {
	bad := errors.New("want $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return a, bad
	}
	if _, err := fmt.Sscanf(parts[3]+" ", "m=%d,t=%d,p=%d ", &a.memory, &a.passes, &a.lanes); err != nil ||
		parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", a.memory, a.passes, a.lanes) {
		return a, bad
	}
	encoding := base64.RawStdEncoding.Strict()
	salt, saltErr := encoding.DecodeString(parts[4])
	sum, sumErr := encoding.DecodeString(parts[5])
	if saltErr != nil || sumErr != nil || len(salt) < 8 || len(sum) < 16 || len(salt) > 64 || len(sum) > 64 {
		return a, bad
	}
	if a.passes < 1 || a.lanes < 1 || a.lanes > maxArgonLanes || a.memory < 8*uint32(a.lanes) || a.memory > maxMemory || uint64(a.memory)*uint64(a.passes) > maxArgonWork {
		return a, errors.New("Argon2id with so much memory or so many passes takes longer than a request may wait: make it with m=19456,t=2,p=1")
	}
	a.salt, a.sum = salt, sum
	return a, nil
}

// matches tells whether a password is the one of the hash. It takes as long whatever the password.
func matches(hash, password string) bool {
	if !strings.HasPrefix(hash, "$argon2id$") {
		whole := password[:min(len(password), maxBcrypt)]
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(whole)) == nil && len(password) <= maxBcrypt
	}
	a, err := parseArgon(hash)
	if err != nil {
		return false
	}
	sum := argon2.IDKey([]byte(password), a.salt, a.passes, a.memory, a.lanes, uint32(len(a.sum)))
	return subtle.ConstantTimeCompare(sum, a.sum) == 1
}

// Bounds of what is remembered of passwords.
const (
	rememberFor     = 5 * time.Minute
	mostRemembered  = 8192
	waitersPerPlace = 2 // that may wait for each password that is checked
)

// passwords checks passwords, few at once: it takes all of a core's time. What was found good is remembered by a hash that
// is of use in this process alone, of the password and the hash that it was good for: a new one has to be tried anew.
type passwords struct {
	key     []byte
	places  chan struct{} // one for each that is checked
	waiting chan struct{} // and for each that is, or waits for it

	mu     sync.Mutex
	known  map[[sha256.Size]byte]time.Time // when to try anew
	before map[[sha256.Size]byte]time.Time // those of the generation before
	asked  map[[sha256.Size]byte]*attempt  // is being checked
}

// attempt is a check that others may wait for who ask the same.
type attempt struct {
	done chan struct{}
	good bool
	err  error
}

func newPasswords() *passwords {
	n := max(1, runtime.GOMAXPROCS(0)/2)
	p := &passwords{
		key: make([]byte, sha256.Size), places: make(chan struct{}, n), waiting: make(chan struct{}, n*(1+waitersPerPlace)),
		known: map[[sha256.Size]byte]time.Time{}, asked: map[[sha256.Size]byte]*attempt{},
	}
	rand.Read(p.key)
	return p
}

// trial is a password, and the hash that it may be the one of.
type trial struct {
	hash, password string
	sum            [sha256.Size]byte
}

// sum is what a trial is remembered by.
func (p *passwords) sum(hash, name, password string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, p.key)
	for _, text := range []string{hash, name, password} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(text)))
		mac.Write(length[:])
		mac.Write([]byte(text))
	}
	mac.Sum(sum[:0])
	return sum
}

// good tells whether a trial was found good a short while ago.
func (p *passwords) good(sum [sha256.Size]byte, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.known[sum]
	if !ok {
		if until, ok = p.before[sum]; ok && now.Before(until) {
			p.put(sum, until)
		}
	}
	return ok && now.Before(until)
}

// put remembers; the oldest half goes when there is no more room.
func (p *passwords) put(sum [sha256.Size]byte, until time.Time) {
	if len(p.known) >= mostRemembered/2 {
		p.before, p.known = p.known, map[[sha256.Size]byte]time.Time{}
	}
	p.known[sum] = until
}

// check tries a password, or waits for another request that tries the same.
func (p *passwords) check(t trial) (good bool, err error) {
	p.mu.Lock()
	if a := p.asked[t.sum]; a != nil {
		p.mu.Unlock()
		<-a.done
		return a.good, a.err
	}
	a := &attempt{done: make(chan struct{}), err: denyBusy}
	p.asked[t.sum] = a
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.asked, t.sum)
		if a.good {
			p.put(t.sum, time.Now().Add(rememberFor))
		}
		p.mu.Unlock()
		close(a.done)
	}()
	select {
	case p.waiting <- struct{}{}:
	default:
		return false, denyBusy
	}
	defer func() { <-p.waiting }()
	p.places <- struct{}{}
	defer func() { <-p.places }()
	a.good, a.err = matches(t.hash, t.password), nil
	return a.good, nil
}

// guess is the work on a password.
type guess struct {
	by *passwords
	trial
	grant *grant // nil: there is no such user
}

func (guess) waits() bool { return true }

// do goes on though the request has been given up: what it finds is remembered for the next one.
func (g guess) do(context.Context, time.Time) finding {
	good, err := g.by.check(g.trial)
	switch {
	case err != nil:
		return finding{err: err}
	case !good || g.grant == nil:
		return finding{err: errBasicWrong}
	}
	return finding{grant: g.grant}
}
