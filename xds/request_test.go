package xds

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// read decodes a message in pieces of that size, as it comes in frames.
func read(t *testing.T, p Protocol, m proto.Message, size int) *request {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r := &request{protocol: p}
	if err := (codec{encoding.GetCodecV2("proto")}).Unmarshal(inPieces(b, size), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func inPieces(b []byte, size int) (data mem.BufferSlice) {
	for piece := range slices.Chunk(b, size) {
		data = append(data, mem.SliceBuffer(piece))
	}
	return data
}

func TestRequestsAreReadWhereTheyLie(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 300) // whose length takes two bytes
	node := &corev3.Node{Id: "e", Cluster: "edge", UserAgentName: "envoy", Extensions: []*corev3.Extension{{Name: "x"}}}
	problem := &statuspb.Status{Code: 13, Message: "no good"}
	for p, m := range map[Protocol]proto.Message{
		Delta: &discoveryv3.DeltaDiscoveryRequest{
			Node: node, TypeUrl: cds, ResourceNamesSubscribe: []string{"a", long}, ResourceNamesUnsubscribe: []string{"b"},
			InitialResourceVersions: map[string]string{"a": "1"}, ResponseNonce: "7", ErrorDetail: problem,
		},
		SotW: &discoveryv3.DiscoveryRequest{
			VersionInfo: "1", Node: node, TypeUrl: cds, ResourceNames: []string{"a", long}, ResponseNonce: "7", ErrorDetail: problem,
		},
	} {
		for _, size := range []int{1, 2, 7, 100, 10_000} {
			sees(t, read(t, p, m, size), long)
		}
	}
}

// sees checks what is read of that request.
func sees(t *testing.T, r *request, long string) {
	t.Helper()
	names, err := r.names.texts()
	if err != nil || !slices.Equal(names, []string{"a", long}) {
		t.Errorf("%s: names %q, error %v", r.protocol, names, err)
	}
	if string(r.url) != cds || string(r.nonce) != "7" {
		t.Errorf("%s: type %s, nonce %s", r.protocol, r.url, r.nonce)
	}
	if got, err := r.status(); err != nil || got.GetMessage() != "no good" {
		t.Errorf("%s: status %v, error %v", r.protocol, got, err)
	}
	got, err := r.readNode(true)
	want := &corev3.Node{Id: "e", Cluster: "edge", UserAgentName: "envoy"}
	if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("%s: node: %v %s", r.protocol, err, diff)
	}
	if r.protocol == Delta && (r.dropped.count != 1 || r.known.count != 1) {
		t.Errorf("%d dropped, %d known, want one of each", r.dropped.count, r.known.count)
	}
}

func FuzzRequest(f *testing.F) {
	for _, m := range []proto.Message{
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: []string{"a"}, InitialResourceVersions: map[string]string{"a": "1"}},
		&discoveryv3.DiscoveryRequest{TypeUrl: cds, ResourceNames: []string{"a"}, Node: nodeOf("e", "edge")},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(3))
	}
	f.Add([]byte("*\x020\x01"), uint8(0)) // an integer in a pair
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		for _, p := range []Protocol{Delta, SotW} {
			r := &request{protocol: p}
			ours := r.decode(inPieces(b, max(len(b), 1)))
			alike(t, r, ours, inPieces(b, 1+int(size)))
			var theirs proto.Message = &discoveryv3.DeltaDiscoveryRequest{}
			if p == SotW {
				theirs = &discoveryv3.DiscoveryRequest{}
			}
			if err := proto.Unmarshal(b, theirs); err != nil {
				continue // what is wrong within a field is found when it is looked at
			}
			if ours != nil {
				t.Fatalf("%s: %v, which is well formed", p, ours)
			}
			asked := theirs.(interface{ GetTypeUrl() string }).GetTypeUrl()
			if string(r.url) != asked {
				t.Errorf("%s: type %q, want %q", p, r.url, asked)
			}
			if _, err := r.names.texts(); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			if _, err := newPool().state(cds, r.known, nothing); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
	})
}

