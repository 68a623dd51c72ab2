package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// An API key of ours is lgn_ID_SECRET: 10 characters of ID to find it by, 32 that are its secret, 160 bits, and 7 of a
// checksum over all before, by which typing errors and searches for leaked keys tell it from other texts.
const (
	keyPrefix = "lgn_"
	idLength  = 10
	secretLen = 32
	sumLength = 7
	keyLength = len(keyPrefix) + idLength + 1 + secretLen + sumLength
)

// Bounds of keys that others made. Shorter ones could be found by trying.
const (
	minForeignKey = 20
	maxForeignKey = 256
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewKey makes an API key.
func NewKey() (id, key string) {
	text := strings.ToLower(rand.Text()) + strings.ToLower(rand.Text()) // base32, at least 130 bits each
	id = text[:idLength]
	key = keyPrefix + id + "_" + text[idLength:idLength+secretLen]
	return id, key + keyChecksum(key)
}

func keyChecksum(text string) string {
	return base32Lower.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(text))))
}

// keyID is the ID of a key of ours. It is "" for those that others made; what looks like ours and is not is an error.
func keyID(key string) (string, error) {
	rest, ours := strings.CutPrefix(key, keyPrefix)
	if !ours {
		return "", checkForeign(key)
	}
	if len(key) != keyLength || rest[idLength] != '_' || !isKeyID(rest[:idLength]) {
		return "", errKeyMalformed
	}
	if body := key[:len(key)-sumLength]; keyChecksum(body) != key[len(body):] {
		return "", errKeyMalformed
	}
	return rest[:idLength], nil
}

// isKeyID tells whether s can be the ID of a key of ours.
func isKeyID(s string) bool {
	return len(s) == idLength && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// checkForeign tells why a text can't be a key that others made.
func checkForeign(key string) error {
	if len(key) < minForeignKey || len(key) > maxForeignKey {
		return errKeyMalformed
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' || c == ',' || c == ';' || c == '"' {
			return errKeyMalformed
		}
	}
	return nil
}

// CheckKey tells why a text is no API key: neither of ours, nor long enough for one that others made.
func CheckKey(key string) error {
	_, err := keyID(key)
	if err == nil {
		return nil
	}
	if strings.HasPrefix(key, keyPrefix) {
		return errors.New("it begins like a key of legation, but is none: a character is wrong or missing")
	}
	return fmt.Errorf("want %d to %d visible characters of ASCII, without commas, semicolons and quotes", minForeignKey, maxForeignKey)
}

// KeyID is the ID of a key that legation made, "" of any other.
func KeyID(key string) string {
	id, _ := keyID(key)
	return id
}

// The forms of hashes. Without a pepper it is plain: nobody can try 160 random bits. With one, who can write where hashes are
// kept can't make keys for it.
const (
	plainHash = "sha256:"
	hmacHash  = "hmac-sha256:"
)

// minPepper is the least bytes of a pepper.
const minPepper = 16

// CheckPepper tells why a secret can't be what hashes of keys are made with.
func CheckPepper(pepper []byte) error {
	if len(pepper) < minPepper {
		return fmt.Errorf("holds %d bytes, want at least %d random ones", len(pepper), minPepper)
	}
	return nil
}

// HashKey is the hash of an API key as policies and stores keep it. The pepper may be empty.
func HashKey(key string, pepper []byte) string {
	h := hashKey(key, pepper)
	if h.peppered {
		return hmacHash + hex.EncodeToString(h.sum[:])
	}
	return plainHash + hex.EncodeToString(h.sum[:])
}

// CheckHash tells why a text is no hash of a key.
func CheckHash(hash string) error {
	_, err := parseHash(hash)
	return err
}

// keyHash is a hash of a key.
type keyHash struct {
	peppered bool
	sum      [sha256.Size]byte
}

func hashKey(key string, pepper []byte) keyHash {
	if len(pepper) == 0 {
		return keyHash{sum: sumOf(key)}
	}
	h := keyHash{peppered: true}
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte(key))
	mac.Sum(h.sum[:0])
	return h
}

func parseHash(text string) (h keyHash, err error) {
	digits, peppered := strings.CutPrefix(text, hmacHash)
	if !peppered {
		var plain bool
		if digits, plain = strings.CutPrefix(text, plainHash); !plain {
			return h, fmt.Errorf("want %sDIGITS or %sDIGITS", plainHash, hmacHash)
		}
	}
	sum, err := hex.DecodeString(digits)
	if err != nil || len(sum) != sha256.Size || digits != strings.ToLower(digits) {
		return h, fmt.Errorf("want %d hexadecimal digits in lower case", 2*sha256.Size)
	}
	h.peppered = peppered
	copy(h.sum[:], sum)
	return h, nil
}

// SecretKeys are the API keys that a secret holds, one a line; empty lines and those that begin with # are left out.
func SecretKeys(content []byte) (keys []string, err error) {
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := CheckKey(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, line)
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no key")
	}
	return keys, nil
}
