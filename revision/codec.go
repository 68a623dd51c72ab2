package revision

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"

	"github.com/legation/legation/policy"
)

// What is stored. A revision is its JSON behind 16 hex digits of the SHA-256 of that and a line feed. Its files are blobs,
// as is the manifest, JSON that lists them: each is named by the SHA-256 of its content, in hex, and stored behind a byte
// that says how: 0 as it is, 1 deflated.

// manifest lists the files of a revision by name.
type manifest map[string]file

// file is one file of a manifest.
type file struct {
	Blob   string `json:"blob"`
	Size   int64  `json:"size"`   // bytes
	Stored int64  `json:"stored"` // bytes of the blob
}

// Bounds of what is read.
const (
	maxFiles    = 2 * policy.MaxFiles
	maxManifest = 16 << 20 // bytes
	maxFile     = policy.MaxTotal
	sumDigits   = 16
)

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}

func encode(r Revision) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append([]byte(sum(text)[:sumDigits]+"\n"), text...), nil
}

func decode(value []byte) (r Revision, err error) {
	if len(value) < sumDigits+1 || value[sumDigits] != '\n' || sum(value[sumDigits+1:])[:sumDigits] != string(value[:sumDigits]) {
		return r, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	if err := json.Unmarshal(value[sumDigits+1:], &r); err != nil {
		return r, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return r, nil
}

// long is from where on content is packed in less time rather than in less space, since a push waits for it, in bytes.
const long = 64 << 10

// pack makes a blob.
func pack(content []byte) []byte {
	var b bytes.Buffer
	b.WriteByte(1)
	level := flate.DefaultCompression
	if len(content) > long {
		level = flate.BestSpeed
	}
	w, err := flate.NewWriter(&b, level)
	if err == nil {
		_, err = w.Write(content)
		err = errors.Join(err, w.Close())
	}
	if err != nil || b.Len() > len(content) {
		return append([]byte{0}, content...)
	}
	return b.Bytes()
}

// unpack gives the content of a blob, of at most so many bytes, that has this name.
func unpack(name string, blob []byte, most int64) ([]byte, error) {
	var content []byte
	var err error
	switch {
	case len(blob) > 0 && blob[0] == 0:
		content = blob[1:]
	case len(blob) > 0 && blob[0] == 1:
		content, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(blob[1:])), most+1))
	default:
		return nil, fmt.Errorf("%w: it is missing, or of another version", ErrDamaged)
	}
	if err != nil || int64(len(content)) > most || sum(content) != name {
		return nil, fmt.Errorf("%w: its content is not what its name says", ErrDamaged)
	}
	return content, nil
}

func readManifest(name string, blob []byte) (manifest, error) {
	text, err := unpack(name, blob, maxManifest)
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	var total int64
	for name, f := range m {
		if total += f.Size; !fs.ValidPath(name) || f.Size < 0 || f.Size > maxFile || total > policy.MaxTotal || len(m) > maxFiles {
			return nil, fmt.Errorf("%w: it lists what no policy has", ErrDamaged)
		}
	}
	return m, nil
}

// blobs are the names of what the manifest lists, each once, sorted.
func (m manifest) blobs() []string {
	all := make([]string, 0, len(m))
	for _, f := range m {
		all = append(all, f.Blob)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// changes counts the files that differ from those of another manifest.
func (m manifest) changes(before manifest) (n int) {
	for name, f := range m {
		if before[name].Blob != f.Blob {
			n++
		}
	}
	for name := range before {
		if _, ok := m[name]; !ok {
			n++
		}
	}
	return n
}

// Digest is a hash of all files, of those that a policy does not refer to as well.
func Digest(files policy.Files) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, part := range [][]byte{[]byte(name), files[name]} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Kept is what of a policy's files may be kept: not those that hold a private key, in PEM or as a JWK. A policy refers to
// public keys only; a private one merely lies beside them.
func Kept(files policy.Files) policy.Files {
	kept := make(policy.Files, len(files))
	for name, content := range files {
		if policy.IsPolicy(name) || !bytes.Contains(content, []byte("PRIVATE KEY")) && !privateJWK.Match(content) {
			kept[name] = content
		}
	}
	return kept
}

// privateJWK finds the members that only private and symmetric keys have.
var privateJWK = regexp.MustCompile(`"(d|k)"\s*:\s*"`)