// alike checks that a message in pieces is read as it is in one.
func alike(t *testing.T, whole *request, failed error, pieces mem.BufferSlice) {
	t.Helper()
	r := &request{protocol: whole.protocol}
	if err := r.decode(pieces); (err == nil) != (failed == nil) {
		t.Fatalf("%s: in pieces %v, in one %v", r.protocol, err, failed)
	}
	if failed != nil {
		return
	}
	for _, texts := range [][2][]byte{{r.node, whole.node}, {r.url, whole.url}, {r.nonce, whole.nonce}, {r.problem, whole.problem}} {
		if !bytes.Equal(texts[0], texts[1]) {
			t.Errorf("%s: %q in pieces, %q in one", r.protocol, texts[0], texts[1])
		}
	}
	for _, lists := range [][2]fields{{r.names, whole.names}, {r.dropped, whole.dropped}, {r.known, whole.known}} {
		got, want := lists[0], lists[1]
		if got.key != want.key || got.star != want.star || got.count != want.count {
			t.Errorf("%s: %d of key %v in pieces, %d of %v in one", r.protocol, got.count, got.key, want.count, want.key)
		}
		texts, err := got.texts()
		if again, failed := want.texts(); !slices.Equal(texts, again) || (err == nil) != (failed == nil) {
			t.Errorf("%s: %q (%v) in pieces, %q (%v) in one", r.protocol, texts, err, again, failed)
		}
	}
}

// A length that no message has must not make room for it.
func TestRequestsThatEndTooSoonAreMalformed(t *testing.T) {
	t.Parallel()
	for _, b := range []string{
		"\x1a\x05ab",                 // names: 5 bytes, of which 2 are there
		"\x1a\xff\xff\xff\xff\x07ab", // 2 GiB
		"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x7fab",
		"\x1a\x80", "\x80", "\x02\x00", "\x08\xff", // a length, a number, no number, an integer
		"\x0b\x0a\x01a", // a group
	} {
		for size := 1; size <= len(b); size++ {
			r := &request{protocol: Delta}
			if err := r.decode(inPieces([]byte(b), size)); err == nil {
				t.Errorf("%q in pieces of %d is read", b, size)
			}
		}
	}
}

// What an Envoy knows is told in any order, with whatever it has twice or nobody has heard of.
func TestKnownStatesAreReadInAnyOrder(t *testing.T) {
	t.Parallel()
	var entries []Resource
	var all []*entry
	for _, name := range []string{"a", "b", "c", "d"} {
		entries = append(entries, cluster(name, "1"))
		all = append(all, entries[len(entries)-1].made)
	}
	to := newSet(all, sumOf(all))
	pair := func(name, version string) string {
		return "\x0a" + string(rune(len(name))) + name + "\x12" + string(rune(len(version))) + version
	}
	same := func(i int) string { return pair(entries[i].Name, entries[i].Version) }
	p := newPool()
	for _, c := range []struct {
		pairs []string
		all   bool // it is what there is
		names string
	}{
		{[]string{same(2), same(0), same(3), same(1)}, true, "a b c d"},
		{[]string{same(1), same(3), same(0), same(2)}, true, "a b c d"}, // found
		{[]string{same(1), same(1), same(0), same(2), same(3)}, true, "a b c d"},
		{[]string{same(1), same(1), same(0), same(2)}, false, "a b c"}, // as many as there are
		{[]string{same(0), same(1), same(2), pair("d", "0")}, false, "a b c d"},
		{[]string{same(0), same(1), same(2), same(3), pair("e", "1")}, false, "a b c d e"},
	} {
		var b []byte
		for _, pair := range c.pairs {
			b = appendText(b, 5, pair)
		}
		for _, size := range []int{3, 1000} {
			r := &request{protocol: Delta}
			if err := r.decode(inPieces(b, size)); err != nil {
				t.Fatal(err)
			}
			got, err := p.state(cds, r.known, to)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range got.sorted {
				names = append(names, e.Name)
			}
			if (got == to) != c.all || strings.Join(names, " ") != c.names {
				t.Errorf("%q is %q, what there is: %t", c.pairs, names, got == to)
			}
		}
	}
}
