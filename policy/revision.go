package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
)

// digest is the content hash of the policy files and of those that they refer to, and where the next one can go on from.
type digest struct {
	names []string
	marks []hash.Hash // before each markEvery-th file
	text  string
}

const markEvery = 8

// of hashes files anew.
func (d *digest) of(files Files, referred map[string]int) string {
	var names []string
	for name := range files {
		if IsPolicy(name) || referred[name] > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	*d = d.from(files, names, 0)
	return d.text
}

// next hashes files of which only the changed ones differ, as does, maybe, which ones are referred to.
func (d *digest) next(files Files, referred map[string]int, changed map[string]bool) digest {
	same := 0
	var names []string
	for _, name := range d.names {
		if _, there := files[name]; there && (IsPolicy(name) || referred[name] > 0) {
			names = append(names, name)
		}
	}
	before := len(names)
	for name := range changed {
		if _, had := slices.BinarySearch(d.names, name); !had && IsPolicy(name) {
			names = append(names, name)
		}
	}
	for name := range referred {
		if _, had := slices.BinarySearch(d.names, name); !had && !IsPolicy(name) {
			names = append(names, name)
		}
	}
	if len(names) > before {
		slices.Sort(names)
	}
	for same < min(len(names), len(d.names)) && names[same] == d.names[same] && !changed[names[same]] {
		same++
	}
	return d.from(files, names, same)
}

// from hashes files by these names, of which the first so many are as they were.
func (d *digest) from(files Files, names []string, same int) digest {
	h := sha256.New()
	next := digest{names: names}
	if known := min(same/markEvery+1, len(d.marks)); known > 0 {
		next.marks = slices.Clone(d.marks[:known])
		h = copyOf(next.marks[known-1])
	}
	for i := max(0, len(next.marks)-1) * markEvery; i < len(names); i++ {
		if i%markEvery == 0 && i/markEvery == len(next.marks) {
			next.marks = append(next.marks, copyOf(h))
		}
		for _, part := range [][]byte{[]byte(names[i]), files[names[i]]} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
	}
	next.text = hex.EncodeToString(h.Sum(nil)[:16])
	return next
}

// copyOf is a hash that goes on from where h is; those of the standard library can all be copied.
func copyOf(h hash.Hash) hash.Hash {
	again, err := h.(hash.Cloner).Clone()
	if err != nil {
		panic(err)
	}
	return again
}
