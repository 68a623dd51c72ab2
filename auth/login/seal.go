package login

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
)

// keys makes the keys of a flow, each for one purpose and one token, and so for few messages: no flood of logins can
// wear one out. What is sealed is bound to its token thereby, such as a login under way to its state.
type keys struct {
	root  []byte
	token []byte // marks tokens of ours
}

func newKeys(secret []byte, context string) (keys, error) {
	root, err := hkdf.Extract(sha256.New, secret, []byte("legation login\x00"+context))
	if err != nil {
		return keys{}, err
	}
	k := keys{root: root}
	k.token, err = k.derive("token", "")
	return k, err
}

func (k keys) derive(purpose, token string) ([]byte, error) {
	return hkdf.Expand(sha256.New, k.root, purpose+"\x00"+token, 32)
}

func (k keys) cipher(purpose, token string) (cipher.AEAD, error) {
	key, err := k.derive(purpose, token)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// The purposes that things are sealed for.
const (
	forLogin   = "login"   // under way; the token is its state
	forSession = "session" // the token is its cookie
)

func (k keys) seal(purpose, token string, plain []byte) ([]byte, error) {
	c, err := k.cipher(purpose, token)
	if err != nil {
		return nil, err
	}
	return c.Seal(nil, nil, plain, nil), nil
}

var errSeal = errors.New("it was not sealed here, or not for this")

func (k keys) open(purpose, token string, sealed []byte) ([]byte, error) {
	c, err := k.cipher(purpose, token)
	if err != nil {
		return nil, err
	}
	plain, err := c.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, errSeal
	}
	return plain, nil
}

// strict is base64url without padding or stray bits: one text for each value.
var strict = base64.RawURLEncoding.Strict()

// Of a token: 32 random bytes and a mark of 16, as text.
const (
	tokenRandom = 32
	tokenBytes  = tokenRandom + 16
	tokenLength = tokenBytes / 3 * 4
)

// newToken makes a token that can't be guessed, and carries our mark.
func (k keys) newToken() string {
	random := make([]byte, tokenRandom, tokenBytes)
	rand.Read(random) // never goes wrong
	return strict.EncodeToString(append(random, k.mark(random)...))
}

// made tells whether the token was made here. What wasn't costs nobody a look into the records.
func (k keys) made(token string) bool {
	if len(token) != tokenLength {
		return false
	}
	b, err := strict.DecodeString(token)
	return err == nil && len(b) == tokenBytes && hmac.Equal(b[tokenRandom:], k.mark(b[:tokenRandom]))
}

func (k keys) mark(random []byte) []byte {
	h := hmac.New(sha256.New, k.token)
	h.Write(random)
	return h.Sum(nil)[:tokenBytes-tokenRandom]
}

// randomText is a text of 256 random bits.
func randomText() string {
	b := make([]byte, 32)
	rand.Read(b)
	return strict.EncodeToString(b)
}

func sumOf(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }
