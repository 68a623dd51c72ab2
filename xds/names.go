package xds

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"
	"weak"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// This file is what makes a thousand Envoys that ask for the same thousand names cost as much memory as one. What they
// ask for and what they say they have is hashed where it lies in the request, in any order; only what nobody has asked
// for yet is read.

// names is what a subscription asks for by name: immutable, never empty, and one for all streams that ask for the same.
// A nil *names is none.
type names struct {
	sorted []string
	key    key
	lacks  atomic.Pointer[lack] // the last question that was asked
}

// lack is which of the names a set does not have.
type lack struct {
	of     *set
	absent *names
}

// key stands for a set of strings, in any order: the sum of their hashes, and how many they are.
type key struct {
	hash  uint64
	count int
}

func (k key) plus(h uint64) key  { return key{k.hash + h, k.count + 1} }
func (k key) minus(h uint64) key { return key{k.hash - h, k.count - 1} }

func (n *names) has(name string) bool {
	if n == nil {
		return false
	}
	_, ok := slices.BinarySearch(n.sorted, name)
	return ok
}

func (n *names) list() []string {
	if n == nil {
		return nil
	}
	return n.sorted
}

// seed is secret, so that nobody can find strings whose hashes add up to what others' do.
var seed = maphash.MakeSeed()

func hashOf(s string) uint64 { return maphash.String(seed, s) }

// pool finds the names and the states that some stream has already, by their keys. It holds nothing: what
// no stream has any more is forgotten.
type pool struct {
	mu    sync.Mutex // guards what follows
	names map[key]weak.Pointer[names]
	known map[key]weak.Pointer[set]
}

func newPool() *pool {
	return &pool{
		names: map[key]weak.Pointer[names]{},
		known: map[key]weak.Pointer[set]{},
	}
}

// read gives the names of a request, and whether "*" is among them.
func (p *pool) read(f fields) (n *names, star bool, err error) {
	if f.count == 0 {
		return nil, false, nil
	}
	if f.count > maxNames {
		return nil, false, tooMany()
	}
	if n := p.find(f.key); n != nil {
		return n, f.star, nil
	}
	list, err := f.texts()
	if err != nil {
		return nil, false, err
	}
	return p.of(list), f.star, nil
}

func (p *pool) find(k key) *names {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names[k].Value()
}

// of gives the names of the list, which it takes over. "*" is none.
func (p *pool) of(list []string) *names {
	list = slices.DeleteFunc(list, func(s string) bool { return s == "*" })
	slices.Sort(list)
	list = slices.Compact(list)
	var k key
	for _, s := range list {
		k = k.plus(hashOf(s))
	}
	return p.keep(list, k)
}

// keep gives the names of the sorted list, which it takes over.
func (p *pool) keep(list []string, k key) *names {
	if len(list) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.names[k].Value(); n != nil {
		return n
	}
	n := &names{sorted: list, key: k}
	p.names[k] = weak.Make(n)
	runtime.AddCleanup(n, func(k key) { forget(p, p.names, k) }, k)
	return n
}

// forget takes out what is there no more; another may have come in its place.
func forget[T any](p *pool, from map[key]weak.Pointer[T], k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if from[k].Value() == nil {
		delete(from, k)
	}
}

// union is the names of both.
func (p *pool) union(a, b *names) *names {
	switch {
	case a == nil || a == b:
		return b
	case b == nil:
		return a
	case len(a.sorted) < len(b.sorted):
		a, b = b, a
	}
	k, fresh := a.key, []string(nil)
	for _, s := range b.sorted {
		if !a.has(s) {
			k, fresh = k.plus(hashOf(s)), append(fresh, s)
		}
	}
	if len(fresh) == 0 {
		return a
	}
	if n := p.find(k); n != nil {
		return n
	}
	return p.keep(mergeTexts(a.sorted, fresh), k)
}

// mergeTexts puts two sorted lists together that have nothing in common.
func mergeTexts(a, b []string) []string {
	list := make([]string, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0] < b[0] {
			list, a = append(list, a[0]), a[1:]
		} else {
			list, b = append(list, b[0]), b[1:]
		}
	}
	return append(append(list, a...), b...)
}

// without is the names of a that are not in b.
func (p *pool) without(a, b *names) *names {
	switch {
	case a == nil || a == b:
		return nil
	case b == nil:
		return a
	}
	k, some := a.key, false
	for _, s := range b.sorted {
		if a.has(s) {
			k, some = k.minus(hashOf(s)), true
		}
	}
	if !some {
		return a
	}
	if n := p.find(k); n != nil {
		return n
	}
	return p.keep(slices.DeleteFunc(slices.Clone(a.sorted), b.has), k)
}

// state is the set that an Envoy says it has: name -> version of the type. Where it is what there is in to, it is to.
func (p *pool) state(url string, f fields, to *set) (*set, error) {
	if f.count == 0 {
		return nil, nil
	}
	if f.count > maxNames {
		return nil, tooMany()
	}
	if f.star {
		return nil, fmt.Errorf("initial_resource_versions: %w", errMalformed)
	}
	k := key{f.key.hash + hashOf(url), f.key.count}
	p.mu.Lock()
	s := p.known[k].Value()
	p.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := readState(url, f, to)
	if err != nil || len(s.sorted) != f.count {
		return s, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[k] = weak.Make(s)
	runtime.AddCleanup(s, func(k key) { forget(p, p.known, k) }, k)
	return s, nil
}

func readState(url string, f fields, to *set) (*set, error) {
	list := make([]*entry, 0, f.count)
	var err error
	f.each(func(b []byte) {
		name, version, e := readPair(b)
		if e != nil {
			err = e
			return
		}
		had := to.get(name)
		if had == nil || had.Version != version {
			had = &entry{Resource: Resource{Type: url, Name: name, Version: version}, mark: markOf(name, version)}
		}
		list = append(list, had)
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, byName)
	list = slices.CompactFunc(list, func(a, b *entry) bool { return a.Name == b.Name })
	if slices.Equal(list, to.sorted) {
		return to, nil
	}
	return newSet(list, sumOf(list)), nil
}

// readPair reads an element of initial_resource_versions.
func readPair(b []byte) (name, version string, err error) {
	for at := 0; at < len(b); {
		number, value, end := consume(b, at)
		switch {
		case end < 0:
			return "", "", fmt.Errorf("initial_resource_versions: %w", errMalformed)
		case number != 1 && number != 2: // not what we know
		case !utf8.Valid(value):
			return "", "", notText()
		case number == 1:
			name = string(value)
		case number == 2:
			version = string(value)
		}
		at = end
	}
	return name, version, nil
}

// maxNames bounds what one stream can make the server remember of one type.
const maxNames = 100_000

func tooMany() error {
	return status.Errorf(codes.ResourceExhausted, "more than %d names of one type", maxNames)
}

func notText() error {
	return status.Error(codes.InvalidArgument, "a name or version is not UTF-8")
}
